"""What the parent of all test processes imports once, so that each is a fork away; nothing here starts a thread."""

import gc
import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch reads it

import ftsys.score.run
import ftsys.train.finish
import ftsys.train.session  # noqa: F401  # for what it loads

gc.freeze()  # a collection in a fork would copy the memory of all that was imported
