"""The example script's flags -> a run file's tree of ours. Pure but for the look at a data set of one's own."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftsys.config import plain_tree
from ftsys.config.trainer_known import KNOWN_TRAINER_FIELDS
from ftsys.did_you_mean import did_you_mean
from ftsys.errors import ConfigError
from ftsys.run_glue.flag_table import ONLY, SAME_KEY, TASKS, WITHOUT_EFFECT
from ftsys.run_glue.flags import DEFAULTS, Flags
from ftsys.run_glue.infer_task import Shape, look_at_file, look_at_hub
from ftsys.tasks import GLUE, Task

OWN_NAME = "own"
"""Name of a task that files describe."""

Tree = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Asked:
    """What the flags ask for: a run file's tree of what they say, what to do, and what is to be told."""

    tree: dict[str, Any]
    train: bool
    evaluate: bool
    predict: bool
    overwrite: bool
    name: str
    """What the result file of predictions is named after: the script's `task_name`, None where there is none."""
    logging_dir: str | None
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Data:
    """Task and source of a run file, and the names of the splits."""

    task: dict[str, Any]
    source: Any
    row: Task


def translate(
    flags: Flags,
    ranks: int,
    look_file: Callable[[Path], Shape] = look_at_file,
    look_hub: Callable[[str, str], Shape] = look_at_hub,
) -> Asked:
    """What `flags` (as `read_flags` gives them) ask of `ranks` ranks; defaults are the script's and transformers'.

    Raises ConfigError that names every flag that cannot be honoured, and DataError for a data set that tells no task.
    """
    mistakes = [*_impossible(flags), *_missing(flags)]
    strategy = str(flags.get("eval_strategy", "no"))
    evaluates = bool(flags.get("do_eval")) or strategy != "no"
    if not (flags.get("do_train") or evaluates or flags.get("do_predict")):
        mistakes.append("there is nothing to do: write --do_train, --do_eval, --do_predict or several of them.")
    ConfigError.raise_if(mistakes)
    data = _data(flags, look_file, look_hub)
    tree: Tree = {"task": data.task, "data": {"source": data.source, "max_length": DEFAULTS["max_seq_length"]}}
    tree |= {"model": {}, "batch": {}, "train": {"learning_rate": 5e-5, "seed": 42}, "engine": {}, "trainer": {}}
    for flag, value in flags.items():
        _place(tree, flag, value)
    _add_rows(tree, flags, data.row)
    tree["batch"] |= _batch(flags, ranks)
    tree["train"] |= _length(flags) | _saving(flags) | _evaluation(flags, strategy)
    tree["engine"] |= _engine(flags)
    output = str(flags.get("output_dir", "trainer_output"))
    return Asked(
        tree={"output_dir": output} | {name: section for name, section in tree.items() if section},
        train=bool(flags.get("do_train")),
        evaluate=evaluates,
        predict=bool(flags.get("do_predict")),
        overwrite=bool(flags.get("overwrite_output_dir") or flags.get("overwrite")),
        name=str(flags["task_name"]).lower() if flags.get("task_name") else "None",
        logging_dir=flags.get("logging_dir"),
        notes=tuple(f"--{flag} changes nothing: {WITHOUT_EFFECT[flag]}" for flag in flags if flag in WITHOUT_EFFECT),
    )


def _impossible(flags: Flags) -> Iterator[str]:
    """What the flags ask for and nobody here does."""
    same = {"config_name": flags.get("model_name_or_path"), "tokenizer_name": flags.get("model_name_or_path")}
    same |= {"data_seed": flags.get("seed", 42)}
    for flag, value in flags.items():
        if flag in same and value not in (None, same[flag]):
            yield f"--{flag} {value!r} cannot be honoured: only {same[flag]!r}, which is used anyway. Leave it out."
        if flag in ONLY and value not in ONLY[flag][0]:
            yield f"--{flag} {value!r} cannot be honoured: {ONLY[flag][1]}."
    if flags.get("fp16") and flags.get("bf16"):
        yield "--fp16 and --bf16 exclude each other: write one of the two."
    for flag in ("save_steps", "eval_steps"):
        if isinstance(flags.get(flag), float) and not flags[flag].is_integer():
            yield f"--{flag} {flags[flag]!r} cannot be honoured: write a whole number of steps, not a share of them."


