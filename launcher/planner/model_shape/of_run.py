"""The model of a run as far as a plan needs it: read from its config.json, wherever this machine has it."""

from pathlib import Path

from ftsys.config import RunConfig, resolve_task
from ftsys.errors import ConfigError
from ftsys.model_files.config import local_config, model_config
from launcher.planner.model_shape import ModelShape, model_shape


def shape_of_run(run: RunConfig) -> tuple[ModelShape | None, str]:
    """The model's shape, and an empty text; or None, and why its memory is not known. Asks no network."""
    try:
        config = model_config(Path(run.bundle) / "model") if run.bundle else local_config(run.model.name)
        return model_shape(config, resolve_task(run).num_outputs), ""
    except ConfigError as error:
        return None, str(error).rstrip(".")
