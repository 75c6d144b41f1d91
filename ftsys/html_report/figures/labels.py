"""Draws scores and counts of each label of a task with several labels an example."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ftsys.html_report.figures.answers import draw_squares
from ftsys.html_report.figures.style import INK, legend_above, line_style, new_figure, shortened

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

_MARKERS = ("o", "D")


def draw_by_label(names: Sequence[str], columns: Sequence[tuple[str, npt.NDArray[np.float64]]]) -> "Drawing":
    """Draw a row for each label with a dot for each run; `columns` have a name and values (S, labels) from 0 to 1."""
    drawing, axes = new_figure(height=max(1.6, 0.9 + 0.26 * len(names)))
    for number, (name, values_SC) in enumerate(columns):
        rows = np.broadcast_to(np.arange(len(names)) + (number - 0.5) * 0.24, values_SC.shape)
        color = line_style(number)["color"]
        axes.scatter(values_SC, rows, s=20, color=color, marker=_MARKERS[number], alpha=0.75, linewidths=0, label=name)
    axes.set_yticks(range(len(names)), [shortened(name, 20) for name in names], color=INK)
    axes.set(xlim=(-0.02, 1.02), ylim=(len(names) - 0.5, -0.5))
    legend_above(axes, [name for name, _ in columns])
    return drawing


def draw_label_counts(
    share_CK: npt.NDArray[np.float64],
    counts_CK: npt.NDArray[np.float64],
    names: Sequence[str],
    kinds: Sequence[str],
) -> "Drawing":
    """Draw a row for each label and a square for each of the K kinds of answers, with its share and number."""
    drawing, axes = new_figure(height=0.9 + 0.32 * len(names))
    draw_squares(axes, share_CK, counts_CK, "{share:.0%} ({count:,.0f})")
    axes.set_xticks(np.arange(len(kinds)), kinds)
    axes.set_yticks(np.arange(len(names)), [shortened(name, 20) for name in names])
    axes.xaxis.tick_top()
    return drawing
