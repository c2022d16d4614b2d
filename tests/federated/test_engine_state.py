"""State survives checkpoints, shape changes and rollbacks."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import pytest
from federated_doubles import assert_same_bits, few_clients, make_datasets, make_model, weights_of

from tff_autoprune import federated
from tff_autoprune.errors import UserError

_AGGREGATORS = ("mean", "robust", "secure", "dp", "compressed")


def _settings(aggregator="mean", **fields):
    return few_clients(
        aggregator=federated.AggregatorSettings(name=aggregator, clients_per_round=3), **fields
    )


class _Removal:
    """Removes the last filters of `make_model`, as `surgery.Removal` does."""

    def __init__(self, kept):
        self._first, self._second = kept

    def slice_trainable(self, values):
        kernel_1, bias_1, kernel_2, bias_2, kernel_3, bias_3 = values
        a, b = self._first, self._second
        return [
            kernel_1[..., :a],
            bias_1[:a],
            kernel_2[:, :, :a, :b],
            bias_2[:b],
            kernel_3[:b],
            bias_3,
        ]


@pytest.mark.parametrize("aggregator", _AGGREGATORS)
def test_arrays_give_back_the_state_bit_for_bit(aggregator):
    engine = federated.Engine(make_model(), _settings(aggregator, server_optimizer="adam"))
    state = engine.next(engine.initialize(), make_datasets((9, 8, 7))).state
    arrays = engine.state_to_arrays(state)
    again = federated.Engine(make_model(seed=5), engine.settings)
    back = again.state_to_arrays(again.state_from_arrays(arrays))
    assert list(arrays) == list(back)
    assert_same_bits(list(arrays.values()), list(back.values()))


def test_arrays_of_another_process_are_refused():
    adam = federated.Engine(make_model(), _settings(server_optimizer="adam"))
    sgd = federated.Engine(make_model(), _settings())
    with pytest.raises(UserError, match="finalizer/accumulator/0"):
        sgd.state_from_arrays(adam.state_to_arrays(adam.initialize()))
    smaller = federated.Engine(make_model((3, 6)), _settings())
    with pytest.raises(UserError, match=r"trainable/0 should be float32\[3, 3, 1, 4\]"):
        sgd.state_from_arrays(smaller.state_to_arrays(smaller.initialize()))


@pytest.mark.parametrize("aggregator", _AGGREGATORS)
def test_a_resumed_run_repeats_the_uninterrupted_one(aggregator):
    datasets = make_datasets((9, 8, 7))
    engine = federated.Engine(make_model(), _settings(aggregator, server_optimizer="yogi"))
    middle = engine.next(engine.initialize(), datasets).state
    arrays = engine.state_to_arrays(middle)
    uninterrupted = engine.next(middle, datasets).state
    resumed = federated.Engine(make_model(seed=9), engine.settings)
    state = resumed.next(resumed.state_from_arrays(arrays), datasets).state
    assert_same_bits(weights_of(uninterrupted), weights_of(state))


_RUN = """
import hashlib, sys
sys.path.insert(0, sys.argv[1])
from federated_doubles import few_clients, make_datasets, make_model, weights_of
from tff_autoprune import federated, runtime
runtime.start()
engine = federated.Engine(make_model(normalization="batch"), few_clients())
state = engine.initialize()
for _ in range(2):
    state = engine.next(state, make_datasets((20, 15, 10, 5))).state
