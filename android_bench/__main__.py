"""`python -m android_bench`."""

import sys

from android_bench import cli

sys.exit(cli.main())
