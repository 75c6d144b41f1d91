"""Tests the script that `evaluate.load` runs: it is ftsys's own, in a folder where nobody else could replace it."""

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ftsys.config import RunConfig
from ftsys.data.bundle import verify_bundle
from ftsys.data.glue_metric import METRIC_PLACE, METRIC_SCRIPT
from ftsys.errors import ConfigError
from ftsys.offline.hf_caches import HfCaches, put_glue_metric
from tests.unit.offline.conftest import bundled
from tests.unit.test_cache import AS_ROOT, NOBODY

EVIL = b"raise SystemExit('it ran')\n"


@pytest.fixture
def caches() -> Iterator[HfCaches]:
    """Return caches in a folder that every user may enter. pytest's own folder lets nobody else in."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield HfCaches.under(Path(name) / "hf")


@pytest.fixture
def script(caches: HfCaches) -> Path:
    """Return the script, which was put there before."""
    assert put_glue_metric(caches).new
    return caches.modules / METRIC_PLACE


def _link(path: Path) -> None:
    path.rename(path.with_suffix(".other"))
    path.symlink_to(path.with_suffix(".other"))


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


PLANTED: dict[str, Callable[[Path], object]] = {
    "other code": lambda path: path.write_bytes(EVIL),
    "a link": _link,
    "a pipe": _pipe,
    "a mode": lambda path: path.chmod(0o666),
    "nothing": Path.unlink,
}


@pytest.mark.timeout(120)
@pytest.mark.parametrize("plant", PLANTED.values(), ids=PLANTED)
@pytest.mark.parametrize("name", ["glue.py", "../__init__.py", "../../../__init__.py"])
def test_what_was_planted_is_replaced(
    caches: HfCaches, script: Path, plant: Callable[[Path], object], name: str
) -> None:
    plant(script.parent / name)
    assert put_glue_metric(caches).new == (name == "glue.py")
    assert (script.parent / name).read_bytes() == (METRIC_SCRIPT if name == "glue.py" else b"")
    assert not (script.parent / name).is_symlink()
    assert not put_glue_metric(caches).new


def test_code_that_python_would_run_in_its_place_is_removed(caches: HfCaches, script: Path) -> None:
    (script.parent / "__pycache__").mkdir()
    (script.parent / "__pycache__/glue.cpython-311.pyc").write_bytes(EVIL)
    put_glue_metric(caches)
    assert not (script.parent / "__pycache__").exists()


@AS_ROOT
def test_a_file_of_another_user_is_replaced(caches: HfCaches, script: Path) -> None:
    os.chown(script, NOBODY, NOBODY)
    assert put_glue_metric(caches).new
    assert script.stat().st_uid == os.getuid()


@pytest.mark.parametrize("above", [0, 2, 4])
def test_a_folder_in_which_others_could_replace_it_is_refused(caches: HfCaches, script: Path, above: int) -> None:
    folder = script.parents[above]
    folder.chmod(0o777)
    with pytest.raises(ConfigError, match=r"others could replace it.*mode 777.*or set HF_MODULES_CACHE to a folder of"):
        put_glue_metric(caches)
    folder.chmod(0o1777)
    assert not put_glue_metric(caches).new


def test_the_umask_of_a_group_does_not_matter(caches: HfCaches) -> None:
    former = os.umask(0o002)
    try:
        put_glue_metric(caches)
    finally:
        os.umask(former)
    assert (caches.modules / METRIC_PLACE).stat().st_mode & 0o777 == 0o644
    assert not put_glue_metric(caches).new


CODE = {
    "hf/modules/" + METRIC_PLACE: (METRIC_SCRIPT, True),
    "hf/modules/evaluate_modules/__init__.py": (b"", True),
    "hf/modules/evaluate_modules/metrics/__init__.py": (EVIL, False),
    "hf/modules/" + METRIC_PLACE.replace("glue.py", "other.py"): (METRIC_SCRIPT, False),
    "hf/modules/evaluate_modules/metrics/evaluate-metric--glue/0/glue.py": (EVIL, False),
    "hf/datasets/glue/dataset_info.json": (b"{}", True),
}


@pytest.mark.parametrize(("name", "content", "right"), [(name, *each) for name, each in CODE.items()], ids=CODE)
def test_verify_finds_other_code_in_a_bundle_that_lists_it(
    run: RunConfig, tmp_path: Path, name: str, content: bytes, right: bool
) -> None:
    whole = bundled(run, tmp_path / "bundle")
    (whole.path / name).parent.mkdir(parents=True)
    (whole.path / name).write_bytes(content)
    entry = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    listed = replace(whole, files={**whole.files, name: entry})  # type: ignore[dict-item]  # a literal, no TypedDict
    (whole.path / "bundle.json").write_bytes(listed.to_bytes())
    said = f"{whole.path / name} is not what this ftsys puts there, and scripts would run it: make the bundle again"
    assert verify_bundle(whole.path) == ([] if right else [said])
