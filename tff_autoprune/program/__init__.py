"""The program that trains and prunes: rounds, feedback, decisions, checkpoints, records."""

from tff_autoprune.program.dry_run import describe
from tff_autoprune.program.training import Training

__all__ = ["Training", "describe"]
