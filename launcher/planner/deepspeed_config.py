"""Generates DeepSpeed's JSON from a plan, and checks a user's own JSON against it. Imports neither torch nor DeepSpeed.

TrainingArguments are made from the same run and plan, so the two cannot disagree. The JSON has no optimizer block: runs
use torch's fused AdamW, so that DeepSpeed compiles nothing. It has no scheduler block: the Trainer owns the schedule.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ftsys.config import RunConfig, lowest_stage
from ftsys.config.fields import is_secret
from ftsys.errors import ConfigError
from ftsys.files.untrusted import file_text, parse_json
from launcher.planner.cost.engine_memory import BUCKET_ELEMENTS, PERSISTENT_ELEMENTS
from launcher.planner.plan import Plan

AUTO = "auto"
"""Value of a key that a DeepSpeed file leaves to the run."""

_FILLED_LATE = frozenset({"scheduler.params.warmup_num_steps", "scheduler.params.total_num_steps"})
"""Keys that the Trainer fills once it has counted the steps. DeepSpeed's own default for the warm-up is 1,000 steps."""

_SECTIONS = ("bf16", "fp16", "zero_optimization", "optimizer", "scheduler")

Json = dict[str, Any]


def deepspeed_config(plan: Plan, run: RunConfig) -> Json:
    """Generate the whole DeepSpeed configuration of a run, as plain JSON values.

    Raises ConfigError where the plan's backend is not DeepSpeed, or where its offload needs a higher ZeRO stage.
    """
    if plan.backend != "deepspeed":
        raise ConfigError(
            f"this run's backend is {plan.backend!r} ({plan.reasons.get('backend', 'asked for')}), which reads no "
            'DeepSpeed file: write engine.backend = "deepspeed".'
        )
    return {
        # DeepSpeed only computes its train_batch_size from this; the batch plan decides each rank's examples.
        "train_micro_batch_size_per_gpu": plan.largest_rank_examples or 1,
        # 1, however many micro-batches a step has: the loss is already the mean over the global batch, and DeepSpeed
        # would divide the gradient again by this number.
        "gradient_accumulation_steps": 1,
        "gradient_clipping": plan.max_grad_norm,
        **_precision(plan.precision),
        "zero_optimization": _zero(plan.zero_stage, plan.offload, plan.device),
        # Use torch's optimizers: DeepSpeed compiles its own on first use.
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "wall_clock_breakdown": False,
    }


def _precision(precision: str) -> Json:
    bf16: Json = {"enabled": precision == "bf16"}
    if precision == "bf16":
        bf16["check_grad_overflow"] = True  # DeepSpeed's default has changed before
    fp16: Json = {"enabled": precision == "fp16"}
    if precision == "fp16":
        # 0 means a dynamic scale: it starts at 2**16 and doubles after 1,000 steps without an overflow.
        fp16 |= {"loss_scale": 0, "initial_scale_power": 16, "loss_scale_window": 1000, "hysteresis": 2}
        fp16 |= {"min_loss_scale": 1}
    return {"bf16": bf16, "fp16": fp16}


def _zero(stage: int, offload: str, device: str) -> Json:
    zero: Json = {"stage": stage}
    if stage == 0:
        return zero
    zero |= {
        "overlap_comm": device == "cuda",
        "contiguous_gradients": True,
        "reduce_scatter": True,
        "reduce_bucket_size": BUCKET_ELEMENTS,
        "allgather_bucket_size": BUCKET_ELEMENTS,
    }
    if stage == 3:
        zero |= {
            "stage3_prefetch_bucket_size": BUCKET_ELEMENTS,
            "stage3_param_persistence_threshold": PERSISTENT_ELEMENTS,
            # Otherwise `save_pretrained` writes empty placeholders for partitioned weights.
            "stage3_gather_16bit_weights_on_model_save": True,
        }
    return zero | _offload(stage, offload, device)


def _offload(stage: int, offload: str, device: str) -> Json:
    lowest = lowest_stage(offload)
    if stage < lowest:
        raise ConfigError(
            f"engine.offload={offload!r} needs ZeRO stage {lowest} or above, but the plan has {stage}: raise it."
        )
    if offload == "none":
        return {}
    place: Json = {"device": "cpu", "pin_memory": device == "cuda"}
    if offload.startswith("nvme:"):
        place |= {"device": "nvme", "nvme_path": offload.removeprefix("nvme:")}
    return {"offload_optimizer": place} | ({} if offload == "optimizer" else {"offload_param": dict(place)})


