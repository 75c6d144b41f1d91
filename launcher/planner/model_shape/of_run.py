"""Reads the shape of a run's model from its config.json, without network access."""

from pathlib import Path

from ftsys.config import RunConfig, resolve_task
from ftsys.errors import ConfigError
from ftsys.model_files.config import WrongModelConfig, local_config, model_config
from launcher.planner.model_shape import ModelShape, model_shape
from launcher.planner.model_shape.trained import trained_shape


def shape_of_run(run: RunConfig) -> tuple[ModelShape | None, str]:
    """Return (the model's shape, ""), or (None, the reason why its memory is not known).

    Raises WrongModelConfig for a config.json from which no model can be made, and ConfigError where the run names parts
    that the model does not have.
    """
    try:
        config = model_config(Path(run.bundle) / "model") if run.bundle else local_config(run.model.name)
        shape = model_shape(config, resolve_task(run).num_outputs)
    except WrongModelConfig:
        raise
    except ConfigError as error:
        return None, str(error).rstrip(".")
    return trained_shape(shape, run), ""
