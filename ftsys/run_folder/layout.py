"""Names the files and folders of a run folder."""

from pathlib import Path

RUN_FILE = "config.toml"
"""The resolved run file."""
PLAN = "plan.json"
"""The launcher's plan: world, batch, micro-batch, memory."""
DEEPSPEED = "deepspeed.json"
"""The DeepSpeed configuration, if the run uses DeepSpeed."""
ENVIRONMENT = "env.json"
"""Versions, commit, host and devices (see `environment`)."""
DATA = "data.json"
"""The store of the run, with the number of examples of each length (see `report_facts`)."""
RANKS = "ranks.json"
"""Tokens and memory of each rank over the steps of the last attempt, of a run of several ranks (see `report_facts`)."""
STATUS = "status.json"
"""State of the run and exit status of its newest attempt (see `status`)."""
OWNER = "owner.json"
"""A copy of the newest attempt's record, for people and tools."""
ATTEMPTS = "attempts"
"""Folder with one record for each attempt (see `attempts`)."""
METRICS_LOG = "metrics.jsonl"
"""One line for each logged step and evaluation (see `metrics_log`)."""
RESULTS = "results.json"
"""Results of a finished run; written last (see `results`)."""
TRAINER_STATE = "trainer_state.json"
"""The Trainer's state, in transformers' format."""
MODEL = "model"
"""Folder with the trained model, as `from_pretrained` reads it."""
ADAPTER = "adapter"
"""Folder with the LoRA adapter alone, as peft reads it, if the model of a run with `[lora]` is merged."""
MODEL_CARD = "README.md"
"""The description of the model, in its folder (see `model_card`)."""
PREDICTIONS = "predictions"
"""Folder with one TSV file for each predicted split (see `predictions`)."""
SUBMISSION = "submission"
"""Folder with the files that the GLUE server accepts (see `predictions`)."""
CALIBRATION_RESULTS = "calibration_results.json"
"""Figures of `ftsys calibrate`, before and after; the calibration itself lies beside the model."""
EXPORT = "export"
"""Folder with one folder for each target of `ftsys export`."""
CHECKPOINTS = "checkpoints"
"""Folder with one folder for each checkpoint."""
TENSORBOARD = "tensorboard"
"""Folder with TensorBoard's event files."""
LOGS = "logs"
"""Folder with the output of ranks and SLURM jobs, written by the launcher."""


def predictions_file(output_dir: Path | str, split: str) -> Path:
    """Return the path of a split's predictions."""
    return Path(output_dir) / PREDICTIONS / f"{split}.tsv"


def for_all_seeds(model: str, seed: int | None) -> str:
    """Return the name of a model that a run started from, alike for all seeds: each may start from its own seed's."""
    end = f"/seed-{seed}/{MODEL}"
    return f"{model.removesuffix(end)}/seed-*/{MODEL}" if model.endswith(end) else model


def model_title(model: str) -> str:
    """Return the short name of a model: the last part of a path, or the names of a run folder for its trained model."""
    path = Path(model.rstrip("/"))
    if path.name != MODEL or len(path.parts) < 2:
        return path.name or model
    run = path.parent
    return "/".join(run.parts[-3:-1]) if run.name.startswith("seed-") else run.name
