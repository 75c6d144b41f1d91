"""Writes the reference page of the Python API: one entry for each public name, which mkdocstrings fills in."""

import ftsys
from tools.docs.markdown import GENERATED

HEAD = f"""{GENERATED}
# Python API

`import ftsys` costs nothing: each of these names is imported when it is first used. Import them from `ftsys` itself,
`from ftsys import Trainer`. The modules that the headings name may change.
"""


def api_page() -> str:
    """Return the page. The modules are not imported: most of them load torch."""
    return "\n".join([HEAD, *(f"::: {module}.{name}\n" for name, module in ftsys._HOMES.items())])
