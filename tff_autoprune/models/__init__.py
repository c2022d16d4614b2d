"""The networks of the reference, and the user's own.

Sizes, kernels and paddings follow Nguyen, Le, Avila, "Automatic Structured Pruning for Efficient
Architecture in Federated Learning" (arXiv 2411.01759).
"""

from tff_autoprune.models.builder import build, load_trained, names

__all__ = ["build", "load_trained", "names"]
