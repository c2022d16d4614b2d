"""`tff-autoprune compare`."""

from tff_autoprune import cli

cli.main("compare")
