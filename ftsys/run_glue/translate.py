"""Translates the example script's flags into the tree of a run file. Reads a file or the Hub only for own data sets."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ftsys.config import plain_tree
from ftsys.config.trainer_fields import secret_advice
from ftsys.config.trainer_known import HONOURED_TRAINER_FIELDS
from ftsys.did_you_mean import did_you_mean
from ftsys.errors import ConfigError
from ftsys.run_glue.flag_table import ALLOWED_VALUES, RUN_FILE_KEYS, SECRETS, TASKS, WITHOUT_EFFECT
from ftsys.run_glue.flags import DEFAULTS, Flags
from ftsys.run_glue.infer_task import LABEL, InferredTask, Wishes, infer_from_file, infer_from_hub
from ftsys.tasks import GLUE, Task

OWN_NAME = "own"
"""The name of a task that the user's own files define."""

Tree = dict[str, dict[str, Any]]
InferFromFile = Callable[[Path], InferredTask]
InferFromHub = Callable[[str, str], InferredTask]


@dataclass(frozen=True)
class Request:
    """The request that the flags make: a run file's tree, the actions to perform, and notes for the user."""

    tree: dict[str, Any]
    train: bool
    evaluate: bool
    predict: bool
    overwrite: bool
    name: str
    """The name in the prediction file's name: the script's `task_name`, or "None" without one."""
    logging_dir: str | None
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Data:
    """Task and source of a run file, the task's row with the names of its splits, and notes on what was inferred."""

    task: dict[str, Any]
    source: Any
    row: Task
    notes: tuple[str, ...] = ()


def translate(
    flags: Flags,
    ranks: int,
    infer_file: InferFromFile | None = None,
    infer_hub: InferFromHub | None = None,
) -> Request:
    """Translate `flags` (from `read_flags`) for `ranks` ranks. Defaults are those of the script and of transformers.

    Raises ConfigError that names every flag that is not supported, and DataError for data from which no task follows.
    """
    ConfigError.raise_if([*_unsupported(flags), *_missing(flags), *_needless(flags)])
    wishes = Wishes.of(flags)
    data = _data(
        flags,
        infer_file or partial(infer_from_file, wishes=wishes),
        infer_hub or partial(infer_from_hub, wishes=wishes),
    )
    without_effect = (f"--{flag} changes nothing: {WITHOUT_EFFECT[flag]}" for flag in flags if flag in WITHOUT_EFFECT)
    return Request(
        tree=_tree(flags, ranks, data),
        train=bool(flags.get("do_train")),
        evaluate=_evaluates(flags),
        predict=bool(flags.get("do_predict")),
        overwrite=bool(flags.get("overwrite_output_dir") or flags.get("overwrite")),
        name=str(flags["task_name"]).lower() if flags.get("task_name") else "None",
        logging_dir=flags.get("logging_dir"),
        notes=(*data.notes, *without_effect),
    )


def _evaluates(flags: Flags) -> bool:
    return bool(flags.get("do_eval")) or flags.get("eval_strategy", "no") != "no"


def _tree(flags: Flags, ranks: int, data: _Data) -> dict[str, Any]:
    """Return the tree of the run file, without the sections that nothing is in."""
    tree: Tree = {"task": data.task, "data": {"source": data.source, "max_length": DEFAULTS["max_seq_length"]}}
    tree |= {"model": {}, "batch": {}, "train": {"learning_rate": 5e-5, "seed": 42}, "engine": {}, "trainer": {}}
    for flag, value in flags.items():
        _place(tree, flag, value)
    _add_rows(tree, flags, data.row)
    tree["batch"] |= _batch(flags, ranks)
    tree["train"] |= _length(flags) | _saving(flags) | _evaluation(flags)
    tree["engine"] |= _engine(flags)
    output = str(flags.get("output_dir", "trainer_output"))
    return {"output_dir": output} | {name: section for name, section in tree.items() if section}


