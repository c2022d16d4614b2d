"""The networks of the reference, and the user's own.

Sizes, kernels and paddings follow Nguyen, Le, Avila, "Automatic Structured Pruning for Efficient
Architecture in Federated Learning" (arXiv 2411.01759).
"""

from tff_autoprune.models.builder import build, load_trained, names
from tff_autoprune.models.inputs import squashed_inputs

__all__ = ["build", "load_trained", "names", "squashed_inputs"]
