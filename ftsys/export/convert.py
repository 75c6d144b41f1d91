"""Converts a trained model with transformers' exporters, and collects all that a user of the export needs."""

import contextlib
import io
import logging
import shutil
import warnings
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ftsys.errors import ConfigError
from ftsys.export.targets import TARGETS, Inputs, Run
from ftsys.model_files.calibration import CALIBRATION
from ftsys.model_files.config import PLAIN_OUTPUTS, model_config
from ftsys.model_files.folder import TOKENIZER_FILES
from ftsys.model_files.links import refuse_links
from ftsys.model_files.load_errors import model_load_errors
from ftsys.model_files.remote_code import code_files, loading_code
from ftsys.model_files.untrained import made_up, refuse_untrained

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def load_stock(folder: Path, trust_remote_code: bool = False) -> "PreTrainedModel":
    """Load a model as a user of transformers does, in float32 for evaluation.

    Raises ConfigError for one that cannot be loaded, and where not all of its weights were trained.
    """
    import torch
    from transformers import AutoModelForSequenceClassification

    model_config(folder)  # refuses what transformers would follow out of the folder
    with model_load_errors(folder), loading_code(trust_remote_code):
        model, info = AutoModelForSequenceClassification.from_pretrained(
            folder,
            dtype=torch.float32,
            trust_remote_code=trust_remote_code,
            output_loading_info=True,
            **PLAIN_OUTPUTS,
            ignore_mismatched_sizes=True,  # refused below
        )
    refuse_untrained(str(folder), model.base_model_prefix, made_up(info))
    loaded: PreTrainedModel = model.eval()
    return loaded


def stock_run(model: "PreTrainedModel") -> Run:
    """Return the function from padded inputs to logits (S, C) float32 of a stock model."""
    import torch

    def run(inputs: Inputs) -> np.ndarray:
        with torch.inference_mode():
            logits = model(**{name: torch.from_numpy(value) for name, value in inputs.items()}).logits
        return np.asarray(logits)

    return run


def convert(name: str, model: "PreTrainedModel", sample: Inputs, folder: Path) -> None:
    """Write a model to `folder` in the format of a target. `sample` is a batch of two rows or more.

    Batch size and length stay free. Raises ConfigError if the exporter cannot convert this type of model.
    """
    import torch

    target = TARGETS[name]
    tensors = {key: torch.from_numpy(value) for key, value in sample.items()}
    try:
        with _quiet():
            settings = target.settings()  # before the exporter imports what it needs: see import_openvino
            exporter = getattr(import_module("transformers.exporters"), target.exporter)()
            exported = exporter.export(model, tensors, config=settings)
            exported.save_pretrained(folder)
    except (RuntimeError, NotImplementedError, ValueError) as error:  # exporters have no error type of their own
        kind = model.config.model_type
        raise ConfigError(
            f"--to {name}: transformers' exporter cannot convert a model of type {kind!r} "
            f"({type(error).__name__}: {str(error)[:300]}). Export to another target."
        ) from error


def copy_companions(model_folder: Path, folder: Path, trust_remote_code: bool = False) -> None:
    """Copy tokenizer, configuration, calibration and trusted code beside an exported model.

    Raises ConfigError for a link that leads out of the model folder. OSError is passed on.
    """
    code = code_files(model_folder) if trust_remote_code else ()
    names = ("config.json", CALIBRATION, *TOKENIZER_FILES, *code)
    refuse_links(model_folder, names)
    for name in names:
        if (model_folder / name).is_file():
            shutil.copyfile(model_folder / name, folder / name)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide progress on standard output, and warnings about versions and operators, which `parity` makes needless."""
    loggers = [
        logging.getLogger(name)
        for name in ("torch.onnx", "transformers", "transformers.exporters", "onnxscript", "root")
    ]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
