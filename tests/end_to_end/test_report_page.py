"""Tests the page of `ftsys report --html` as a file, and in a real browser without a network."""

import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from ftsys.cli import main
from tests.unit.html_report.folders import write_run

BROWSER = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
HOSTILE = 'models/../"><img src=x onerror=alert(1)>$\\frac{'
PROBE = """<!doctype html><meta charset="utf-8"><body>
<iframe id="page" style="width:390px;height:800px" src="report.html"></iframe>
<script>addEventListener("load", () => {
  const page = document.getElementById("page").contentDocument;
  const titles = table => [...table.tHead.rows[0].cells].map(head => head.textContent);
  const runs = [...page.querySelectorAll("table")].filter(table => titles(table).includes("accuracy"));
  const table = runs.reduce((one, other) => other.rows.length > one.rows.length ? other : one);
  const column = titles(table).indexOf("accuracy");
  table.tHead.rows[0].cells[column].querySelector("button").click();
  const values = [...table.tBodies[0].rows].map(row => row.cells[column].textContent).join(" ");
  const {scrollWidth, clientWidth} = page.documentElement;
  document.title = `${clientWidth < 400 && scrollWidth <= clientWidth ? "fits" : "too wide"}, sorted ${values}`;
});</script>"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the page of two seeds, an unfinished run of a model with a hostile name, and a run of another task."""
    pytest.importorskip("jinja2")
    pytest.importorskip("matplotlib")
    root = tmp_path_factory.mktemp("report")
    write_run(root / "runs" / "seed-2", seed=2)
    write_run(root / "runs" / "seed-1")
    write_run(root / "runs" / "x", seed=3, model=HOSTILE, finished=False)
    write_run(root / "runs" / "other-task", labels=["bad", "good", "</svg><b>so</b>"])
    with (root / "runs" / "seed-1" / "metrics.jsonl").open("a") as log:
        log.write(
            json.dumps({"step": 20, "epoch": 2.0, "time": 1.0, "attempt": 1, "split": HOSTILE, HOSTILE: 0.5}) + "\n"
        )
    target = root / "report.html"
    assert main(["report", str(root / "runs"), "--html", str(target), "--png", str(root / "png")]) == 0
    return target


class _Outline(HTMLParser):
    """Collects the elements of a page with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_the_page_loads_nothing_and_is_small(page: Path) -> None:
    text = page.read_text()
    for tag, attributes in _Outline(text).found:
        loaded = [attributes.get(name) or "" for name in ("src", "href", "xlink:href", "srcset")]
        assert all(not one or one.startswith(("#", "data:,")) for one in loaded), (tag, attributes)
    assert not re.search(r"@import|url\((?!#)", text)
    assert len(text.encode()) < 2_000_000


def test_every_figure_has_a_text_alternative_and_ids_are_unique(page: Path) -> None:
    found = _Outline(page.read_text()).found
    ids = [attributes["id"] for _, attributes in found if "id" in attributes]
    assert len(ids) == len(set(ids))
    figures = [attributes for tag, attributes in found if tag == "svg"]
    assert len(figures) == len(list((page.parent / "png").glob("*.png"))) >= 10
    for attributes in figures:
        assert attributes["role"] == "img"
        assert all(name in ids for name in str(attributes["aria-labelledby"]).split())
    assert sum(tag == "figcaption" for tag, _ in found) == len(figures)


def test_names_and_texts_are_escaped(page: Path) -> None:
    text = page.read_text()
    assert not re.search(r"<img|<b>|<script>alert", text)
    assert html.escape("not <script>alert(1)</script> bad") in text
    assert "&lt;/svg&gt;&lt;b&gt;so&lt;/b&gt;" in text


def test_no_figure_mixes_two_tasks(page: Path) -> None:
    text = page.read_text()
    curves = re.findall(r"<h4>(mood \(task \d[^<]*): training loss</h4>", text)
    assert len(curves) == 2
    assert len(list((page.parent / "png").glob("task-*-train-loss.png"))) == 2


def test_the_unfinished_run_and_the_missing_source_are_said(page: Path, tmp_path: Path) -> None:
    assert "x is unfinished (running, step 20 of 20)" in page.read_text()
    folder = write_run(tmp_path / "alone")
    shutil.rmtree(tmp_path / "data-2")
    assert main(["report", str(folder), "--html", str(tmp_path / "a.html")]) == 0
    assert "The source of the data cannot be read" in (tmp_path / "a.html").read_text()


@pytest.mark.skipif(BROWSER is None, reason="no Chromium here: apt install chromium")
def test_a_browser_shows_the_page_on_a_phone_without_a_complaint(page: Path) -> None:
    (page.parent / "probe.html").write_text(PROBE)
    command = [str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom"]
    command += ["--allow-file-access-from-files", f"--user-data-dir={page.parent / 'profile'}"]
    done = subprocess.run(
        [*command, "--virtual-time-budget=5000", (page.parent / "probe.html").as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "CONSOLE" not in done.stderr, done.stderr
    titles = re.findall("<title>(.*?)</title>", done.stdout)
    assert titles[0] == "fits, sorted 0.5100 0.5200 0.5300"
