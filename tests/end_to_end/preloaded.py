"""What the parent of all test ranks imports once, so that a rank is a fork away; nothing here starts a thread."""

import ftsys.score.run
import ftsys.train.finish
import ftsys.train.session  # noqa: F401  # for what it loads
