"""Reads and checks a bundle: model, tokenizer and prepared store in one folder, for runs without a network.

    run.toml        the run file with `bundle = "."`; all other values are unchanged, so that it is the same run
    model/          configuration, tokenizer and weights, as from_pretrained reads them
    stores/<16>/    the prepared store
    hf/             for rows of GLUE: the caches that `ftsys offline-assets` makes, to be used as HF_HOME by scripts
    deepspeed.json  the user's own DeepSpeed file, if the run names one
    bundle.json     size and sha256 of each file, the run's values that decide model and store, and a checksum

A run that names a bundle takes model and store from it and sends no request to the Hub. The values that decide a store
(source, length, task) must be those that the bundle was made for.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from typing_extensions import TypedDict

from ftsys.config.fields import with_home
from ftsys.config.old_words import in_todays_words
from ftsys.data.glue_metric import other_code
from ftsys.data.hub_offline import switch_hub_off
from ftsys.data.store.reader import Store
from ftsys.data.tokenize.tokenizer import check_fit, tokenizer_fingerprint
from ftsys.errors import ConfigError, DataError
from ftsys.files.integrity import SealedJson, damage_of, unlisted
from ftsys.files.untrusted import FileEntries, FileName, file_bytes, typed
from ftsys.model_files.folder import check_model_folder, resolve_model_folder
from ftsys.ranks import is_main_rank
from ftsys.tasks import Task

if TYPE_CHECKING:
    from ftsys.config import RunConfig

BUNDLE_FORMAT = 1
BUNDLE_NAME = "bundle.json"
RUN_NAME, MODEL_FOLDER, STORES_FOLDER, DEEPSPEED_NAME = "run.toml", "model", "stores", "deepspeed.json"
HF_FOLDER = "hf"
_SEALED = SealedJson("checksum", order="given", indent=1)


_Names = TypedDict("_Names", {"model.name": str, "data.source": str | dict[str, str]}, total=False)
"""The types of those values of `asked` that are read as paths; all others are only compared."""


class _Fields(TypedDict):
    asked: dict[str, Any]
    store: FileName
    files: FileEntries
    version: str
    format: int


@dataclass(frozen=True)
class Bundle:
    """The contents of bundle.json.

    `asked` has the values that a run must have to use the bundle (see `asked_of`). `store` is the store's fingerprint.
    `files` maps each file's path in the bundle to its size and hash. `version` is the version of ftsys that made it.
    """

    path: Path
    asked: Mapping[str, Any]
    store: str
    files: FileEntries
    version: str
    format: int = BUNDLE_FORMAT

    @property
    def model_folder(self) -> Path:
        """The folder of configuration, tokenizer and weights."""
        return self.path / MODEL_FOLDER

    @property
    def store_folder(self) -> Path:
        """The folder of the store."""
        return self.path / STORES_FOLDER / self.store[:16]

    @property
    def made_for(self) -> dict[str, Any]:
        """`asked` as today's run has it: in today's words, and with the home folder for the "~" of its paths."""
        asked = in_todays_words(self.asked)
        return asked | {key: with_home(asked[key]) for key in ("model.name", "data.source") if key in asked}

    def to_bytes(self) -> bytes:
        """Return the text of bundle.json; its last field is the sha256 of the others in canonical JSON."""
        fields = {name: value for name, value in asdict(self).items() if name != "path"}
        return _SEALED.seal(fields)

    @classmethod
    def open(cls, folder: Path) -> "Bundle":
        """Read bundle.json and check that all files exist and have their sizes; reads none of them.

        The run file is left out, since users may edit it: `check` compares the values that matter.

        Raises DataError for a folder that is not a bundle, or not a complete one.
        """
        bundle = cls.read(folder)
        _refuse(bundle.damage(contents=False, without=(RUN_NAME,)))
        return bundle

    @classmethod
    def read(cls, folder: Path) -> "Bundle":
        """Read and check bundle.json alone. Raises DataError if it is missing, damaged or of another format."""
        path = folder / BUNDLE_NAME
        try:
            fields, intact = _SEALED.parse(file_bytes(path))
            found = cls._from_fields(folder, fields) if fields["format"] == BUNDLE_FORMAT else None
        except OSError as error:
            raise DataError(
                f"{path}: cannot be read ({error.strerror}): {str(folder)!r} is not a bundle. "
                "Name a folder that `ftlaunch bundle` made."
            ) from error
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(
                f"{path}: is damaged, it holds no bundle's list ({error}). Copy the bundle again."
            ) from error
        if found is None:
            raise DataError(
                f"{path}: bundle format {fields['format']!r}, this version reads {BUNDLE_FORMAT}. "
                "Make the bundle again."
            )
        if not intact:
            raise DataError(f"{path}: is damaged, its bytes are not those that were written. Copy the bundle again.")
        return found

    @classmethod
    def _from_fields(cls, folder: Path, fields: dict[str, Any]) -> "Bundle":
        """Check the types of the fields and the names of the files. Raises ValueError, TypeError and KeyError."""
        known = typed(_Fields, fields)
        typed(_Names, known["asked"])
        lacking = [name for name in (RUN_NAME, f"{MODEL_FOLDER}/config.json") if name not in known["files"]]
        if lacking:
            raise ValueError(f"it does not list {lacking[0]}")
        return cls(folder, known["asked"], known["store"], known["files"], known["version"], known["format"])

    def damage(self, contents: bool = True, without: Sequence[str] = ()) -> list[str]:
        """Return a message for each file that is missing, has another size or, with `contents`, other bytes.

        What bundle.json does not list counts too, since a library might read it: in the folders of model and stores,
        and with `contents` everywhere. The files of `without` are not compared.
        """
        lines = damage_of(self.path, {name: self.files[name] for name in self.files if name not in without}, contents)
        below = ("",) if contents else (MODEL_FOLDER, STORES_FOLDER)
        return lines + [
            f"{self.path / name} is not in {BUNDLE_NAME}: remove it (a script that used the bundle may have left it)"
            for name in unlisted(self.path, {*self.files, BUNDLE_NAME, *without}, below)
            if not self._is_of_a_cache(name)
        ]

    def check_model(self) -> None:
        """Read every byte of the model's files. Raises DataError if one is damaged: a training would go on from it."""
        model = {name: entry for name, entry in self.files.items() if name.startswith(f"{MODEL_FOLDER}/")}
        _refuse(damage_of(self.path, model))

    def _is_of_a_cache(self, name: str) -> bool:
        """Return True for what libraries may have in the caches: an empty file, and a link to a file of the list."""
        path = self.path / name
        if not name.startswith(f"{HF_FOLDER}/"):
            return False
        if path.is_symlink():
            leads_to = os.path.relpath(os.path.realpath(path), os.path.realpath(self.path))
            return leads_to in self.files
        return path.is_file() and not path.stat().st_size

    def check(self, run: "RunConfig", task: Task) -> None:
        """Raise ConfigError that lists every value of the run that differs from what the bundle was made for."""
        asked, made_for = asked_of(run, task), self.made_for
        ConfigError.raise_if(
            f"{key}={value!r} is not what the bundle {str(self.path)!r} was made for, which is "
            f"{made_for.get(key)!r}: start with that value, or make another bundle."
            for key in {**asked, **made_for}
            if (value := asked.get(key)) != made_for.get(key)
        )


