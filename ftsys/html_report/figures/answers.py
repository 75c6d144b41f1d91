"""Draws answers of models against labels: confusion matrix, scatter of a regression, reliability diagram."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ftsys.html_report.figures.style import (
    HEAT,
    INK,
    MUTED,
    SERIES,
    SURFACE,
    WIDTH,
    legend_above,
    line_style,
    new_figure,
    shortened,
)
from ftsys.html_report.statistics import Reliability

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing

_DARK = 0.65
"""From this share on, a square is so dark (or, on a dark page, so light) that the number needs the other colour."""

MOST_WRITTEN = 8
"""Up to this number of classes, a confusion matrix has its numbers written into it."""


def draw_confusion(
    share_CC: npt.NDArray[np.float64], counts_CC: npt.NDArray[np.float64], names: Sequence[str]
) -> "Drawing":
    """Draw a square for each label (row) and prediction (column); its colour is the share of the label's examples."""
    classes = len(names)
    drawing, axes = new_figure(height=min(1.3 + 0.55 * classes, WIDTH))
    draw_squares(axes, share_CC, counts_CC, "{share:.0%}\n{count:,.0f}" if classes <= MOST_WRITTEN else "")
    shown = [shortened(name, 16) for name in names]
    upright = sum(map(len, shown)) < 44
    axes.set_xticks(np.arange(classes), shown, rotation=0 if upright else 35, ha="center" if upright else "right")
    axes.set_yticks(np.arange(classes), shown)
    axes.set(xlabel="predicted", ylabel="label")
    return drawing


def draw_squares(
    axes: "Axes", share_RC: npt.NDArray[np.float64], counts_RC: npt.NDArray[np.float64], written: str
) -> None:
    """Draw a square for each row and column; its colour is the share.

    `written` is the form of the text in it, with `share` and `count` as its fields.
    """
    from matplotlib.patches import Rectangle

    rows, columns = share_RC.shape
    for row, column in np.ndindex(rows, columns):
        share = float(share_RC[row, column])
        corner = (column - 0.485, row - 0.485)
        axes.add_patch(Rectangle(corner, 0.97, 0.97, color=HEAT, linewidth=0, alpha=0.04 + 0.92 * share))
        text = written.format(share=share, count=counts_RC[row, column])
        color = SURFACE if share > _DARK else INK
        axes.text(column, row, text, ha="center", va="center", color=color, linespacing=1.5)
    axes.set(xlim=(-0.5, columns - 0.5), ylim=(rows - 0.5, -0.5))
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)


def draw_scatter(labels_N: npt.NDArray[np.float64], predictions_N: npt.NDArray[np.float64]) -> "Drawing":
    """Draw a point for each example, and the line on which prediction and label are equal."""
    drawing, axes = new_figure(height=4.0)
    both = np.concatenate([labels_N, predictions_N])
    ends = [float(both.min()), float(both.max())]
    axes.plot(ends, ends, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    axes.scatter(labels_N, predictions_N, s=9, color=SERIES[0], alpha=0.4, linewidths=0)
    axes.set(xlabel="label", ylabel="predicted")
    return drawing


def draw_reliability(curves: Sequence[tuple[str, Reliability]]) -> "Drawing":
    """Draw accuracy over mean probability of each bin, for each curve, and the line of perfect calibration."""
    drawing, axes = new_figure(height=3.7)
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    for number, (name, found) in enumerate(curves):
        filled = found.count > 0
        sizes = 12 + 90 * found.count[filled] / found.count.sum()
        style = line_style(number)
        axes.plot(found.confidence[filled], found.accuracy[filled], **style, label=name)
        axes.scatter(found.confidence[filled], found.accuracy[filled], s=sizes, color=style["color"])
    least = min((float(found.confidence[found.count > 0].min()) for _, found in curves), default=0.0)
    axes.set(xlim=(max(0.0, least - 0.05), 1.02), ylim=(0, 1.02))
    axes.set(xlabel="probability of the predicted class", ylabel="share that is right")
    legend_above(axes, [name for name, _ in curves])
    return drawing


def draw_lengths(splits: Sequence[tuple[str, Sequence[float], Sequence[float]]], x_label: str) -> "Drawing":
    """Draw the share of examples by length, as steps: for each split its name, the edges (B+1,) and shares (B,)."""
    drawing, axes = new_figure()
    for number, (name, edges, shares) in enumerate(splits):
        style = line_style(number)
        axes.stairs(shares, edges, color=style["color"], linestyle=style["linestyle"], linewidth=1.6, label=name)
    axes.set(xlabel=x_label, ylabel="share of examples")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_ylim(bottom=0)
    legend_above(axes, [name for name, _, _ in splits])
    return drawing
