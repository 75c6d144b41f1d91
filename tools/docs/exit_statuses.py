"""Writes the reference page of the exit statuses from `ftsys.errors`."""

import inspect

from ftsys import errors
from ftsys.errors import EXIT_STATUSES, FtsysError
from tools.docs.markdown import GENERATED, sentence, table

HEAD = f"""{GENERATED}
# Exit statuses

"""

LAUNCHERS = """
`ftlaunch run` ends with the exit status of the run, and with 1 for a rank that was killed. Other launchers do not pass
exit statuses on: `torchrun` turns each of them into 1. The run's own report is in `RUN_DIR/status.json`.

## Errors

Each error that is printed without a traceback is one of these classes, which `ftsys.errors` defines.

"""


def exit_statuses_page() -> str:
    """Return the page: one row for each exit status, one for each class of error."""
    statuses = [(str(status), sentence(meaning)) for status, meaning in EXIT_STATUSES.items()]
    classes = [each for each in vars(errors).values() if inspect.isclass(each) and issubclass(each, FtsysError)]
    rows = [(f"`{each.__name__}`", str(each.exit_status), sentence(inspect.getdoc(each) or "")) for each in classes]
    return (
        HEAD
        + table(("Exit status", "Meaning"), statuses, right=[0])
        + LAUNCHERS
        + table(("Error", "Exit status", "Meaning"), rows, right=[1])
    )
