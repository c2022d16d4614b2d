"""How wide a network is, and the learning rate that suits it.

Rates of Adam transfer between widths in inverse proportion (Yang et al., arXiv 2203.03466): what is
narrower wants a larger one. All methods that inherit weights follow it, so that comparing them
compares what they remove. For SGD the cited result does not hold, and the rate stays.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tff_autoprune import surgery

# Nothing is known of rates that are larger than this many times the dense network's.
_MOST = 4.0


def learning_rate_scale(dense: surgery.Network, network: surgery.Network) -> float:
    """Returns the factor on the dense network's learning rate of adaptive optimizers.

    Args:
      dense: The network before the first move.
      network: The present one.

    Returns:
      How much wider the dense network is: the geometric mean over its prunable filter groups, at
      most 4. Ranks do not count.
    """
    now = {group.name: group.channels for group in network.groups}
    ratios = [
        math.log(group.channels / now[group.name]) for group in dense.prunable if group.name in now
    ]
    return min(_MOST, math.exp(sum(ratios) / len(ratios))) if ratios else 1.0
