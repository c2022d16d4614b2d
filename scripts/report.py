"""`tff-autoprune report`."""

from tff_autoprune import cli

cli.main("report")
