"""A profile that was taken on a device tells what narrower networks take there."""

import json

import pytest
from conftest import QUICK

from android_bench import cli
from tff_autoprune import config as config_lib
from tff_autoprune import models, surgery
from tff_autoprune.errors import UserError
from tff_autoprune.export import conversion
from tff_autoprune.program import device_profile, pruning_methods
from tff_autoprune.program.device_profile import DeviceProfile
from tff_autoprune.search import budget as budget_lib
from tff_autoprune.search import change, counted_cost, structure


@pytest.fixture
def model():
    return models.build("inception", input_shape=(28, 28, 1), num_classes=62, seed=0)


@pytest.fixture
def result(attach, program, model, tmp_path):
    """The result.json of a device on which the model was profiled."""
    _, serial = attach()
    path, out = tmp_path / "dense.tflite", tmp_path / "out"
    path.write_bytes(conversion.convert(model, "float32"))
    where = [f"--benchmark_binary={program}", f"--model={path}", f"--out={out}"]
    how = [*QUICK, "--rounds=1", "--delegate=cpu", "--profile"]
    assert cli.main(["run", *where, *how]) == 0
    return out / serial.replace(":", "_") / "result.json"


def half_of(model):
    groups = [group for group in surgery.find_filter_groups(model) if group.prunable]
    return surgery.remove_filters(model, {g.name: range(g.channels // 2) for g in groups})


def test_latency_follows_the_layers(result, model):
    profile = DeviceProfile.read(str(result), model)
    measured = json.loads(result.read_text())["summary"][0]["latency_us"] / 1e3
    assert profile.latency_ms(model) == pytest.approx(measured)
    assert {"stem", "block_2_conv_5x5", "conv_2", "dense", "logits"} <= set(profile.ms_per_work)
    assert profile.rest_ms < 0.1 * measured
    narrow = profile.latency_ms(half_of(model))
    assert profile.rest_ms < narrow < 0.6 * measured

    # The estimate of the search falls as the latency does.
    network = surgery.Network(model)
    counted = counted_cost.CountedCost(network, profile.weights(network), factorize=False)
    present = counted_cost.Counts(dict.fromkeys([g.name for g in network.prunable], 0), {})
    for group in network.prunable:
        saved = counted.of(present) - counted.of(present.less(group.name, 1))
        saves = measured - profile.latency_ms(surgery.remove_filters(model, {group.name: [0]}))
        # Layers that compute nothing save a little besides.
        assert 0 < saved <= 1.01 * saves < 2 * saved


def test_a_budget_on_the_device_is_met(result, model):
    network = surgery.Network(model)
    target = 0.4 * DeviceProfile.read(str(result), model).latency_ms(model)
    budget = device_profile.budget(target, str(result))
    space = structure.Space(network, budget.weights(network))
    found, reached = budget_lib.fit(
        budget, space, network, lambda one: change.Change(network, one).model
    )
    assert 0.98 * target <= reached <= target
    model = change.Change(network, found).model
    assert DeviceProfile.read(str(result), network.model).latency_ms(model) == reached


def test_a_configuration_names_the_profile(result, model):
    config = config_lib.default()
    config.pruning.latency_profile = str(result)
    with pytest.raises(UserError, match="with it, found"):
        config_lib.validate(config)
    config.pruning.target_latency_ms = 1e-6
    with pytest.raises(UserError, match=r"pruning\.target_latency_ms: expected at least"):
        pruning_methods.create(config_lib.validate(config)).initialize(surgery.Network(model))


def test_other_profiles_are_refused(result, model, tmp_path):
    value = json.loads(result.read_text())

    def refused(change, why):
        changed = json.loads(json.dumps(value))
        change(changed)
        path = tmp_path / "changed.json"
        path.write_text(json.dumps(changed))
        with pytest.raises(UserError, match=why):
            DeviceProfile.read(str(path), model)

    def change_operators(**values):
        return lambda v: [o.update(values) for o in v["profiles"][0]["operators"]]

    refused(change_operators(mean_ms=0.0), "expected operators of the layers")
    refused(change_operators(phase="delegate"), "expected one profile of 'dense' .* found 0")
    hidden = change_operators(name="Convolution (NHWC, F32) IGEMM:0")
    refused(hidden, "as a profile of its .tflite with --delegate=cpu has them")
    refused(lambda v: v.update(profiles=[]), "expected one profile of 'dense' .* found 0")
    refused(lambda v: v.update(profiles=v["profiles"] * 2), "found 2")
    refused(lambda v: v["summary"][0].update(latency_us=None), "expected a valid latency")
    refused(lambda v: v.update(schema="x"), "expected a result of android_bench")
    with pytest.raises(UserError, match=r"missing\.json"):
        DeviceProfile.read(str(tmp_path / "missing.json"), model)
    other = models.build("resnet", input_shape=(28, 28, 1), num_classes=62, seed=0)
    with pytest.raises(UserError, match="expected operators of the layers of 'resnet'"):
        DeviceProfile.read(str(result), other)
