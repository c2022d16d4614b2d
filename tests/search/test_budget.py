"""Budgets are met from below, within 2 %."""

import pytest

from tff_autoprune import models, surgery
from tff_autoprune.errors import UserError
from tff_autoprune.search import budget as budget_lib
from tff_autoprune.search import ranking
from tff_autoprune.surgery import cost


@pytest.mark.parametrize("share", [0.5, 0.18])
@pytest.mark.parametrize("what", ["parameters", "flops", "bytes"])
def test_a_cut_meets_a_budget(what, share):
    model = models.build("cnn", input_shape=(28, 28, 1), num_classes=62, seed=0)
    groups = [group for group in surgery.find_filter_groups(model) if group.prunable]
    budget = budget_lib.counted(what, share * getattr(cost.of(model), what))
    energies = ranking.energies(groups, model.get_weights())
    selection, left = budget_lib.fit(budget, model, groups, energies)
    found = getattr(cost.of(surgery.remove_filters(model, selection)), what)
    assert found == left
    assert 0.98 * budget.value <= found <= budget.value


def test_a_budget_below_the_smallest_model_is_refused():
    model = models.build("cnn", input_shape=(28, 28, 1), num_classes=62, seed=0)
    with pytest.raises(UserError, match="expected at least 176"):
        budget_lib.counted("parameters", 100).check_reachable(model)
    budget_lib.counted("parameters", 1000).check_reachable(model)
