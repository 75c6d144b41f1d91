"""A bundle: model, tokenizer and prepared store in one folder, for runs where there is no network.

    run.toml        the run, with `bundle = "."`; everything else in it is as it was, so that it is the same run
    model/          configuration, tokenizer and weights, as from_pretrained reads them
    stores/<16>/    the prepared store
    hf/             for a GLUE task, to be used as HF_HOME: what `ftsys offline-assets` makes, for scripts of one's own
    deepspeed.json  the user's own DeepSpeed file, where the run names one
    bundle.json     what is in it and for which run: size and sha256 of each file, and a checksum of its own

A run that names a bundle takes model and store from it and asks nobody. What decides a store (source, length, task)
must be what the bundle was made for.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftsys.config.old_words import in_todays_words
from ftsys.data.hub_offline import switch_hub_off
from ftsys.data.store.reader import Store
from ftsys.data.tokenize.tokenizer import check_fit, tokenizer_fingerprint
from ftsys.errors import ConfigError, DataError
from ftsys.integrity import SealedJson, sha256_of
from ftsys.model_files.folder import check_model_folder, resolve_model_folder
from ftsys.tasks import Task

if TYPE_CHECKING:
    from ftsys.config import RunConfig

BUNDLE_FORMAT = 1
BUNDLE_NAME = "bundle.json"
RUN_NAME, MODEL_FOLDER, STORES_FOLDER, DEEPSPEED_NAME = "run.toml", "model", "stores", "deepspeed.json"
HF_FOLDER = "hf"
_SEALED = SealedJson("checksum", order="given", indent=1)


@dataclass(frozen=True)
class Bundle:
    """What bundle.json says. `asked` is what the run must ask for (`asked_of`), `store` the store's fingerprint.

    `files` maps each file's path in the bundle to {"bytes", "sha256"}; `version` is the ftsys that made it.
    """

    path: Path
    asked: Mapping[str, Any]
    store: str
    files: Mapping[str, Mapping[str, Any]]
    version: str
    format: int = BUNDLE_FORMAT

    @property
    def model_folder(self) -> Path:
        """Where configuration, tokenizer and weights lie."""
        return self.path / MODEL_FOLDER

    @property
    def store_folder(self) -> Path:
        """Where the store lies."""
        return self.path / STORES_FOLDER / self.store[:16]

    def to_bytes(self) -> bytes:
        """The whole of bundle.json; the last field is the sha256 of the others in canonical JSON."""
        fields = {name: value for name, value in asdict(self).items() if name != "path"}
        return _SEALED.seal(fields)

    @classmethod
    def open(cls, folder: Path) -> "Bundle":
        """Read bundle.json and look whether the files are there with their sizes; bytes are not read.

        The run file may have been edited since: what matters of it, `check` holds against the rest.

        Raises DataError for a folder that is no bundle, or not a whole one.
        """
        bundle = cls.read(folder)
        damage = [line for line in bundle.damage(contents=False) if not line.startswith(f"{folder / RUN_NAME}:")]
        if damage:
            raise DataError(f"{damage[0]} ({len(damage)} file(s) of the bundle are damaged). Copy the bundle again.")
        return bundle

    @classmethod
    def read(cls, folder: Path) -> "Bundle":
        """Read and check bundle.json alone. Raises DataError."""
        path = folder / BUNDLE_NAME
        try:
            fields, intact = _SEALED.parse(path.read_bytes())
            found = cls(folder, **fields) if fields["format"] == BUNDLE_FORMAT else None
        except OSError as error:
            raise DataError(
                f"{path}: cannot be read ({error.strerror}): {str(folder)!r} is no bundle. "
                "Name a folder that `ftlaunch bundle` made."
            ) from error
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(f"{path}: is damaged, it holds no bundle's list. Copy the bundle again.") from error
        if found is None:
            raise DataError(
                f"{path}: bundle format {fields['format']!r}, this version reads {BUNDLE_FORMAT}. Make the bundle anew."
            )
        if not intact:
            raise DataError(f"{path}: is damaged, its bytes are not those that were written. Copy the bundle again.")
        return found

    def damage(self, contents: bool = True) -> list[str]:
        """A line for each file that is missing, of another size or, with `contents`, of other bytes.

        And for each that lies beside model or store and is not listed: a library might read it.
        """
        lines = [line for name, entry in sorted(self.files.items()) if (line := self._damage(name, entry, contents))]
        inside = [path for part in (MODEL_FOLDER, STORES_FOLDER) for path in (self.path / part).rglob("*")]
        there = {str(path.relative_to(self.path)) for path in inside if not path.is_dir()}
        return lines + [f"{self.path / name}: is not in {BUNDLE_NAME}" for name in sorted(there - set(self.files))]

    def _damage(self, name: str, entry: Mapping[str, Any], contents: bool) -> str | None:
        path = self.path / name
        try:
            size = path.stat().st_size
            if size != entry["bytes"]:
                return f"{path}: {size} bytes instead of {entry['bytes']}"
            if contents and sha256_of(path) != entry["sha256"]:
                return f"{path}: is damaged, its sha256 is not the one in {BUNDLE_NAME}"
        except OSError as error:
            return f"{path}: cannot be read ({error.strerror})"
        return None

    def check(self, run: "RunConfig", task: Task) -> None:
        """Raise ConfigError that lists every value of the run that is not what the bundle was made for."""
        asked, made_for = asked_of(run, task), in_todays_words(self.asked)
        ConfigError.raise_if(
            f"{key}={value!r} is not what the bundle {str(self.path)!r} was made for, which is "
            f"{made_for.get(key)!r}: start with that value, or make another bundle."
            for key in {**asked, **made_for}
            if (value := asked.get(key)) != made_for.get(key)
        )


def asked_of(run: "RunConfig", task: Task) -> dict[str, Any]:
    """What a run asks of a model and a store, in plain JSON values by the run file's keys."""
    return {
        "model.name": run.model.name,
        "data.source": run.data.source,
        "data.max_length": run.data.max_length,
        **({"data.first_rows": run.data.first_rows} if run.data.first_rows else {}),
        "task.name": task.name,
        "task.columns": list(task.columns),
        "task.labels": list(task.labels),
        "task.regression": task.regression,
        "task.label_column": task.label_column,
    }


