"""Writes all generated files of the documentation: `python -m tools.docs.pages`, a part of `make docs`."""

from collections.abc import Callable
from pathlib import Path

from tools.docs.api import api_page
from tools.docs.commands import commands_page
from tools.docs.exit_statuses import exit_statuses_page
from tools.docs.machine_code import machine_code_page
from tools.docs.picture import DARK, LIGHT, speed_picture
from tools.docs.records import records_page
from tools.docs.run_file import run_file_page
from tools.docs.run_glue_flags import run_glue_flags_page
from tools.docs.scripts import differences_page

DOCS = Path(__file__).parents[2] / "docs"

PAGES: dict[str, Callable[[], str]] = {
    "reference/run-file.md": run_file_page,
    "reference/commands.md": commands_page,
    "reference/exit-statuses.md": exit_statuses_page,
    "reference/run-glue-flags.md": run_glue_flags_page,
    "reference/api.md": api_page,
    "reference/trainer-differences.md": differences_page,
    "benchmarks/records.md": records_page,
    "benchmarks/machine-code.md": machine_code_page,
    "images/speed-light.svg": lambda: speed_picture(LIGHT),
    "images/speed-dark.svg": lambda: speed_picture(DARK),
}
"""Path below docs/ -> the function that returns the text of that file."""


def main() -> None:
    """Write every file that differs from what the code says now, and print its path."""
    for name, text_of in PAGES.items():
        path, text = DOCS / name, text_of()
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            print(path)


if __name__ == "__main__":
    main()
