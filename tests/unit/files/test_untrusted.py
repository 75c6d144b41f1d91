"""Tests that each reader of JSON and TOML answers a hostile file with its own error, and that names stay inside."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from ftsys.config.build import SECTIONS
from ftsys.config.load import load_run, parse_overrides, read_run_file
from ftsys.data.bundle import _SEALED as BUNDLE_FILE
from ftsys.data.bundle import BUNDLE_NAME, Bundle
from ftsys.data.store.index import _SEALED as INDEX_FILE
from ftsys.data.store.index import INDEX_NAME, StoreIndex
from ftsys.data.tokenize.plain_bert import is_plain_bert
from ftsys.errors import CheckpointError, ConfigError, DataError, FtsysError, RunFolderError
from ftsys.files.lease import generations
from ftsys.files.untrusted import file_bytes, file_name, json_object, parse_json, parse_row, relative_path, typed
from ftsys.model_files.config import model_config
from ftsys.model_files.folder import check_model_folder
from ftsys.run_folder.attempts import read_owner
from ftsys.run_folder.layout import ATTEMPTS
from ftsys.run_folder.metrics_log import read_metrics
from ftsys.run_folder.results import read_results
from ftsys.run_folder.status import read_status, read_status_after_crash
from ftsys.train.checkpoint.catalog import Checkpoint
from ftsys.train.checkpoint.files import read_safetensors
from ftsys.train.checkpoint.manifest import _SEALED as MANIFEST_FILE
from ftsys.train.checkpoint.manifest import MANIFEST
from launcher.planner.deepspeed_config import read_user_json
from launcher.planner.plan import Plan

HOSTILE = {
    "empty": b"",
    "cut": b'{"state": ',
    "null": b"null",
    "a list": b"[1, 2]",
    "a number": b"7",
    "deep lists": b"[" * 100_000,
    "deep objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "deep enough for the writer": b'{"a":' * 900 + b"1" + b"}" * 900,
    "5,000 digits": b'{"step": ' + b"9" * 5_000 + b"}",
    "no UTF-8": b'{"state": "\xff\xfe\xfa"}',
    "other types": b'{"state": [], "exit": {}, "step": "x", "files": 7, "task": [], "splits": "no", "format": 1}',
    "no number": b'{"step": NaN, "attempt": Infinity, "task": null, "format": null}',
}
READERS: dict[str, tuple[str, Callable[[Path], object], type[FtsysError] | None]] = {
    "run file": ("run.toml", read_run_file, ConfigError),
    "status": ("status.json", lambda path: read_status(path.parent), RunFolderError),
    "status after a crash": ("status.json", lambda path: read_status_after_crash(path.parent), None),
    "results": ("results.json", lambda path: read_results(path.parent), RunFolderError),
    "metrics log": ("metrics.jsonl", read_metrics, RunFolderError),
    "owner": (f"{ATTEMPTS}/000001.json", lambda path: read_owner(path.parents[1]), RunFolderError),
    "store's index": (INDEX_NAME, lambda path: StoreIndex.read(path.parent), DataError),
    "bundle": (BUNDLE_NAME, lambda path: Bundle.read(path.parent), DataError),
    "manifest": (MANIFEST, lambda path: Checkpoint.open(path.parent), CheckpointError),
    "config.json": ("config.json", lambda path: model_config(path.parent), ConfigError),
    "tokenizer.json": ("tokenizer.json", lambda path: is_plain_bert(path.parent), None),
    "DeepSpeed file": ("ds.json", read_user_json, ConfigError),
    "plan": ("plan.json", lambda path: Plan.from_json(path.read_text(errors="replace")), ConfigError),
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
def test_a_hostile_file_is_refused_by_the_readers_own_error(
    reader: tuple[str, Callable[[Path], object], type[FtsysError] | None], content: bytes, tmp_path: Path
) -> None:
    name, read, refused = reader
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    for beside in {"tokenizer_config.json", "config.json"} - {name}:
        (tmp_path / beside).write_text("{}")
    with suppress(*([refused] if refused else [])):  # some contents are right for some readers
        read(path)


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _giant(path: Path) -> None:
    path.touch()
    os.truncate(path, 4 << 30)  # takes no space on the disk


FROM_FILE = {name: reader for name, reader in READERS.items() if name != "plan"}  # a plan's reader takes text


@pytest.mark.parametrize("make", [_pipe, _device, _giant])
@pytest.mark.parametrize("reader", FROM_FILE.values(), ids=FROM_FILE)
def test_a_pipe_a_device_and_a_giant_file_are_refused_at_once(
    reader: tuple[str, Callable[[Path], object], type[FtsysError] | None], make: Callable[[Path], None], tmp_path: Path
) -> None:
    name, read, refused = reader
    if read is read_metrics and make is _giant:
        return  # a log grows with the run, and is read line by line
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    make(path)
    for beside in {"tokenizer_config.json", "config.json"} - {name}:
        (tmp_path / beside).write_text("{}")
    if refused is None:
        read(path)
        return
    with pytest.raises(refused):
        read(path)


def test_a_pipe_of_the_shell_is_read(tmp_path: Path) -> None:
    command = "from ftsys.files.untrusted import file_text; print(file_text('/dev/stdin'), end='')"
    done = subprocess.run([sys.executable, "-c", command], input="a = 1\n", capture_output=True, text=True, check=True)
    assert done.stdout == "a = 1\n"


def test_a_file_has_at_most_the_bytes_of_its_limit(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"1234")
    assert file_bytes(tmp_path / "x", most=4) == b"1234"
    with pytest.raises(ValueError, match="more than"):
        file_bytes(tmp_path / "x", most=3)
    with pytest.raises(IsADirectoryError):
        file_bytes(tmp_path)


OUTSIDE = ("../x", "/etc/hosts", "a/../../x", "", ".", "..", "a//b", "./a", "a\0b", "a\\b", "~/../x/..")


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_name_that_leaves_its_folder_is_refused(name: str) -> None:
    for rule in (relative_path, file_name):
        with pytest.raises(ValueError, match="is not the"):
            rule(name)


def test_a_name_inside_its_folder_is_taken() -> None:
    assert [relative_path(name) for name in ("a", "model/a b.json", "..a", "~")] == ["a", "model/a b.json", "..a", "~"]
    with pytest.raises(ValueError, match="is not the name of a file"):
        file_name("model/a")


ENTRY = {"bytes": 1, "sha256": "0"}
TOKENIZER = {"fingerprint": "f", "pad_id": 0, "vocab_size": 9, "emits_token_types": True, "max_length": 8}
INDEX = {"fingerprint": "f", "source": "s", "tokenizer": TOKENIZER, "token_type": "uint16", "label_type": "int64"}
BATCHES = {"offset": [0], "rows": [1], "list_offsets": [8], "values": [16], "first_length": [24], "label": [32]}
SPLIT = {
    "rows": 1,
    "labelled": True,
    "tokens": 3,
    "lengths": [0, 0, 0, 1],
    "size": 48,
    "sha256": "0",
    "batches": BATCHES,
}
FACTS = {"format": 1, "step": 1, "attempt": 1, "identity": "i"}
LISTED = {"asked": {}, "store": "f" * 64, "version": "1", "format": 1}


def index(**change: object) -> dict[str, object]:
    return {**INDEX, "rows_per_batch": 4, "splits": [{**SPLIT, "file": "train.arrow"}], "format": 1} | change


SEALED_RIGHT = {
    "a split's file": (INDEX_NAME, INDEX_FILE.seal(index(splits=[{**SPLIT, "file": "../../.ssh/id"}]))),
    "a split of another type": (INDEX_NAME, INDEX_FILE.seal(index(splits=[7]))),
    "rows as text": (INDEX_NAME, INDEX_FILE.seal(index(splits=[{**SPLIT, "file": "a.arrow", "rows": "1"}]))),
    "no tokenizer": (INDEX_NAME, INDEX_FILE.seal(index(tokenizer=None))),
    "no splits": (INDEX_NAME, INDEX_FILE.seal({"format": 1})),
    "a bundle's file": (BUNDLE_NAME, BUNDLE_FILE.seal({**LISTED, "files": {"../x": ENTRY}})),
    "a bundle's absolute file": (BUNDLE_NAME, BUNDLE_FILE.seal({**LISTED, "files": {"/etc/hosts": ENTRY}})),
    "a bundle's store": (BUNDLE_NAME, BUNDLE_FILE.seal({**LISTED, "store": "../../../stores", "files": {}})),
    "a bundle's size as text": (BUNDLE_NAME, BUNDLE_FILE.seal({**LISTED, "files": {"x": {**ENTRY, "bytes": "1"}}})),
    "a checkpoint's file": (MANIFEST, MANIFEST_FILE.seal({**FACTS, "files": {"state.json": ENTRY, "../x": ENTRY}})),
    "a checkpoint without files": (MANIFEST, MANIFEST_FILE.seal({**FACTS, "files": {}})),
    "a checkpoint's step": (MANIFEST, MANIFEST_FILE.seal({**FACTS, "step": "1", "files": {"state.json": ENTRY}})),
    "no format": (MANIFEST, MANIFEST_FILE.seal({"files": {"state.json": ENTRY}})),
    "a newer format": (MANIFEST, MANIFEST_FILE.seal({**FACTS, "format": 2, "files": {"state.json": ENTRY}})),
}


@pytest.mark.parametrize(("name", "content"), SEALED_RIGHT.values(), ids=SEALED_RIGHT)
def test_a_checksum_that_is_right_does_not_excuse_content_that_is_wrong(
    name: str, content: bytes, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    read = next(read for file, read, _ in READERS.values() if file == name)
    with pytest.raises((DataError, CheckpointError)):
        read(tmp_path / name)


def test_a_sealed_index_that_is_right_is_read(tmp_path: Path) -> None:
    (tmp_path / INDEX_NAME).write_bytes(INDEX_FILE.seal(index()))
    assert list(StoreIndex.read(tmp_path).splits) == ["train"]


@pytest.mark.parametrize("shard", ["../secret.safetensors", "/home/u/.ssh/id", 7, None])
def test_an_index_of_weights_names_files_of_its_own_folder(shard: object, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"w": shard}}))
    with pytest.raises(ConfigError, match=r"model.safetensors.index.json: cannot be used"):
        check_model_folder(str(tmp_path))
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_safetensors(tmp_path / "model.safetensors")


@pytest.mark.parametrize("content", ["{}", "[]", '{"weight_map": {}}', '{"weight_map": [1]}', '{"weight_map": {"a"'])
def test_a_damaged_index_of_weights_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors.index.json").write_text(content)
    with pytest.raises(ConfigError, match=r"model.safetensors.index.json: cannot be used"):
        check_model_folder(str(tmp_path))


@pytest.mark.parametrize("text", ["[" * 3_000, "9" * 5_000, "{a = " * 2_000])
def test_an_override_that_is_no_value_is_text(text: str) -> None:
    assert parse_overrides(["--model.name", text]) == {"model": {"name": text}}


@pytest.mark.parametrize("section", ["", *(f"[{name}]" for name in SECTIONS)])
def test_a_key_with_a_dot_in_quotes_is_explained(section: str, tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(f'{section}\n"train.epochs" = 1\n"a.b.c" = {{ d = 1 }}\n')
    where = f" in {section}" if section else ""
    with pytest.raises(ConfigError) as refused:
        load_run(tmp_path / "run.toml")
    for name in ("train.epochs", "a.b.c"):
        assert any(message.startswith(f"'{name}' in quotes is one key{where}, ") for message in refused.value.messages)


def test_a_lease_with_another_digit_is_no_lease(tmp_path: Path) -> None:
    for number in ("1", "²", "٣", "x"):
        (tmp_path / f"store.lease-{number}").touch()
    assert [number for number, _ in generations(tmp_path / "store")] == [1]


@pytest.mark.parametrize("parse", [parse_json, parse_row])
@pytest.mark.parametrize("sign", ["", "-"])
def test_an_integer_is_also_a_float(parse: Callable[[str], Any], sign: str) -> None:
    (most,) = parse(f"[{sign}{'9' * 308}]")
    assert abs(float(most)) == 1e308
    with pytest.raises(ValueError, match="an integer has more than 308 digits"):
        parse(f"[{sign}1{'0' * 308}]")


def test_types_are_checked_and_not_converted() -> None:
    assert typed(dict[str, int], {"a": 1}) == {"a": 1}
    others: tuple[object, ...] = ({"a": "1"}, {"a": 1.5}, {"a": True}, [], None)
    for wrong in others:
        with pytest.raises(ValueError, match=":"):
            typed(dict[str, int], wrong)
    with pytest.raises(ValueError, match="a JSON list, not an object"):
        json_object("[]")
    assert parse_json("[1]") == [1]
