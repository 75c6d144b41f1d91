"""Assembles the sections of a report and renders the page; nothing on it is loaded from anywhere else."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from ftsys import __version__
from ftsys.errors import ConfigError
from ftsys.files.atomic import atomic_write_text
from ftsys.html_report.answers import answers_of
from ftsys.html_report.facts import RunFacts
from ftsys.html_report.figures.render import inline_svg, write_png
from ftsys.html_report.groups import TaskGroup, groups_of
from ftsys.html_report.parts import Figure, Note, Section, readable
from ftsys.html_report.sections.answers import answer_sections
from ftsys.html_report.sections.configuration import configuration_section, environment_section
from ftsys.html_report.sections.examples import examples_section
from ftsys.html_report.sections.learning import POINTS_OF_A_PAGE, learning_section
from ftsys.html_report.sections.lengths import lengths_section
from ftsys.html_report.sections.overview import made_at, overview_section, summary
from ftsys.html_report.sections.speed import speed_section

LARGEST = 2_000_000
"""Bytes of a page: what a browser on a phone and an e-mail still take."""

_TEMPLATE = Path(__file__).parent / "template"
_CURVES_OF_A_RUN = 6


@dataclass(frozen=True)
class Chapter:
    """Sections below a common title: those of a task, or of all runs."""

    title: str
    anchor: str
    sections: Sequence[Section]


@dataclass(frozen=True)
class Page:
    """A whole report. `lead` is the summary at its head."""

    title: str
    lead: str
    chapters: Sequence[Chapter]

    @property
    def figures(self) -> dict[str, Figure]:
        """All figures of the page by name; the second of a name gets -2 at its end, as for a second model."""
        sections = [section for chapter in self.chapters for section in chapter.sections]
        found: dict[str, Figure] = {}
        for figure in (part for section in sections for part in section.parts if isinstance(part, Figure)):
            found[next(name for name in _numbered(_plain(figure.name)) if name not in found)] = figure
        return found


def _plain(name: str) -> str:
    """Return a name that is a file's and an id's: the names of splits and metrics in a log may hold anything."""
    return re.sub(r"[^\w-]", "-", name, flags=re.ASCII)[:80]


def _numbered(name: str) -> Iterator[str]:
    yield name
    yield from (f"{name}-{number}" for number in count(2))


def make_page(runs: Sequence[RunFacts], title: str) -> Page:
    """Make the chapters: all runs, each task, then speed, configuration and environment."""
    groups = groups_of(runs)
    points = max(6, min(150, POINTS_OF_A_PAGE // (_CURVES_OF_A_RUN * len(runs))))
    overview = Chapter("", "overview", [overview_section(groups)])
    tasks = [
        _task_chapter(group, f"task-{number}", len(groups), points) for number, group in enumerate(groups, start=1)
    ]
    rest = [speed_section(groups, points), configuration_section(runs), environment_section(runs)]
    return Page(title, summary(groups), [overview, *tasks, Chapter("How it ran", "how", rest)])


def _task_chapter(group: TaskGroup, anchor: str, tasks: int, points: int) -> Chapter:
    most = {1: 6, 2: 4}.get(tasks, 2)
    sections = [learning_section(group, anchor, points)]
    for number, split in enumerate(_labelled(group)):
        notes: list[Note] = []
        below = anchor if number == 0 else f"{anchor}-{number}"
        answers = answers_of(group, split, notes)
        sections += answer_sections(group, answers, notes, below, most)
        sections.append(examples_section(group.task, answers, below))
    return Chapter(f"Task {group.title}", anchor, [*sections, lengths_section(group, anchor)])


def _labelled(group: TaskGroup) -> list[str]:
    """Return the evaluation splits that a run has metrics of; the first one alone if no run has any."""
    found = {split for run in group.runs for split, metrics in run.metrics().items() if metrics}
    return [split for split in group.task.evaluation_splits if split in found] or list(group.task.evaluation_splits[:1])


def render(page: Page) -> str:
    """Return the page as HTML. Every text is escaped. Raises ConfigError for a page above LARGEST."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    figures = page.figures.values()
    drawn = {id(figure): Markup(inline_svg(figure, f"f{number}")) for number, figure in enumerate(figures)}
    style, script = (Markup((_TEMPLATE / name).read_text(encoding="utf-8")) for name in ("page.css", "page.js"))
    rendered = environment.get_template("page.html.jinja").render(
        page=page,
        draw=lambda figure: drawn[id(figure)],
        style=style,
        script=script,
        made_at=made_at(),
        version=__version__,
    )
    text = readable(rendered)
    if len(text.encode()) > LARGEST:
        raise ConfigError(
            f"the page would have {len(text.encode()) / 1e6:.1f} MB, and the limit is 2 MB: name fewer runs."
        )
    return text


def write_page(page: Page, path: Path) -> int:
    """Write the page, atomically; returns its size in bytes. Raises StorageError and ConfigError."""
    text = render(page)
    atomic_write_text(path, text)
    return len(text.encode())


def write_pngs(page: Page, folder: Path) -> int:
    """Write each figure as FOLDER/NAME.png; returns their number. Raises StorageError."""
    for name, figure in page.figures.items():
        write_png(figure, folder / f"{name}.png")
    return len(page.figures)
