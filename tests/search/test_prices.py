"""Clients tell which layers a cut may take from."""

import numpy as np
import pytest
from pruning_round_loop import run

from tff_autoprune import models, surgery
from tff_autoprune.search import auto, prices, ranking
from tff_autoprune.search import budget as budget_lib
from tff_autoprune.surgery import cost


def cnn():
    return models.build("cnn", input_shape=(20, 20, 1), num_classes=5, seed=1, filters=(12, 12))


def misses(layer):
    """A held-out loss that rises with every channel that one layer has lost."""

    def loss(model):
        gone = 1 - model.get_layer(layer).filters / 12
        others = sum(12 - found.filters for found in model.layers if hasattr(found, "filters"))
        return 1.0 + 2.0 * gone + 1e-4 * others

    return loss


@pytest.mark.parametrize(("needed", "spare"), [("conv_1", "conv_2"), ("conv_2", "conv_1")])
@pytest.mark.parametrize("what", ["parameters", "flops"])
def test_a_budget_is_met_where_clients_miss_least(needed, spare, what):
    model = cnn()
    target = 0.5 * getattr(cost.of(model), what)
    outcome = run(
        auto.AutoPruning(budget=budget_lib.counted(what, target)),
        model,
        rounds=60,
        train_loss=lambda round_num, _: 2.0 * 0.97**round_num,
        held_out_loss=misses(needed),
    )
    left = {name: outcome.model.get_layer(name).filters for name in (needed, spare)}
    assert left[needed] >= left[spare] + 3, left


class _Trial:
    """Clients whose loss rises by what each layer is said to be worth."""

    def __init__(self, worth, other_order):
        self.seen = {"calibrated_loss": 1.0, "accuracy": 0.5}
        self._worth = worth
        self._other_order = other_order

    def unexplained(self):
        return self._other_order

    def losses(self, selections):
        return [
            1.0 + sum(self._worth[name][ids].sum() for name, ids in selection.items())
            for selection in selections
        ]


def test_the_order_that_loses_less_counts():
    groups = [g for g in surgery.find_filter_groups(cnn()) if g.prunable]
    rising, falling = np.arange(1.0, 13), np.arange(12.0, 0, -1)
    trial = _Trial({"conv_1": rising, "conv_2": falling}, {"conv_1": falling, "conv_2": falling})
    energies = {name: rising / rising.sum() for name in ("conv_1", "conv_2")}
    found = prices.measured(
        trial, groups, energies, {"conv_1": 1.0, "conv_2": 1.0}, 3.0, least_left=0.5, layers=2
    )
    assert np.argmin(found["conv_1"]) == 0
    assert np.argmin(found["conv_2"]) == 11


def test_energies_count_where_no_layer_loses_anything():
    groups = [g for g in surgery.find_filter_groups(cnn()) if g.prunable]
    nothing = {name: np.zeros(12) for name in ("conv_1", "conv_2")}
    energies = ranking.energies(groups, cnn().get_weights())
    found = prices.measured(
        _Trial(nothing, {}), groups, energies, dict.fromkeys(nothing, 1.0), 3.0,
        least_left=0.5, layers=2,
    )  # fmt: skip
    for name, values in energies.items():
        np.testing.assert_array_equal(found[name], values)
