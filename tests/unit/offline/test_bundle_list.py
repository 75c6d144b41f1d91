"""Tests that a bundle's list names what every bundle has, and that `ftsys verify` reports what is beside it."""

from dataclasses import replace
from pathlib import Path

import pytest

from ftsys.config import RunConfig
from ftsys.data.bundle import Bundle, verify_bundle
from ftsys.errors import DataError
from tests.unit.offline.conftest import bundled


def test_what_verify_reports_beside_the_listed_files(run: RunConfig, tmp_path: Path) -> None:
    bundled(run, tmp_path / "bundle")
    code = tmp_path / "bundle/hf/modules/evaluate_modules/metrics/evaluate-metric--glue/newer"
    code.mkdir(parents=True)
    (code / "__init__.py").touch()  # as the library itself does
    assert verify_bundle(tmp_path / "bundle") == []
    for path in (code / "glue.py", tmp_path / "bundle/sitecustomize.py"):
        path.write_text("import this")
        assert [line.rpartition("/")[2] for line in verify_bundle(tmp_path / "bundle")] == [
            f"{path.name} is not in bundle.json"
        ]
        path.unlink()


@pytest.mark.parametrize("missing", ["run.toml", "model/config.json"])
def test_a_list_without_what_every_bundle_has_is_none(run: RunConfig, tmp_path: Path, missing: str) -> None:
    whole = bundled(run, tmp_path / "bundle")
    files = {name: entry for name, entry in whole.files.items() if name != missing}
    (tmp_path / "bundle/bundle.json").write_bytes(replace(whole, files=files).to_bytes())
    with pytest.raises(DataError, match=f"holds no bundle's list .it does not list {missing}"):
        Bundle.read(tmp_path / "bundle")
