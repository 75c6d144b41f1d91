"""Defines RunConfig: a run file's tree whose fields also fit together."""

from pydantic import model_validator

from ftsys.config.checks import cross_mistakes
from ftsys.config.schema import RunTree
from ftsys.errors import ConfigError


class RunConfig(RunTree):
    """A whole run, frozen and checked. `load_run` and `build_run` make it and report every mistake in one ConfigError.

    Calling the class raises ConfigError for fields that do not fit together, and pydantic's ValidationError for a
    single field.
    """

    @model_validator(mode="after")
    def _check(self) -> "RunConfig":
        ConfigError.raise_if(mistake.text for mistake in cross_mistakes(self))
        return self
