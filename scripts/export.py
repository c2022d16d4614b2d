"""`tff-autoprune export`."""

from tff_autoprune import cli

cli.main("export")