def _missing(flags: Flags) -> Iterator[str]:
    """What is missing, or said in two ways."""
    if not flags.get("model_name_or_path"):
        yield "--model_name_or_path is missing: write a Hub name, a folder, or 'bundled'."
    ways = [flag for flag in ("task_name", "dataset_name", "train_file") if flags.get(flag)]
    if len(ways) != 1:
        said = " and ".join(f"--{flag}" for flag in ways) or "none of them"
        yield f"--task_name, --dataset_name and --train_file exclude each other, and {said} is there: write one."
    name = str(flags.get("task_name") or "").lower()
    if name and name not in TASKS:
        yield f"--task_name {name!r} is none of the script's tasks: {did_you_mean(name, TASKS)}."
    if flags.get("glue_dir") and not name:
        yield "--glue_dir needs --task_name, which says which of its tasks is meant."
    if flags.get("dataset_config_name") and not flags.get("dataset_name"):
        yield "--dataset_config_name needs --dataset_name, whose configuration it is."
    if flags.get("train_file"):
        for flag, asked in (("validation_file", "do_eval"), ("test_file", "do_predict")):
            if flags.get(asked) and not flags.get(flag):
                yield f"--{asked} needs --{flag}, for --train_file has rows to train on alone."
    elif flags.get("validation_file") or flags.get("test_file"):
        yield "--validation_file and --test_file need --train_file, which says what the columns and labels are."


def _data(flags: Flags, look_file: Callable[[Path], Shape], look_hub: Callable[[str, str], Shape]) -> _Data:
    if flags.get("task_name"):
        name = str(flags["task_name"]).lower()
        return _Data({"name": name}, flags.get("glue_dir") or "hub", GLUE[name])
    if flags.get("dataset_name"):
        repository = str(flags["dataset_name"])
        name = str(flags.get("dataset_config_name") or Path(repository).name)
        if name in TASKS and Path(repository).name == "glue":
            return _Data({"name": name}, f"hub:{repository}", GLUE[name])
        return _described(name, look_hub(repository, name), f"hub:{repository}")
    files = {"train": "train_file", "validation": "validation_file", "test": "test_file"}
    source = {split: str(flags[flag]) for split, flag in files.items() if flags.get(flag)}
    return _described(OWN_NAME, look_file(Path(source["train"])), source)


def _described(name: str, shape: Shape, source: Any) -> _Data:
    """A task of one's own, judged as the script judges one: by accuracy, or by the mean squared error."""
    if name in GLUE:
        name = f"{OWN_NAME}-{name}"  # a known name would bring its own columns along
    metrics = ("mse",) if shape.regression else ("accuracy",)
    row = Task(name, shape.columns, shape.labels, metrics, regression=shape.regression)
    task: dict[str, Any] = {"name": name, "columns": list(shape.columns), "metrics": list(metrics)}
    return _Data(task | ({"regression": True} if shape.regression else {"labels": list(shape.labels)}), source, row)


def _place(tree: Tree, flag: str, value: Any) -> None:
    """Put one flag where the run file has the same key, or under [trainer]; the others are read elsewhere."""
    if flag in SAME_KEY:
        section, key = SAME_KEY[flag].split(".")
        tree[section][key] = value
    elif _is_passed_on(flag) and value is not None:
        tree["trainer"][flag] = value


def _is_passed_on(flag: str) -> bool:
    elsewhere = {*ONLY, *WITHOUT_EFFECT, *READ_HERE, *DEFAULTS}
    return flag in KNOWN_TRAINER_FIELDS and flag not in elsewhere


READ_HERE = (
    *("output_dir", "do_train", "do_eval", "do_predict", "data_seed", "use_cpu"),
    *("per_device_train_batch_size", "gradient_accumulation_steps", "train_sampling_strategy"),
    *("num_train_epochs", "max_steps", "resume_from_checkpoint"),
    *("save_strategy", "save_steps", "eval_strategy", "eval_steps"),
    *("fp16", "bf16", "deepspeed"),
)
"""Fields of TrainingArguments that the functions below read."""


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


def _evaluation(flags: Flags, strategy: str) -> dict[str, Any]:
    steps = flags.get("eval_steps") or flags.get("logging_steps", 500)
    return {"eval_every": _every(strategy, steps)}


def _every(strategy: str, steps: float) -> str | int:
    return int(steps) if strategy == "steps" else {"no": "never"}.get(strategy, strategy)


def _engine(flags: Flags) -> dict[str, Any]:
    precision = "fp16" if flags.get("fp16") else "bf16" if flags.get("bf16") else "fp32"
    if not flags.get("deepspeed"):
        return {"precision": precision}
    chosen = {} if precision == "fp32" else {"precision": precision}  # the DeepSpeed file says which
    return chosen | {"deepspeed": str(flags["deepspeed"]), "backend": "deepspeed"}


def short_tree(tree: Mapping[str, Any], run: Any) -> dict[str, Any]:
    """The values of a built run that the flags' tree speaks of, in the run file's order."""
    whole = plain_tree(run)
    return {
        name: {key: inner for key, inner in value.items() if key in tree[name]}
        if isinstance(tree[name], dict)
        else value
        for name, value in whole.items()
        if name in tree
    }
