"""`tff-autoprune train`."""

from tff_autoprune import cli

cli.main("train")