def _refuse(damage: Sequence[str]) -> None:
    if damage:
        raise DataError(f"{damage[0]} ({len(damage)} file(s) of the bundle are damaged). Copy the bundle again.")


def asked_of(run: "RunConfig", task: Task) -> dict[str, Any]:
    """Return the values of a run that decide its model and store, as plain JSON values by the run file's keys."""
    return {
        "model.name": run.model.name,
        "data.source": run.data.source,
        "data.max_length": run.data.max_length,
        **({"data.first_rows": run.data.first_rows} if run.data.first_rows else {}),
        **({} if run.data.quoting == "auto" else {"data.quoting": run.data.quoting}),
        "task.name": task.name,
        "task.columns": list(task.columns),
        "task.labels": list(task.labels),
        "task.regression": task.regression,
        "task.label_column": task.label_column,
        **({"task.multi_label": True, "task.label_columns": list(task.label_columns)} if task.multi_label else {}),
    }


def open_bundle(run: "RunConfig") -> Bundle:
    """Open the bundle that a run names, and switch the Hub off for the rest of this process.

    Raises DataError for a damaged bundle, ConfigError if the Hub cannot be switched off.
    """
    switch_hub_off()
    return Bundle.open(Path(str(run.bundle)))


def model_folder_of(run: "RunConfig") -> Path:
    """Return the folder of a run's model, in its bundle if it has one. Raises ConfigError or DataError."""
    return resolve_model_folder(run.model.name) if run.bundle is None else open_bundle(run).model_folder


def store_of_bundle(run: "RunConfig", task: Task) -> Store:
    """Open the store of the run's bundle and check it against run, tokenizer and model; rank 0 reads the whole model.

    Raises ConfigError for a bundle that was made for other values, DataError for a damaged one.
    """
    bundle = open_bundle(run)
    bundle.check(run, task)
    if is_main_rank():
        bundle.check_model()
    check_model_folder(str(bundle.model_folder))
    store = Store.open(bundle.store_folder)
    tokenizer = tokenizer_fingerprint(bundle.model_folder, run.model.trust_remote_code)
    if store.fingerprint != bundle.store or store.tokenizer.fingerprint != tokenizer:
        raise DataError(
            f"{store.path}: is not the store that {BUNDLE_NAME} names, or was made with another tokenizer than the one "
            f"in {str(bundle.model_folder)!r}. Make the bundle again."
        )
    check_fit(store.tokenizer, bundle.model_folder)
    return store


def verify_bundle(folder: Path) -> list[str]:
    """Read every byte of a bundle and return a message for each damaged file; none for an intact bundle."""
    try:
        bundle = Bundle.read(folder)
        others = other_code(bundle.files, f"{HF_FOLDER}/modules")
        return bundle.damage() + [
            f"{folder / name} is not what this ftsys puts there, and scripts would run it: make the bundle again"
            for name in others
        ]
    except DataError as error:
        return [str(error)]
