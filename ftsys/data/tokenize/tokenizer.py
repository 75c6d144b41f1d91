"""Turns texts into token ids, many rows at once.

Uses the `tokenizers` library alone if the model folder's files are known to give the same tokens as transformers'
AutoTokenizer: that saves the import of transformers. Uses AutoTokenizer otherwise.

Legend: S rows, T their tokens.
"""

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from ftsys.data.store.index import TokenizerFacts
from ftsys.data.tokenize.plain_bert import is_plain_bert, special_token, tokenizer_settings
from ftsys.errors import ConfigError
from ftsys.files.untrusted import MOST_BYTES, MOST_GROWN_BYTES, file_bytes
from ftsys.model_files.config import model_config
from ftsys.model_files.folder import TOKENIZER_FILES, longest_sequence
from ftsys.model_files.load_errors import tokenizer_load_errors
from ftsys.model_files.remote_code import TOKENIZER, code_files, has_own, loading_code

_UNBOUNDED = 10**9  # transformers writes 1e30 for "no limit"


class Encoded(NamedTuple):
    """The tokens of S rows, concatenated."""

    tokens: npt.NDArray[Any]
    """(T,) uint16 or uint32."""
    lengths: npt.NDArray[np.int32]
    """(S,)"""
    first_lengths: npt.NDArray[np.int32]
    """(S,) tokens before the token type becomes 1; the whole length if it never does."""


class TextTokenizer(Protocol):
    """A tokenizer in two halves, so that one thread tokenizes a chunk while another flattens the chunk before."""

    facts: TokenizerFacts

    def tokenize(self, first: Sequence[str], second: Sequence[str] | None) -> Any:
        """Tokenize S rows, or S pairs if `second` is given. This slow half runs without Python's global lock."""

    def flatten(self, tokenized: Any) -> Encoded:
        """Turn the result of `tokenize` into arrays."""


def load_tokenizer(folder: Path, max_length: int, trust_remote_code: bool = False) -> TextTokenizer:
    """Load a model folder's tokenizer, with truncation to `max_length` tokens, longest segment first.

    `trust_remote_code` lets a tokenizer's own code in the folder run.

    Raises ConfigError if the folder has no tokenizer, or one that cannot be used.
    """
    digest = tokenizer_fingerprint(folder, trust_remote_code)
    with tokenizer_load_errors(folder):
        tokenizer: TextTokenizer
        if is_plain_bert(folder) and not _runs_code(folder, trust_remote_code):
            tokenizer = _load_directly(folder, max_length, digest)
        else:
            tokenizer = _load_by_transformers(folder, max_length, digest, trust_remote_code)
        for second in (None, ["b"]):  # some damage shows only here
            _check_tokens(tokenizer.flatten(tokenizer.tokenize(["a"], second)), tokenizer.facts, folder)
        return tokenizer


def _check_tokens(found: Encoded, facts: TokenizerFacts, folder: Path) -> None:
    """Raise ConfigError for tokens that the tokenizer's template must not put around a text."""
    largest, longest = int(found.tokens.max(initial=0)), int(found.lengths.max())
    if largest >= facts.vocab_size or longest > facts.max_length:
        what = f"the token id {largest}" if largest >= facts.vocab_size else f"{longest} tokens"
        raise ConfigError(
            f"the tokenizer in {str(folder)!r} gives {what} for one letter, and its vocabulary has "
            f"{facts.vocab_size} tokens, the length is at most {facts.max_length}. Put the model's own tokenizer files "
            "there."
        )


def _runs_code(folder: Path, trusted: bool) -> bool:
    return trusted and has_own(TOKENIZER, tokenizer_settings(folder))


