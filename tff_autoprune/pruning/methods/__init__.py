"""Pruning methods: what to remove between rounds, and when."""

from tff_autoprune.pruning.methods.registry import create, names

__all__ = ["create", "names"]
