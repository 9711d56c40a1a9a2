"""Run ``python -m noderestrict``."""

import sys

from noderestrict.cli import main

sys.exit(main())
