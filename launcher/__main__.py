"""`python -m launcher` is `ftlaunch`."""

import sys

from launcher.cli import main

sys.exit(main())
