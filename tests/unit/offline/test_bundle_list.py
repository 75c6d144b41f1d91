"""Tests that a bundle's list names what every bundle has, and that `ftsys verify` reports what is beside it."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from ftsys.config import RunConfig, resolve_task
from ftsys.data.bundle import Bundle, verify_bundle
from ftsys.errors import ConfigError, DataError
from tests.unit.offline.conftest import bundled

HF = "hf/modules/evaluate_modules/metrics/evaluate-metric--glue"
BESIDE = [
    "sitecustomize.py",
    "extra/deep/evil.py",
    ".hidden/x",
    f"{HF}/newer/glue.py",
    f"{HF}/__pycache__/glue.cpython-311.pyc",
    "hf/modules/evil.so",
    "hf/modules/evil.pyc",
    "hf/hub/models--a--b/snapshots/abc/pytorch_model.bin",
    "hf/datasets/glue/mrpc/0.0.0/newer/glue-train.arrow",
    "model/sub/pytorch_model.bin",
]


@pytest.mark.parametrize("name", BESIDE)
def test_a_file_that_the_list_lacks_is_reported(run: RunConfig, tmp_path: Path, name: str) -> None:
    bundle = tmp_path / "bundle"
    bundled(run, bundle)
    code = bundle / HF / "newer"
    code.mkdir(parents=True)
    (code / "__init__.py").touch()  # as the library itself does
    (bundle / "hf/datasets").mkdir()
    (bundle / "hf/datasets/x.lock").touch()
    assert verify_bundle(bundle) == []
    (bundle / name).parent.mkdir(parents=True, exist_ok=True)
    (bundle / name).write_text("import this")
    assert verify_bundle(bundle) == [
        f"{bundle / name} is not in bundle.json: remove it (a script that used the bundle may have left it)"
    ]


@pytest.mark.parametrize("name", ["model/linked", "stores/linked", "linked", "hf/modules/linked"])
@pytest.mark.parametrize("target", ["/etc", "/etc/hosts", "/no/such", "linked"])
def test_a_link_that_the_list_lacks_is_reported(run: RunConfig, tmp_path: Path, name: str, target: str) -> None:
    whole = bundled(run, tmp_path / "bundle")
    (tmp_path / "bundle" / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "bundle" / name).symlink_to(target)
    assert [line.partition(" ")[0] for line in verify_bundle(whole.path)] == [str(whole.path / name)]
    if name.startswith(("model", "stores")):
        with pytest.raises(DataError, match="linked is not in"):
            Bundle.open(whole.path)


def test_a_link_of_a_cache_to_a_listed_file_is_right(run: RunConfig, tmp_path: Path) -> None:
    whole = bundled(run, tmp_path / "bundle")
    (whole.path / "hf/hub").mkdir(parents=True)
    (whole.path / "hf/hub/config.json").symlink_to("../../model/config.json")
    assert verify_bundle(whole.path) == []
    (whole.path / "hf/hub/config.json").rename(whole.path / "hf/hub/other.json")
    assert verify_bundle(whole.path) == []
    os.mkfifo(whole.path / "hf/glue.py")
    assert len(verify_bundle(whole.path)) == 1


@pytest.mark.parametrize("missing", ["run.toml", "model/config.json"])
def test_a_list_without_what_every_bundle_has_is_none(run: RunConfig, tmp_path: Path, missing: str) -> None:
    whole = bundled(run, tmp_path / "bundle")
    files = {name: entry for name, entry in whole.files.items() if name != missing}
    (tmp_path / "bundle/bundle.json").write_bytes(replace(whole, files=files).to_bytes())
    with pytest.raises(DataError, match=f"holds no bundle's list .it does not list {missing}"):
        Bundle.read(tmp_path / "bundle")


WRONG = [
    ("model.name", 7),
    ("model.name", None),
    ("model.name", ["a"]),
    ("data.source", 7),
    ("data.source", [1]),
    ("data.source", None),
    ("data.source", {"a": None}),
    ("data.source", {"a": {"b": "c"}}),
]


@pytest.mark.parametrize(("key", "value"), WRONG)
def test_a_name_of_another_type_is_refused(run: RunConfig, tmp_path: Path, key: str, value: object) -> None:
    whole = bundled(run, tmp_path / "bundle")
    changed = replace(whole, asked={**whole.asked, key: value})
    (whole.path / "bundle.json").write_bytes(changed.to_bytes())
    with pytest.raises(DataError, match=f"bundle.json: is damaged, it holds no bundle's list .{key}.* valid string"):
        Bundle.open(whole.path).check(run, resolve_task(run))


@pytest.mark.parametrize("value", [7, None, [None], {"a": 7}])
def test_any_other_value_is_only_compared(run: RunConfig, tmp_path: Path, value: object) -> None:
    whole = bundled(run, tmp_path / "bundle")
    changed = replace(whole, asked={**whole.asked, "task.labels": value, "task.unknown": value})
    (whole.path / "bundle.json").write_bytes(changed.to_bytes())
    with pytest.raises(ConfigError, match=r"task\.labels=.* is not what the bundle"):
        Bundle.open(whole.path).check(run, resolve_task(run))