def tokenizer_fingerprint(folder: Path, trust_remote_code: bool = False) -> str:
    """Return the hex sha256 of all tokenizer files, the model type, and the code of a trusted tokenizer.

    Raises ConfigError if there is no such file.
    """
    digest, found = hashlib.sha256(), False
    for name in TOKENIZER_FILES:
        path = folder / name
        if path.is_file():
            content, found = _content(path, MOST_GROWN_BYTES), True
            digest.update(f"{name} {len(content)}\n".encode() + content)
    if not found:
        raise ConfigError(
            f"{str(folder)!r} has no tokenizer, looked for {', '.join(TOKENIZER_FILES[:6])} ... "
            "Put the model's tokenizer files into its folder."
        )
    digest.update(str(model_config(folder).get("model_type")).encode())
    for name in code_files(folder) if _runs_code(folder, trust_remote_code) else ():
        content = _content(folder / name, MOST_BYTES)
        digest.update(f"{name} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def _content(path: Path, most: int) -> bytes:
    try:
        return file_bytes(path, most)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}). Put the model's own tokenizer files there.") from error


class FastTokenizer:
    """A `tokenizers.Tokenizer` with this project's truncation and without padding."""

    def __init__(self, backend: Any, facts: TokenizerFacts, side: str = "right") -> None:
        backend.no_padding()
        backend.enable_truncation(facts.max_length, strategy=facts.truncation, direction=side)
        self._backend, self.facts = backend, facts
        self._dtype = facts.token_type
        self._boundary = self._find_boundary() if facts.emits_token_types else None

    def tokenize(self, first: Sequence[str], second: Sequence[str] | None) -> list[Any]:
        """Return S `tokenizers.Encoding`s without character offsets; the library computes them in its own threads."""
        texts = first if second is None else zip(first, second, strict=True)
        encodings: list[Any] = self._backend.encode_batch_fast(list(texts))
        return encodings

    def flatten(self, tokenized: list[Any]) -> Encoded:
        """Return tokens, lengths and segment boundaries of S encodings."""
        ids = [encoding.ids for encoding in tokenized]
        lengths = np.fromiter(map(len, ids), np.int32, len(ids))
        tokens = np.fromiter(itertools.chain.from_iterable(ids), self._dtype, int(lengths.sum()))
        if self._boundary is None or not tokenized or tokenized[0].n_sequences < 2:
            return Encoded(tokens, lengths, lengths)
        first = _after_nth(tokens, lengths, *self._boundary)
        for row in np.flatnonzero(first < 0):  # the text itself contains the separator: use the library's types
            first[row] = _types_boundary(tokenized[row].type_ids)
        return Encoded(tokens, lengths, first)

    def _find_boundary(self) -> tuple[int, int, int] | None:
        """Return (separator's id, number of separators up to the end of the first segment, separators in all).

        None for a tokenizer whose token types are all 0.
        """
        probe = self._backend.encode("a", "b")
        end = _types_boundary(probe.type_ids)
        if end == len(probe.ids):
            return None
        separator = probe.ids[end - 1]
        return separator, probe.ids[:end].count(separator), probe.ids.count(separator)


class SlowTokenizer:
    """A tokenizer that transformers implements in Python only."""

    def __init__(self, tokenizer: Any, facts: TokenizerFacts) -> None:
        self._tokenizer, self.facts = tokenizer, facts
        self._dtype = facts.token_type

    def tokenize(self, first: Sequence[str], second: Sequence[str] | None) -> Any:
        """Return transformers' BatchEncoding of S rows."""
        texts = (list(first),) if second is None else (list(first), list(second))
        return self._tokenizer(*texts, truncation=True, max_length=self.facts.max_length)

    def flatten(self, tokenized: Any) -> Encoded:
        """Return tokens, lengths and segment boundaries of S rows."""
        ids = tokenized["input_ids"]
        lengths = np.fromiter(map(len, ids), np.int32, len(ids))
        tokens = np.fromiter(itertools.chain.from_iterable(ids), self._dtype, int(lengths.sum()))
        if not self.facts.emits_token_types:
            return Encoded(tokens, lengths, lengths)
        first = np.fromiter(map(_types_boundary, tokenized["token_type_ids"]), np.int32, len(ids))
        return Encoded(tokens, lengths, first)


