"""`python -m tff_autoprune`."""

from tff_autoprune import cli

cli.main()