def open_bundle(run: "RunConfig") -> Bundle:
    """The bundle that a run names, with the Hub switched off for the rest of this process.

    Raises DataError for a damaged one, ConfigError where the Hub cannot be switched off.
    """
    switch_hub_off()
    return Bundle.open(Path(str(run.bundle)))


def model_folder_of(run: "RunConfig") -> Path:
    """Where a run's model lies: in its bundle, else where its name leads. Raises ConfigError or DataError."""
    return resolve_model_folder(run.model.name) if run.bundle is None else open_bundle(run).model_folder


def store_of_bundle(run: "RunConfig", task: Task) -> Store:
    """The store of the run's bundle, held against run, tokenizer and model.

    Raises ConfigError for a bundle that was made for something else, DataError for a damaged one.
    """
    bundle = open_bundle(run)
    bundle.check(run, task)
    check_model_folder(str(bundle.model_folder))
    store = Store.open(bundle.store_folder)
    tokenizer = tokenizer_fingerprint(bundle.model_folder)
    if store.fingerprint != bundle.store or store.tokenizer.fingerprint != tokenizer:
        raise DataError(
            f"{store.path}: is not the store that {BUNDLE_NAME} names, or was made with another tokenizer than the one "
            f"in {str(bundle.model_folder)!r}. Make the bundle anew."
        )
    check_fit(store.tokenizer, bundle.model_folder)
    return store


def verify_bundle(folder: Path) -> list[str]:
    """Read every byte of a bundle; a line for each thing that is damaged, none when it is whole."""
    try:
        return Bundle.read(folder).damage()
    except DataError as error:
        return [str(error)]
