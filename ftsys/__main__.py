"""`python -m ftsys`, which is what every launcher starts in each rank."""

import gc
import sys

gc.disable()  # importing torch and transformers makes millions of objects that stay; training switches it on again

from ftsys.cli import main  # noqa: E402  # after the collector is off

if __name__ == "__main__":
    sys.exit(main(own_process=True))
