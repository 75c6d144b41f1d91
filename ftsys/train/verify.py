"""Implements `ftsys verify`: compares stores, bundles and checkpoints with their manifests, byte by byte."""

from pathlib import Path

from ftsys.console.printer import show
from ftsys.data.bundle import BUNDLE_NAME, verify_bundle
from ftsys.data.glue_submission import check_submission
from ftsys.data.store.index import INDEX_NAME
from ftsys.data.store.verify import verify_store
from ftsys.errors import BAD_INPUT, DONE, ConfigError
from ftsys.run_folder.layout import CHECKPOINTS
from ftsys.train.checkpoint.catalog import is_leftover, verify_checkpoint


def verify(path: str) -> int:
    """Print each damage, or that all is whole; returns 0 or 2.

    `path` is a store, a bundle, a checkpoint, a run folder, or a zip for the GLUE server, whose format is checked.
    Raises ConfigError for any other.
    """
    folder = Path(path)
    found: dict[Path, list[str]] = {}
    if folder.suffix == ".zip":
        found[folder] = check_submission(folder)
    elif (folder / INDEX_NAME).exists():
        found[folder] = verify_store(folder)
    elif (folder / BUNDLE_NAME).exists():
        found[folder] = verify_bundle(folder)
    elif (folder / "manifest.json").exists():
        found[folder] = verify_checkpoint(folder)
    elif (folder / CHECKPOINTS).is_dir():
        each_step = (each for each in sorted((folder / CHECKPOINTS).glob("step-*")) if not is_leftover(each.name))
        found = {each: verify_checkpoint(each) for each in each_step}
    else:
        raise ConfigError(
            f"{path!r} is not a store, bundle, checkpoint or run folder with checkpoints: name one that is."
        )
    if not found:
        raise ConfigError(f"{path!r} holds no checkpoint: nothing can be verified.")
    for each, damage in found.items():
        show("\n".join(f"{each}: {line}" for line in damage) or f"{each}: whole")
    return BAD_INPUT if any(found.values()) else DONE
