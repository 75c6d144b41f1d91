"""Draws lines over steps, epochs or ranks: a thin line for each run, and a thick one for the mean of several."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ftsys.html_report.figures.style import INK, legend_above, line_style, new_figure
from ftsys.html_report.parts import readable

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Line:
    """A run's values. Lines with the same `series` have one colour and one entry in the legend."""

    series: str
    points: Points


def draw_lines(
    lines: Sequence[Line], x_label: str, y_label: str, markers: bool = False, zero: bool = False
) -> "Drawing":
    """Draw all lines; a series with several lines also gets their mean. `zero` begins the y axis at 0."""
    from matplotlib.ticker import MaxNLocator

    drawing, axes = new_figure()
    series = list(dict.fromkeys(line.series for line in lines))
    for number, name in enumerate(series):
        members = [line.points for line in lines if line.series == name]
        style = line_style(number) | ({"marker": "o", "markersize": 3.5} if markers and len(lines) <= 12 else {})
        alone = len(members) == 1
        for points in members:
            axes.plot(
                *zip(*points, strict=True), **style, alpha=1.0 if alone else 0.45, linewidth=1.6 if alone else 0.9
            )
        if not alone:
            mean = mean_line(members)
            axes.plot([x for x, _ in mean], [y for _, y in mean], **style, linewidth=2.2)
        axes.plot([], [], **style, label=name)
    axes.set(xlabel=x_label, ylabel=readable(y_label))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=7, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    if zero:
        axes.set_ylim(bottom=0)
    legend_above(axes, series)
    return drawing


def mean_line(members: Sequence[Points]) -> list[tuple[float, float]]:
    """Return the mean over the members at each x that all of them have."""
    values = [dict(points) for points in members]
    common = [x for x in values[0] if all(x in one for one in values)]
    return [(x, float(np.mean([one[x] for one in values]))) for x in common]


def thinned(points: Points, most: int) -> list[tuple[float, float]]:
    """Return at most `most` points: the first and the last one, and means of groups of neighbours between them."""
    if len(points) <= most:
        return list(points)
    groups = np.array_split(np.asarray(points[1:-1], np.float64), most - 2)
    means = [(float(group[-1, 0]), float(group[:, 1].mean())) for group in groups]
    return [points[0], *means, points[-1]]


def draw_stacked(names: Sequence[str], phases: Sequence[tuple[str, Sequence[float]]], x_label: str) -> "Drawing":
    """Draw a horizontal bar for each name, made of one part for each phase. Values are (len(names),) each."""
    drawing, axes = new_figure(height=max(1.5, 0.62 + 0.3 * len(names)))
    left = np.zeros(len(names))
    for number, (phase, values) in enumerate(phases):
        color = line_style(number)["color"]
        axes.barh(range(len(names)), values, left=left, height=0.62, color=color, label=phase)
        left += np.asarray(values)
    axes.set_yticks(range(len(names)), names, color=INK)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set_xlabel(x_label)
    legend_above(axes, [phase for phase, _ in phases])
    return drawing
