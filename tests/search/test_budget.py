"""Budgets are met from below, within 2 %."""

import pytest

from tff_autoprune import models, surgery
from tff_autoprune.errors import UserError
from tff_autoprune.search import budget as budget_lib
from tff_autoprune.search import change, structure


@pytest.mark.parametrize("factorize", [True, False])
@pytest.mark.parametrize("share", [0.5, 0.18])
@pytest.mark.parametrize("what", ["parameters", "flops", "bytes"])
def test_a_structure_meets_a_budget(what, share, factorize):
    network = surgery.Network(models.build("cnn", input_shape=(28, 28, 1), num_classes=62, seed=0))
    budget = budget_lib.counted(what, share * getattr(network.cost, what))
    space = structure.Space(network, budget.weights(network), factorize=factorize)
    found, left = budget_lib.fit(budget, space, network, lambda s: change.Change(network, s).model)
    model = change.Change(network, found).model
    assert left == getattr(surgery.Network(model).cost, what)
    assert 0.98 * budget.value <= left <= budget.value
    assert bool(found.factorized) <= factorize


def test_a_budget_below_the_smallest_model_is_refused():
    network = surgery.Network(models.build("cnn", input_shape=(28, 28, 1), num_classes=62, seed=0))
    with pytest.raises(UserError, match="expected at least 176"):
        budget_lib.counted("parameters", 100).check_reachable(network)
    budget_lib.counted("parameters", 1000).check_reachable(network)
