"""Finds a run's model and data on a node, and locks in the compile cache, without a network and without writing."""

import math
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from typing_extensions import TypedDict

from ftsys.config import RunConfig, build_run, resolve_task
from ftsys.data.bundle import store_of_bundle
from ftsys.data.tokenize.tokenizer import load_tokenizer, tokenizer_settings
from ftsys.errors import ConfigError, FtsysError
from ftsys.files.untrusted import MOST_BYTES, json_object, open_regular, typed
from ftsys.model_files.folder import check_model_folder, find_model_folder
from ftsys.model_files.remote_code import TOKENIZER, has_own
from ftsys.train.deepspeed_setup import compile_locks
from launcher.planner.model_shape.of_run import shape_of_run

_HUB_SECONDS = 3.0


def lock_facts() -> list[dict[str, Any]]:
    """Return all locks in torch's cache of compiled extensions.

    `file` (inode, modification time in ns) is the same on two nodes that share the lock.
    """
    found = []
    for lock in compile_locks():
        facts = lock.path.stat()
        file = [facts.st_ino, facts.st_mtime_ns]
        found.append({"path": str(lock.path), "op": lock.op, "holder": lock.holder, "file": file})
    return found


def input_facts(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return errors and paths of a run's model and data on this node.

    `hub` is True if the Hub can be reached; it is tested only if something is missing.
    """
    run = build_run(tree)
    facts = {"model": _model_facts(run), "data": _data_facts(run)}
    missing = any(part["error"] for part in facts.values())
    return facts | {"hub": _hub_answers() if missing else None}


def _model_facts(run: RunConfig) -> dict[str, Any]:
    try:
        folder = Path(run.bundle) / "model" if run.bundle is not None else find_model_folder(run.model.name)
        if folder is None:
            return {
                "error": f"model.name={run.model.name!r} is not a folder here and not in the Hub's cache",
                "folder": None,
            }
        wrong = _wrong_with_model(run, folder)
        if wrong is not None:
            return {"error": wrong, "folder": str(folder)}
        counts = {"parameters": count_parameters(folder), "frozen": _frozen_parameters(run)}
        return {"error": None, "folder": str(folder), **counts}
    except FtsysError as error:
        return {"error": str(error), "folder": None}


def _wrong_with_model(run: RunConfig, folder: Path) -> str | None:
    """Return what a start would say of the model in `folder`; None if it takes it. No code of the folder runs."""
    from ftsys.train.preflight import check_classifier

    try:
        check_model_folder(str(folder))
        check_classifier(run)
        if run.bundle is None and not run.model.trust_remote_code and has_own(TOKENIZER, tokenizer_settings(folder)):
            load_tokenizer(folder, run.data.max_length)  # transformers may have a tokenizer of its own in its place
    except FtsysError as error:
        return str(error)
    return None


def _frozen_parameters(run: RunConfig) -> int:
    """Return the number of weights that the run does not train; 0 where the sizes of its model are not known."""
    try:
        shape, _ = shape_of_run(run)
    except ConfigError:  # of the run's own names: a start refuses them before it starts anything
        return 0
    return 0 if shape is None else shape.frozen_parameters


def count_parameters(folder: Path) -> int:
    """Return the number of weights in a model folder.

    It is read from the headers of the safetensors files. Without them, it is a quarter of the bytes of the
    pytorch_model files, which is right for float32.
    """
    headers = [_header(path) for path in sorted(folder.glob("model*.safetensors"))]
    if headers:
        return sum(math.prod(facts["shape"]) for header in headers for facts in header.values())
    return sum(path.stat().st_size for path in folder.glob("pytorch_model*.bin")) // 4


class _Tensor(TypedDict):
    """The key of a tensor's facts that is needed."""

    shape: list[int]


def _header(path: Path) -> dict[str, _Tensor]:
    """Read the facts of each tensor in a safetensors file; the first 8 bytes are their length, little endian."""
    try:
        with open_regular(path) as stream:
            found = json_object(stream.read(min(int.from_bytes(stream.read(8), "little"), MOST_BYTES)))
        return typed(dict[str, _Tensor], {name: facts for name, facts in found.items() if name != "__metadata__"})
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}). Download or save the model again.") from error


def _data_facts(run: RunConfig) -> dict[str, Any]:
    from ftsys.data.sources.source import open_source

    task = resolve_task(run)
    try:
        if run.bundle is not None:
            store_of_bundle(run, task)
        else:
            open_source(run.data, task)
    except FtsysError as error:
        return {"error": str(error)}
    return {"error": None}


def store_facts(tree: Mapping[str, Any]) -> str | None:
    """Return the path of the run's prepared store, or None if there is none. Reads the whole data source."""
    from ftsys.data.prepare import find_store

    run = build_run(tree)
    try:
        store = find_store(run, resolve_task(run))
    except FtsysError:  # `input_facts` reports it
        return None
    return None if store is None else str(store)


def _hub_answers() -> bool:
    """Return True if the Hub, or the proxy or mirror that the environment names, accepts a connection."""
    named = os.environ.get("https_proxy") or os.environ.get("HTTPS_PROXY") or os.environ.get("HF_ENDPOINT")
    place = urlsplit(named or "https://huggingface.co")
    try:
        with socket.create_connection((str(place.hostname), place.port or 443), timeout=_HUB_SECONDS):
            return True
    except OSError:
        return False
