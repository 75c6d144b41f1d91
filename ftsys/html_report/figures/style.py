"""Defines colours and sizes of all figures. A colour stands for a variable of the page's style sheet, dark or light."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ftsys.html_report.parts import readable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing

INK, MUTED, GRID, SURFACE, HEAT = "#1b2430", "#5b6675", "#d9dee5", "#fefefe", "#084c80"
SERIES = ("#0b6fb8", "#c2410c", "#0f7b55", "#8b3fa8", "#a16207", "#be123c", "#3f51b5", "#0e7490")
"""Colours of runs or models, of equal weight, that also differ for people who see few colours."""

CSS_NAMES = {
    INK: "--ink",
    MUTED: "--muted",
    GRID: "--grid",
    SURFACE: "--surface",
    HEAT: "--heat",
    **{color: f"--series-{number}" for number, color in enumerate(SERIES, start=1)},
}
"""The variable of the style sheet for each colour; the colour itself is what a PNG shows."""

DASHES = ("-", (0, (4, 1.5)), (0, (1.5, 1.5)), (0, (5, 1.5, 1.5, 1.5)))
"""Line styles: with more lines than colours, and for people who see no colours."""

WIDTH, HEIGHT = 380 / 72, 250 / 72
"""Size in inches of a figure that is as wide as a phone: 380 points, of which a phone shows one as one pixel."""

_SETTINGS: dict[Any, object] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "ftsys",
    "text.parse_math": False,  # a name may hold dollar signs
    "font.family": "sans-serif",
    "font.size": 10.5,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 10.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 10,
    "lines.linewidth": 1.6,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}


@contextmanager
def styled() -> Iterator[None]:
    """Set matplotlib's settings for the block, and nothing outside it."""
    import matplotlib as mpl

    with mpl.rc_context(_SETTINGS):
        yield


def new_figure(height: float = HEIGHT) -> "tuple[Drawing, Axes]":
    """Return an empty figure with one pair of axes. Call it within `styled`."""
    from matplotlib.figure import Figure as Drawing

    drawing = Drawing(figsize=(WIDTH, height), layout="constrained")
    return drawing, drawing.subplots()


def line_style(number: int) -> dict[str, Any]:
    """Return colour and dashes of the series with that number, from 0."""
    return {"color": SERIES[number % len(SERIES)], "linestyle": DASHES[number // len(SERIES) % len(DASHES)]}


def legend_above(axes: "Axes", names: Sequence[str]) -> None:
    """Write the legend above the whole figure, in as many columns as fit; long names are cut in the middle."""
    if len(names) < 2:
        return
    handles, labels = axes.get_legend_handles_labels()
    shown = [shortened(label, 34) for label in labels]
    longest = max((len(label) for label in shown), default=1)
    in_one_row = sum(len(label) + 6 for label in shown) <= 66
    columns = len(shown) if in_one_row else max(1, min(5, 60 // (longest + 6)))
    drawing = axes.get_figure(root=True)
    assert drawing is not None
    drawing.legend(handles, shown, loc="outside upper left", ncols=columns, handlelength=1.6, columnspacing=1.4)


def shortened(text: str, most: int) -> str:
    """Return the text as a figure can show it, with its middle left out if it is longer than `most` characters."""
    text = readable(text)
    half = (most - 1) // 2
    return text if len(text) <= most else f"{text[:half]}…{text[-half:]}"
