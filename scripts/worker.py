"""`tff-autoprune worker`."""

from tff_autoprune import cli

cli.main("worker")
