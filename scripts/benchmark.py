"""`tff-autoprune benchmark`."""

from tff_autoprune import cli

cli.main("benchmark")