def _unsupported(flags: Flags) -> Iterator[str]:
    """Yield a message for each flag or value that is not supported."""
    same = {"config_name": flags.get("model_name_or_path"), "tokenizer_name": flags.get("model_name_or_path")}
    same |= {"data_seed": flags.get("seed", 42)}
    for flag, value in flags.items():
        if flag in same and value not in (None, same[flag]):
            yield f"--{flag} {value!r} cannot be honoured: only {same[flag]!r}, which is used anyway. Leave it out."
        if flag in SECRETS:
            if value is not None:
                yield f"--{flag} {secret_advice('HF_TOKEN')}"
        elif not _is_known(flag):
            yield f"--{flag} cannot be honoured: run-glue does not know what to do with it. Leave it out."
        elif flag in ALLOWED_VALUES and value not in ALLOWED_VALUES[flag][0]:
            yield f"--{flag} {value!r} cannot be honoured: {ALLOWED_VALUES[flag][1]}."
    if flags.get("fp16") and flags.get("bf16"):
        yield "--fp16 and --bf16 exclude each other: write one of the two."
    for flag in ("save_steps", "eval_steps"):
        if isinstance(flags.get(flag), float) and not flags[flag].is_integer():
            yield f"--{flag} {flags[flag]!r} cannot be honoured: write a whole number of steps, not a fraction of them."


def _missing(flags: Flags) -> Iterator[str]:
    """Yield a message for each flag that is missing, and for flags that exclude each other."""
    if not (flags.get("do_train") or _evaluates(flags) or flags.get("do_predict")):
        yield "there is nothing to do: write --do_train, --do_eval, --do_predict or several of them."
    if not flags.get("model_name_or_path"):
        yield "--model_name_or_path is missing: write a Hub name, a folder, or 'bundled' (the model in the demo extra)."
    ways = [flag for flag in ("task_name", "dataset_name", "train_file") if flags.get(flag)]
    if len(ways) != 1:
        said = " and ".join(f"--{flag}" for flag in ways) or "none of them"
        yield f"--task_name, --dataset_name and --train_file exclude each other, and {said} is there: write one."
    name = str(flags.get("task_name") or "").lower()
    if name and name not in TASKS:
        yield f"--task_name {name!r} is not one of the script's tasks: {did_you_mean(name, TASKS)}."
    if flags.get("glue_dir") and not name:
        yield "--glue_dir needs --task_name, which says which of its tasks is meant."
    if flags.get("dataset_config_name") and not flags.get("dataset_name"):
        yield "--dataset_config_name needs --dataset_name, whose configuration it is."
    if flags.get("train_file"):
        for flag, asked in (("validation_file", "do_eval"), ("test_file", "do_predict")):
            if flags.get(asked) and not flags.get(flag):
                yield f"--{asked} needs --{flag}, for --train_file has rows to train on alone."
    if not flags.get("train_file") and (flags.get("validation_file") or flags.get("test_file")):
        yield "--validation_file and --test_file need --train_file, which says what the columns and labels are."


def _needless(flags: Flags) -> Iterator[str]:
    """Yield a message for each flag about data of one's own if the task is a known one."""
    for flag in ("text_column_names", "label_column_name", "do_regression") if flags.get("task_name") else ():
        if flags.get(flag) is not None:
            yield f"--{flag} describes data of your own, and --task_name names a known task: leave one of them out."


def _data(flags: Flags, infer_file: InferFromFile, infer_hub: InferFromHub) -> _Data:
    if flags.get("task_name"):
        name = str(flags["task_name"]).lower()
        return _Data({"name": name}, flags.get("glue_dir") or "hub", GLUE[name])
    if flags.get("dataset_name"):
        repository = str(flags["dataset_name"])
        name = str(flags.get("dataset_config_name") or Path(repository).name)
        if name in TASKS and Path(repository).name == "glue":
            return _Data({"name": name}, f"hub:{repository}", GLUE[name])
        return _own_task(name, infer_hub(repository, name), f"hub:{repository}")
    files = {"train": "train_file", "validation": "validation_file", "test": "test_file"}
    source = {split: str(flags[flag]) for split, flag in files.items() if flags.get(flag)}
    return _own_task(OWN_NAME, infer_file(Path(source["train"])), source)


def _own_task(name: str, inferred: InferredTask, source: Any) -> _Data:
    """Describe a user's own task, with the script's metrics: accuracy, or the mean squared error for a regression."""
    if name in GLUE:
        name = f"{OWN_NAME}-{name}"  # the name of a known task would select that task's columns
    metrics = ("mse",) if inferred.regression else ("accuracy",)
    label_column = inferred.label_column
    row = Task(
        name, inferred.columns, inferred.labels, metrics, regression=inferred.regression, label_column=label_column
    )
    task: dict[str, Any] = {"name": name, "columns": list(inferred.columns), "metrics": list(metrics)}
    task |= {"regression": True} if inferred.regression else {"labels": list(inferred.labels)}
    task |= {} if label_column == LABEL else {"label_column": label_column}
    return _Data(task, source, row, inferred.notes)