def file_name(plan: Plan) -> str:
    """Return a name with every feature that the file turns on, such as zero3-fp16-offload-optimizer-cpu.json."""
    parts = [f"zero{plan.zero_stage}", plan.precision]
    if plan.offload != "none":
        what = ["optimizer"] if plan.offload == "optimizer" else ["optimizer", "parameters"]
        parts += ["offload", *what, "nvme" if plan.offload.startswith("nvme:") else "cpu"]
    return "-".join(parts) + ".json"


def to_text(config: Mapping[str, Any]) -> str:
    """Format a configuration as the text of a DeepSpeed file."""
    return json.dumps(config, indent=2) + "\n"


def owned_values(plan: Plan, run: RunConfig) -> dict[str, tuple[Any, str]]:
    """Return DeepSpeed's dotted keys that the run decides -> (the run's value, the run file's key)."""
    trainer, offload = run.trainer, _offload(3, plan.offload, plan.device)
    owned: dict[str, tuple[Any, str]] = {
        "gradient_accumulation_steps": (1, "nothing: the loss carries all scaling"),
        "gradient_clipping": (plan.max_grad_norm, "trainer.max_grad_norm"),
        "bf16.enabled": (plan.precision == "bf16", "engine.precision"),
        "fp16.enabled": (plan.precision == "fp16", "engine.precision"),
        "zero_optimization.stage": (plan.zero_stage, "engine.zero_stage"),
        "zero_optimization.offload_optimizer.device": (_device(offload, "offload_optimizer"), "engine.offload"),
        "zero_optimization.offload_param.device": (_device(offload, "offload_param"), "engine.offload"),
        "optimizer.params.lr": (run.train.learning_rate, "train.learning_rate"),
        "optimizer.params.weight_decay": (trainer.get("weight_decay", 0.0), "trainer.weight_decay"),
        "optimizer.params.eps": (trainer.get("adam_epsilon", 1e-8), "trainer.adam_epsilon"),
        "optimizer.params.betas": (
            [trainer.get("adam_beta1", 0.9), trainer.get("adam_beta2", 0.999)],
            "trainer.adam_beta1 and adam_beta2",
        ),
        "scheduler.params.warmup_max_lr": (run.train.learning_rate, "train.learning_rate"),
    }
    if plan.precision == "bf16":  # without the check a step with a NaN in its gradient changes the weights
        owned["bf16.check_grad_overflow"] = (True, "train.max_nonfinite_steps")
    if plan.global_size is not None:
        owned["train_batch_size"] = (plan.global_size, "batch.global_size")
        owned["train_micro_batch_size_per_gpu"] = (plan.largest_rank_examples, "batch.global_size")
    if plan.warmup_steps is not None:
        # DeepSpeed 0.19.6 and later refuse 0, and transformers writes 1 for it.
        owner = "trainer.warmup_steps" if plan.warmup_steps else "trainer.warmup_steps = 0, and DeepSpeed takes no 0"
        owned["scheduler.params.warmup_num_steps"] = (max(1, plan.warmup_steps), owner)
    if plan.total_steps is not None:
        owned["scheduler.params.total_num_steps"] = (plan.total_steps, "train.epochs or train.max_steps")
    return owned


def _device(offload: Mapping[str, Any], key: str) -> str:
    return str(offload[key]["device"]) if key in offload else "none"


def conflicts(user_json: Mapping[str, Any], run: RunConfig, plan: Plan) -> list[str]:
    """Return a message for each value of a user's DeepSpeed JSON that differs from the run, with both values.

    A key that is "auto" or absent does not conflict. A number written as text ("8") does not equal 8.
    """
    found = [
        f"{name}: the DeepSpeed file has {user_json[name]!r} where an object is meant: write {{...}}."
        for name in _SECTIONS
        if name in user_json and user_json[name] != AUTO and not isinstance(user_json[name], Mapping)
    ]
    found += _untakable(user_json, run)
    for key, (ours, owner) in owned_values(plan, run).items():
        for theirs in values_at(user_json, key.split(".")):
            if theirs != AUTO and not _same(theirs, ours):
                found.append(_conflict(key, theirs, ours, owner))
    return found


def _untakable(user_json: Mapping[str, Any], run: RunConfig) -> Iterator[str]:
    """Yield a message for each part of the JSON that the choice of trained weights and rates rules out."""
    if run.train.layer_decay < 1 and isinstance(user_json.get("optimizer"), Mapping):
        yield (
            f"optimizer: DeepSpeed's own has one learning rate, and train.layer_decay={run.train.layer_decay!r} gives "
            "each layer its own: take the optimizer out of the DeepSpeed file."
        )
    if run.lora.r is not None and 3 in values_at(user_json, ["zero_optimization", "stage"]):
        yield (
            f"zero_optimization.stage: 3 splits the weights, and lora.r={run.lora.r} needs them whole on each rank: "
            "write 2 at most."
        )