print(hashlib.sha256(b"".join(w.tobytes() for w in weights_of(state))).hexdigest())
"""


def test_two_processes_give_the_same_bits(request):
    folder = str(request.path.parent)
    digests = {
        subprocess.run(
            [sys.executable, "-c", _RUN, folder], capture_output=True, text=True, check=True
        ).stdout.split()[-1]
        for _ in range(2)
    }
    assert len(digests) == 1 and len(digests.pop()) == len(hashlib.sha256().hexdigest())


@pytest.mark.parametrize(
    ("optimizer", "moments"),
    [
        ("momentum", ("accumulator",)),
        ("adam", ("accumulator", "preconditioner")),
        ("adamw", ("accumulator", "preconditioner")),
        ("yogi", ("accumulator", "preconditioner")),
    ],
)
def test_moments_of_the_server_are_sliced_and_the_rest_is_kept(optimizer, moments):
    removal = _Removal((3, 4))
    engine = federated.Engine(make_model((4, 6)), _settings(server_optimizer=optimizer))
    old = engine.next(engine.initialize(), make_datasets((9, 8, 7))).state
    engine = engine.with_model(make_model((3, 4)))
    new = engine.carry_state(old, removal)
    assert set(new.finalizer) == set(old.finalizer)
    for key, value in old.finalizer.items():
        if key in moments:
            assert any(np.any(v) for v in value)
            assert_same_bits(list(new.finalizer[key]), removal.slice_trainable(value))
        else:
            assert new.finalizer[key] == value
    after = engine.next(new, make_datasets((9, 8, 7)))
    assert not after.failed


def test_moments_start_anew_without_a_removal():
    engine = federated.Engine(make_model((4, 6)), _settings(server_optimizer="adam"))
    old = engine.next(engine.initialize(), make_datasets((9, 8, 7))).state
    new = engine.with_model(make_model((3, 4))).carry_state(old)
    assert not any(np.any(v) for v in new.finalizer["accumulator"])
    assert new.finalizer["step"] == 0


@pytest.mark.parametrize("aggregator", ["robust", "secure", "dp", "compressed"])
def test_the_state_of_the_aggregator_survives_a_change_of_shape(aggregator):
    engine = federated.Engine(make_model((4, 6)), _settings(aggregator))
    state = engine.initialize()
    initial = engine.state_to_arrays(state)
    for _ in range(2):
        state = engine.next(state, make_datasets((9, 8, 7))).state
    old = engine.state_to_arrays(state)
    carried = [k for k in old if k.startswith(("aggregator", "client_work", "distributor"))]
    assert any(old[k].tobytes() != initial[k].tobytes() for k in carried if "aggregator" in k)
    smaller = engine.with_model(make_model((3, 4)))
    new = smaller.state_to_arrays(smaller.carry_state(state, _Removal((3, 4))))
    for key in carried:
        assert new[key].tobytes() == old[key].tobytes(), key


def test_the_weights_after_a_change_of_shape_are_those_of_the_new_model():
    engine = federated.Engine(make_model((4, 6), normalization="batch"))
    small = make_model((3, 4), normalization="batch", seed=4)
    smaller = engine.with_model(small)
    state = smaller.carry_state(engine.initialize())
    expected = [v.numpy() for v in (*small.trainable_weights, *small.non_trainable_weights)]
    assert_same_bits(weights_of(state), expected)
    assert smaller.keras_model(state).count_params() == small.count_params()


def test_a_rollback_continues_as_if_nothing_had_been_tried():
    datasets = make_datasets((9, 8, 7))
    engine = federated.Engine(make_model((4, 6)), _settings(server_optimizer="adam"))
    before = engine.next(engine.initialize(), datasets).state
    undisturbed = engine.next(before, datasets).state
    smaller = engine.with_model(make_model((3, 4)))
    smaller.next(smaller.carry_state(before, _Removal((3, 4))), datasets)
    rolled_back = engine.next(before, datasets).state
    assert_same_bits(weights_of(undisturbed), weights_of(rolled_back))


def test_the_engine_does_not_touch_the_model_it_is_given():
    model = make_model(normalization="batch")
    before = model.get_weights()
    engine = federated.Engine(model, few_clients())
    engine.next(engine.initialize(), make_datasets((9, 8)))
    assert_same_bits(before, model.get_weights())


def test_the_process_runs_alone():
    process = federated.Engine(make_model(), few_clients()).process
    state = process.initialize()
    output = process.next(state, make_datasets((9, 8)))
    assert output.metrics["client_work"]["train"]["num_examples"] == 17