def _place(tree: Tree, flag: str, value: Any) -> None:
    """Set the run file's key for one flag, or a key of [trainer]; other functions read the remaining flags."""
    if flag in RUN_FILE_KEYS:
        section, key = RUN_FILE_KEYS[flag].split(".")
        tree[section][key] = value
    elif _is_passed_on(flag) and value is not None:
        tree["trainer"][flag] = value


def _is_passed_on(flag: str) -> bool:
    elsewhere = {*ALLOWED_VALUES, *WITHOUT_EFFECT, *READ_HERE, *DEFAULTS}
    return flag in HONOURED_TRAINER_FIELDS and flag not in elsewhere


def _is_known(flag: str) -> bool:
    """Return False for an argument that a newer transformers has added."""
    tables = (RUN_FILE_KEYS, ALLOWED_VALUES, WITHOUT_EFFECT, READ_HERE, DEFAULTS, HONOURED_TRAINER_FIELDS)
    return any(flag in table for table in tables)


READ_HERE = (
    *("output_dir", "do_train", "do_eval", "do_predict", "data_seed", "use_cpu"),
    *("overwrite", "overwrite_output_dir", "logging_dir", "global_batch_size"),
    *("per_device_train_batch_size", "gradient_accumulation_steps", "train_sampling_strategy"),
    *("num_train_epochs", "max_steps", "resume_from_checkpoint"),
    *("save_strategy", "save_steps", "eval_strategy", "eval_steps"),
    *("fp16", "bf16", "deepspeed"),
)
"""Flags that are read one by one, by the functions of this module."""


def _add_rows(tree: Tree, flags: Flags, row: Task) -> None:
    splits = {"max_train_samples": (row.train_split,), "max_eval_samples": row.evaluation_splits}
    splits["max_predict_samples"] = row.test_splits
    rows = {split: flags[flag] for flag, names in splits.items() if flags.get(flag) is not None for split in names}
    if rows:
        tree["data"]["first_rows"] = rows


def _batch(flags: Flags, ranks: int) -> dict[str, Any]:
    order = {"group_by_length": {"order": "length_grouped"}, "random": {"order": "random"}}
    found: dict[str, Any] = dict(order.get(str(flags.get("train_sampling_strategy")), {}))
    if flags.get("global_batch_tokens"):
        return found
    device, steps = flags.get("per_device_train_batch_size", 8), flags.get("gradient_accumulation_steps", 1)
    return found | {"global_size": flags.get("global_batch_size") or device * steps * ranks}


def _length(flags: Flags) -> dict[str, Any]:
    steps, resume = flags.get("max_steps", -1), flags.get("resume_from_checkpoint")
    length = {"max_steps": steps} if steps > 0 else {"epochs": float(flags.get("num_train_epochs", 3.0))}
    return length | ({} if resume is None or str(resume).lower() == "true" else {"resume": str(resume)})


def _saving(flags: Flags) -> dict[str, Any]:
    return {"save_every": _every(str(flags.get("save_strategy", "steps")), flags.get("save_steps", 500))}


def _evaluation(flags: Flags) -> dict[str, Any]:
    steps = flags.get("eval_steps") or flags.get("logging_steps", 500)
    return {"eval_every": _every(str(flags.get("eval_strategy", "no")), steps)}


def _every(strategy: str, steps: float) -> str | int:
    return int(steps) if strategy == "steps" else {"no": "never"}.get(strategy, strategy)


def _engine(flags: Flags) -> dict[str, Any]:
    precision = "fp16" if flags.get("fp16") else "bf16" if flags.get("bf16") else "fp32"
    if not flags.get("deepspeed"):
        return {"precision": precision}
    chosen = {} if precision == "fp32" else {"precision": precision}  # the DeepSpeed file sets the precision
    return chosen | {"deepspeed": str(flags["deepspeed"]), "backend": "deepspeed"}


def short_tree(tree: Mapping[str, Any], run: Any) -> dict[str, Any]:
    """Return those values of a built run whose keys are in `tree`, in the run file's order."""
    whole = plain_tree(run)
    return {
        name: {key: inner for key, inner in value.items() if key in tree[name]}
        if isinstance(tree[name], dict)
        else value
        for name, value in whole.items()
        if name in tree
    }
