"""`tff-autoprune show-data`."""

from tff_autoprune import cli

cli.main("show-data")
