"""Turns what a library raises for a model or tokenizer that it cannot load into one error with advice."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ftsys.errors import ConfigError
from ftsys.model_files.remote_code import refusal

_RAISED = (ArithmeticError, AttributeError, ImportError, LookupError, OSError, RuntimeError, TypeError, ValueError)
"""transformers and torch raise these, depending on the key or file that is wrong."""


@contextmanager
def model_load_errors(folder: Path) -> Iterator[None]:
    """Raise ConfigError, with the original error as its cause, for a model in `folder` that cannot be loaded."""
    with _Explained(
        f"the model in {str(folder)!r}",
        "Compare config.json and weights with the original, or save the model again with transformers.",
    ):
        yield


@contextmanager
def tokenizer_load_errors(folder: Path) -> Iterator[None]:
    """Raise ConfigError, with the original error as its cause, for a tokenizer in `folder` that cannot be loaded."""
    with _Explained(f"the tokenizer in {str(folder)!r}", "Put the model's own tokenizer files there."):
        yield


class _Explained:
    """Replaces the errors of loaders by a ConfigError. It looks at the type of an error instead of catching it by name.

    `tokenizers` is written in Rust: it raises plain `Exception`, or a panic that is no `Exception` at all.
    """

    def __init__(self, what: str, advice: str) -> None:
        self._what, self._advice = what, advice

    def __enter__(self) -> None:
        """Do nothing."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """Raise ConfigError for an error of a loader; let any other pass."""
        if error is None or isinstance(error, ConfigError) or not _is_of_a_loader(error):
            return
        if isinstance(error, ValueError) and "trust_remote_code" in str(error):
            raise refusal(self._what) from error
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise ConfigError(f"{self._what} cannot be loaded ({reason}). {self._advice}") from error


def _is_of_a_loader(error: BaseException) -> bool:
    from huggingface_hub.errors import StrictDataclassError

    in_rust = type(error) is Exception or type(error).__module__ == "pyo3_runtime"
    return in_rust or isinstance(error, (*_RAISED, StrictDataclassError))
