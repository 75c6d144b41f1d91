"""Tests that a pipe, a device, a folder or a giant in the place of a hashed file or of tensors is refused at once."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ftsys.data.store.index import _SEALED, INDEX_NAME, StoreIndex
from ftsys.data.store.reader import Store, StoreSplit
from ftsys.data.store.verify import verify_store
from ftsys.data.tokenize.tokenizer import tokenizer_fingerprint
from ftsys.errors import CheckpointError, ConfigError, DataError, FtsysError
from ftsys.files.integrity import damage_of
from ftsys.model_files.folder import check_model_folder
from ftsys.train.checkpoint.files import check_safetensors, read_safetensors
from ftsys.train.trainable.adapter_files import trained_whole
from tests.unit.data.tokenize.test_tokenizer import copied

pytestmark = pytest.mark.timeout(120)  # a reader that opens the pipe waits for ever

TENSORS = "model.safetensors"


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _model_folder(path: Path) -> object:
    (path.parent / "config.json").write_text("{}")
    (path.parent / "pytorch_model.bin").touch()
    return check_model_folder(str(path.parent))


def _adapter(path: Path) -> object:
    return trained_whole(path.rename(path.with_name("adapter_model.safetensors")).parent)


READERS: dict[str, tuple[Callable[[Path], object], type[FtsysError]]] = {
    "a checkpoint's tensors": (read_safetensors, CheckpointError),
    "a checkpoint's header": (check_safetensors, CheckpointError),
    "a model's weights": (_model_folder, ConfigError),
    "an adapter's weights": (_adapter, ConfigError),
}
KINDS = {"pipe": _pipe, "device": _device, "folder": Path.mkdir}


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize(("read", "refused"), READERS.values(), ids=READERS)
def test_tensors_are_in_a_regular_file(
    read: Callable[[Path], object], refused: type[FtsysError], make: Callable[[Path], None], tmp_path: Path
) -> None:
    make(tmp_path / TENSORS)
    with pytest.raises(refused, match=r"no regular file|directory"):
        read(tmp_path / TENSORS)


@pytest.mark.parametrize("contents", [True, False])
@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
def test_what_is_no_regular_file_is_damage(make: Callable[[Path], None], contents: bool, tmp_path: Path) -> None:
    make(tmp_path / "file")
    size = (tmp_path / "file").stat().st_size  # a list that fits it: the size alone does not tell
    said = damage_of(tmp_path, {"file": {"bytes": size, "sha256": "0" * 64}}, contents)
    assert said == [f"{tmp_path / 'file'} cannot be read: it is no regular file"]


TOKENIZER = {"fingerprint": "f", "pad_id": 0, "vocab_size": 9, "emits_token_types": True, "max_length": 8}
EMPTY = {
    "file": "train.arrow",
    "rows": 0,
    "labelled": True,
    "tokens": 0,
    "lengths": [0],
    "size": 0,
    "sha256": hashlib.sha256().hexdigest(),
    "batches": {},
}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Return a store whose index, rightly sealed, lists a file without a byte; the file is not there."""
    facts = {"fingerprint": "f", "source": "s", "tokenizer": TOKENIZER, "token_type": "uint16", "label_type": "int64"}
    fields = {**facts, "rows_per_batch": 4, "splits": [EMPTY], "format": 1}
    (tmp_path / INDEX_NAME).write_bytes(_SEALED.seal(fields))
    return tmp_path


@pytest.mark.parametrize("verify", [True, False, None])
@pytest.mark.parametrize("make", [_pipe, _device, Path.touch], ids=["pipe", "device", "empty"])
def test_a_store_is_in_regular_files_that_are_not_empty(
    make: Callable[[Path], None], verify: bool | None, store: Path
) -> None:
    make(store / "train.arrow")
    with pytest.raises(DataError, match=r"train.arrow: damaged, (it is empty|cannot be read \(it is no regular file)"):
        Store.open(store, verify)
    assert len(verify_store(store)) == 1


@pytest.mark.parametrize("make", [_pipe, Path.touch], ids=["pipe", "empty"])
def test_a_worker_that_opens_the_file_again_says_so_too(make: Callable[[Path], None], store: Path) -> None:
    make(store / "train.arrow")
    with pytest.raises(DataError, match=r"train.arrow: damaged, cannot be mapped"):
        StoreSplit(store, "train", StoreIndex.read(store))


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_code.py"])
def test_a_giant_file_of_a_tokenizer_is_refused(minilm_folder: Path, tmp_path: Path, name: str) -> None:
    folder = copied(minilm_folder, tmp_path / "model", auto_map={"AutoTokenizer": [None, "tokenizer_code.Own"]})
    (folder / name).touch()
    os.truncate(folder / name, 4 << 30)  # takes no space on the disk
    with pytest.raises(ConfigError, match=rf"{name}: cannot be read \(it has more than .* MiB\)\. Put the model's own"):
        tokenizer_fingerprint(folder, trust_remote_code=True)
