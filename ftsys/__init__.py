"""Fine-tunes pre-trained text encoders on one CPU, one GPU, several GPUs or many nodes.

The public names are imported on first use: `import ftsys` is cheap, and a command that needs no torch loads none.
"""

from importlib import import_module

__version__ = "0.1.0"

_HOMES = {
    "Trainer": "ftsys.train.trainer.trainer",
    "TrainingArguments": "ftsys.train.trainer.arguments",
    "Classifier": "ftsys.score.classifier",
    "RunConfig": "ftsys.config",
    "load_run": "ftsys.config",
    "resolve_task": "ftsys.config",
    "GLUE": "ftsys.tasks",
    "Task": "ftsys.tasks",
    "Store": "ftsys.data.store.reader",
    "ensure_store": "ftsys.data.prepare",
    "open_source": "ftsys.data.sources.source",
    "ConfigError": "ftsys.errors",
    "DataError": "ftsys.errors",
    "FtsysError": "ftsys.errors",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> object:
    """Import a public name from its module; raises AttributeError for any other."""
    if name not in _HOMES:
        raise AttributeError(f"module 'ftsys' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
