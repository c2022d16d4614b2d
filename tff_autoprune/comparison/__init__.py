"""Runs of several pruning methods on the same data, clients, rounds and seeds, side by side."""

from tff_autoprune.comparison.runs import Plan, execute
from tff_autoprune.comparison.table import table, write

__all__ = ["Plan", "execute", "table", "write"]