def values_at(tree: Any, path: list[str]) -> Iterator[Any]:
    """Yield the value at a path; nothing where the path does not exist."""
    for name in path:
        if not isinstance(tree, Mapping) or name not in tree:
            return
        tree = tree[name]
    yield tree


def _same(theirs: Any, ours: Any) -> bool:
    number = isinstance(ours, int | float) and not isinstance(ours, bool)
    if number:
        return isinstance(theirs, int | float) and not isinstance(theirs, bool) and theirs == ours
    return type(theirs) is type(ours) and bool(theirs == ours)


def _conflict(key: str, theirs: Any, ours: Any, owner: str) -> str:
    shown = json.dumps(ours)
    if isinstance(theirs, str) and theirs.lower() == shown.lower():
        return f'{key}: the DeepSpeed file has the text {theirs!r} where a value is meant: write {shown} or "auto".'
    both = f"the DeepSpeed file says {theirs!r}, the run {ours!r} ({owner})"
    return f'{key}: {both}: make them equal, or write "auto" in the file.'


def merged_config(user_json: Mapping[str, Any], run: RunConfig, plan: Plan) -> Json:
    """Return the configuration for DeepSpeed: the user's JSON, completed from the run where it is "auto" or silent.

    Raises ConfigError with every conflict. `train_batch_size` is removed: DeepSpeed derives it from the per-rank size,
    and the two would contradict each other where the examples do not divide by the ranks.
    """
    ConfigError.raise_if(conflicts(user_json, run, plan))
    ours = deepspeed_config(plan, run)
    known = {key: value for key, (value, _) in owned_values(plan, run).items()}
    merged = _overlaid(ours, user_json, known, "")
    merged.pop("train_batch_size", None)
    return merged


def _overlaid(ours: Mapping[str, Any], theirs: Mapping[str, Any], known: Mapping[str, Any], prefix: str) -> Json:
    merged = dict(ours)
    for key, value in theirs.items():
        dotted = f"{prefix}{key}"
        if isinstance(value, Mapping):
            below = ours.get(key)
            merged[key] = _overlaid(below if isinstance(below, Mapping) else {}, value, known, f"{dotted}.")
        elif value != AUTO:
            merged[key] = value
        elif key not in ours and dotted in known:
            merged[key] = known[dotted]
        elif dotted in _FILLED_LATE:
            merged[key] = AUTO
        # Drop any other "auto", so that DeepSpeed takes its own default.
    return merged


def user_json_of(run: RunConfig) -> Json | None:
    """Read the DeepSpeed file that a run names; None where `engine.deepspeed` names none."""
    return read_user_json(run.engine.deepspeed) if run.engine.deepspeed else None


def read_user_json(path: str | Path) -> Json:
    """Read a user's DeepSpeed file. Raises ConfigError, with line and column for invalid JSON."""
    try:
        config = parse_json(file_text(path))
    except FileNotFoundError:
        raise ConfigError(f"engine.deepspeed={str(path)!r} does not exist: give the path of a JSON file.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"engine.deepspeed={str(path)!r} cannot be read ({error}): give a readable file.") from error
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise ConfigError(f"engine.deepspeed={str(path)!r} is not JSON ({error.msg}, {where}): correct it.") from error
    except ValueError as error:
        raise ConfigError(f"engine.deepspeed={str(path)!r} cannot be used ({error}): correct it.") from error
    if not isinstance(config, dict):
        kind = type(config).__name__
        raise ConfigError(f"engine.deepspeed={str(path)!r} holds a {kind}, not an object: write {{...}}.")
    ConfigError.raise_if(
        f"engine.deepspeed={str(path)!r}: {key} looks like a secret, and the file is copied into the run's folder and "
        "into bundles, which are readable: take the key out, and set its environment variable (Comet's is "
        "COMET_API_KEY, that of Weights & Biases WANDB_API_KEY)."
        for key in _secrets_of(config)
    )
    return config


def _secrets_of(tree: Mapping[str, Any], above: str = "") -> Iterator[str]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _secrets_of(value, f"{above}{name}.")
        elif isinstance(value, str) and value and is_secret(name):
            yield f"{above}{name}"