def _after_nth(
    tokens_T: npt.NDArray[Any], lengths_S: npt.NDArray[np.int32], separator: int, nth: int, in_all: int
) -> npt.NDArray[np.int32]:
    """Count each row's tokens up to and including the nth separator, (S,); -1 if it has not `in_all` of them."""
    ends_S = np.cumsum(lengths_S)
    at = np.flatnonzero(tokens_T == separator)
    before_S = np.searchsorted(at, ends_S - lengths_S)
    count_S = np.searchsorted(at, ends_S) - before_S
    sound_S = count_S == in_all
    first_S = np.full(lengths_S.size, -1, np.int32)
    first_S[sound_S] = at[before_S[sound_S] + nth - 1] + 1 - (ends_S - lengths_S)[sound_S]
    return first_S


def _types_boundary(types: Sequence[int]) -> int:
    """Count the tokens before the type becomes 1. Raises ConfigError for types that are not zeros and then ones."""
    ones = sum(types)
    boundary = len(types) - ones
    if any(types[:boundary]) or any(kind != 1 for kind in types[boundary:]):
        raise ConfigError(
            f"the tokenizer gives token types {list(types)[:16]!r}; only zeros followed by ones can be kept. "
            "Use another model."
        )
    return boundary


def _load_directly(folder: Path, max_length: int, digest: str) -> FastTokenizer:
    from tokenizers import Tokenizer

    settings, backend = tokenizer_settings(folder), Tokenizer.from_file(str(folder / "tokenizer.json"))
    inputs = settings.get("model_input_names", ["token_type_ids"])
    facts = TokenizerFacts(
        fingerprint=digest,
        pad_id=backend.token_to_id(special_token(settings, "pad_token")) or 0,
        vocab_size=max(backend.get_vocab().values()) + 1,
        emits_token_types="token_type_ids" in inputs,
        max_length=max_length,
        model_max_length=_bounded(settings.get("model_max_length")),
    )
    return FastTokenizer(backend, facts)


def _load_by_transformers(folder: Path, max_length: int, digest: str, trusted: bool) -> TextTokenizer:
    from transformers import AutoTokenizer

    tokenizer_settings(folder)  # refuses what transformers would follow to other files
    with loading_code(trusted):
        tokenizer = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=trusted)
    facts = TokenizerFacts(
        fingerprint=digest,
        pad_id=_pad_id(tokenizer),
        vocab_size=max(tokenizer.get_vocab().values()) + 1,
        emits_token_types="token_type_ids" in tokenizer.model_input_names,
        max_length=max_length,
        model_max_length=_bounded(tokenizer.model_max_length),
    )
    backend = getattr(tokenizer, "_tokenizer", None) if tokenizer.is_fast else None
    if backend is None:
        return SlowTokenizer(tokenizer, facts)
    return FastTokenizer(backend, facts, tokenizer.truncation_side)


def _pad_id(tokenizer: Any) -> int:
    """Return the id of the padding token, or of the end-of-text token if there is none, as in many decoders.

    A decoder's head takes the last token that is not padding, and no text ends with the end-of-text token. 0 if the
    tokenizer has neither: padding is masked out.
    """
    return next((token for token in (tokenizer.pad_token_id, tokenizer.eos_token_id) if token is not None), 0)


def _bounded(value: object) -> int:
    return int(value) if isinstance(value, int | float) and 0 < value < _UNBOUNDED else 0


def check_fit(facts: TokenizerFacts, folder: Path) -> None:
    """Check that a tokenizer and its maximal length fit the model. Raises ConfigError that lists what does not fit."""
    config, mistakes = model_config(folder), []
    vocabulary = config.get("vocab_size")
    if isinstance(vocabulary, int) and facts.vocab_size > vocabulary:
        mistakes.append(
            f"tokenizer does not fit the model: its ids go up to {facts.vocab_size - 1}, the model in {str(folder)!r} "
            f"has vocab_size={vocabulary}. Put the model's own tokenizer files into its folder."
        )
    ConfigError.raise_if([*mistakes, *length_mistakes(facts.max_length, config)])


def length_mistakes(max_length: int, config: dict[str, Any]) -> Iterator[str]:
    """Yield a message if the model of this config.json cannot take sequences of `max_length` tokens."""
    longest = longest_sequence(config)
    if longest is not None and max_length > longest:
        yield (
            f"data.max_length={max_length}: sequence longer than the model allows, {longest} tokens. "
            f"Set data.max_length to {longest} or less."
        )
