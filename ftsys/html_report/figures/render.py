"""Turns a drawing into inline SVG for the page, or into a PNG file."""

import io
import re
from html import escape
from pathlib import Path

from ftsys.files.atomic import atomic_open
from ftsys.html_report.figures.style import CSS_NAMES, styled
from ftsys.html_report.parts import Figure, readable

PNG_DOTS_PER_INCH = 160

_COLOR = re.compile("|".join(CSS_NAMES), re.IGNORECASE)
_ID = re.compile(r'\b(id="|href="#|url\(#)([\w.-]+)')
_SIZE = re.compile(r'(<svg[^>]*?) width="([\d.]+)pt" height="([\d.]+)pt"')
_HEAD = re.compile(r"^.*?(?=<svg)", re.DOTALL)
_REFERENCE = re.compile(r'(?:href="#|url\(#)([\w.-]+)')
_UNUSED_ID = re.compile(r' id="([\w.-]+)"(?=[^<]*>)')
_BETWEEN = re.compile(r">\s+<")
_TAG = re.compile(r"<[^>]+>")
_METADATA = re.compile(r"\s*<metadata>.*?</metadata>", re.DOTALL)
_COMMENT = re.compile(r"\s*<!--.*?-->", re.DOTALL)
_FONT = re.compile(r"font: (?:\w+ )*?(\d+(?:\.\d+)?)px [^;\"]*")
_DECIMALS = re.compile(r"(\d+\.\d\d)\d+")


def inline_svg(figure: Figure, prefix: str) -> str:
    """Return the figure as an <svg> element with a title and a description.

    Its colours are variables of the page's style sheet, its fonts those of the page, and its ids begin with `prefix`,
    because ids must differ between the figures of a page.
    """
    text = _COMMENT.sub("", _METADATA.sub("", _HEAD.sub("", _svg(figure))))  # a comment repeats each text
    used = set(_REFERENCE.findall(text))
    text = _UNUSED_ID.sub(lambda found: found[0] if found[1] in used else "", text)  # half of a figure of many lines
    text = _TAG.sub(lambda tag: _adapted(tag[0], prefix), _BETWEEN.sub("><", text))
    head = f'role="img" aria-labelledby="{prefix}-title {prefix}-desc" class="figure"'
    text = _SIZE.sub(rf"\1 {head}", text, count=1)
    named = f'<title id="{prefix}-title">{escape(figure.title)}</title><desc id="{prefix}-desc">'
    return text.replace(">", f">{named}{escape(figure.description)}</desc>", 1)


def _adapted(tag: str, prefix: str) -> str:
    """Adapt the attributes of one tag; the texts between tags, such as names of classes, are never changed."""
    tag = _ID.sub(lambda found: f"{found[1]}{prefix}-{found[2]}", tag)
    tag = _COLOR.sub(lambda found: f"var({CSS_NAMES[found[0].lower()]})", tag)
    return _FONT.sub(r"font-size: \1px", _DECIMALS.sub(r"\1", tag))


def _svg(figure: Figure) -> str:
    stream = io.StringIO()
    with styled():
        figure.draw().savefig(stream, format="svg", metadata={"Date": None})
    return stream.getvalue()


def write_png(figure: Figure, path: Path) -> None:
    """Write the figure with a white background, atomically. Raises StorageError."""
    with styled(), atomic_open(path, "wb") as stream:
        drawing = figure.draw()
        drawing.suptitle(readable(figure.title), x=0.01, ha="left", fontsize=11)
        drawing.savefig(stream, format="png", dpi=PNG_DOTS_PER_INCH, facecolor="white")
