"""Translates arguments of transformers 4 that transformers 5 dropped into today's, with their old meaning.

A name is accepted with one warning that gives today's name, or refused where transformers 5 cannot do the same.
"""

import functools
import inspect
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ftsys.did_you_mean import nearest
from ftsys.ranks import is_main_rank

Today = dict[str, Any]


@dataclass(frozen=True)
class Old:
    """Translation of one dropped name.

    `today` gives today's arguments for a value, and may refuse it with ValueError. `advice` is what the warning says
    to write.
    """

    today: Callable[[Any], Today]
    advice: str


def _renamed(name: str) -> Old:
    return Old(lambda value: {} if value is None else {name: value}, f"write {name}")


def _switch(advice: str, **when_true: Any) -> Old:
    return Old(lambda value: dict(when_true) if value else {}, advice)


def _nested(outer: str, inner: str) -> Old:
    """Translate a name that is a key of a dictionary today; an empty value meant that it was not given."""
    return Old(
        lambda value: {} if value in (None, 0, "") and value is not False else {outer: {inner: value}},
        f'write {outer}={{"{inner}": ...}}',
    )


def _without_effect(why: str, *values: Any) -> Old:
    """Accept only `values`, which ask for what happens anyway; without `values`, accept any."""

    def today(value: Any) -> Today:
        if values and value not in values:
            raise ValueError(f"it was removed from transformers 5 and cannot be honoured: {why}")
        return {}

    return Old(today, f"leave it out: {why}")


def _warmup_ratio(value: float) -> Today:
    if not 0 <= value <= 1:
        raise ValueError("a fraction of all steps lies between 0 and 1")
    # A warmup_steps below 1 is a fraction of all steps; 1 itself would be one step.
    return {"warmup_steps": min(float(value), math.nextafter(1.0, 0.0))} if value else {}


def _half_precision_backend(value: str) -> Today:
    if value not in ("auto", "amp", "cuda_amp", "cpu_amp"):
        raise ValueError("torch's own autocast is the only backend: leave it out, and set fp16 or bf16")
    return {}


_SAFETENSORS = "safetensors is the only format"
_AUTOCAST = Old(_half_precision_backend, "leave it out: torch's own autocast is the only backend")
_INDUCTOR = "torch_compile=True compiles a model"
OLD_ARGUMENTS: dict[str, Old] = {
    "adafactor": _switch('write optim="adafactor"', optim="adafactor"),
    "dispatch_batches": _nested("accelerator_config", "dispatch_batches"),
    "evaluate_during_training": _switch('write eval_strategy="steps"', eval_strategy="steps"),
    "evaluation_strategy": _renamed("eval_strategy"),
    "fp16_backend": _AUTOCAST,
    "fp16_opt_level": _without_effect("it was for apex, and torch's own autocast has no levels"),
    "fsdp_min_num_params": _nested("fsdp_config", "min_num_params"),
    "fsdp_transformer_layer_cls_to_wrap": _nested("fsdp_config", "transformer_layer_cls_to_wrap"),
    "group_by_length": _switch(
        'write train_sampling_strategy="group_by_length"', train_sampling_strategy="group_by_length"
    ),
    "half_precision_backend": _AUTOCAST,
    "include_inputs_for_metrics": _switch('write include_for_metrics=["inputs"]', include_for_metrics=["inputs"]),
    "include_tokens_per_second": _switch(
        'write include_num_input_tokens_seen="all"', include_num_input_tokens_seen="all"
    ),
    "jit_mode_eval": _without_effect(_INDUCTOR, False, None),
    "logging_dir": Old(lambda value: {}, "set the environment variable TENSORBOARD_LOGGING_DIR"),
    "mp_parameters": _without_effect("SageMaker's model parallelism is configured by SageMaker", "", None),
    "no_cuda": _renamed("use_cpu"),
    "overwrite_output_dir": _without_effect("a Trainer never read it, the example scripts did"),
    "past_index": _without_effect("a sequence classifier has no past", -1, None),
    "per_gpu_eval_batch_size": _renamed("per_device_eval_batch_size"),
    "per_gpu_train_batch_size": _renamed("per_device_train_batch_size"),
    "push_to_hub_model_id": _renamed("hub_model_id"),
    "push_to_hub_token": _renamed("hub_token"),
    "push_to_hub_organization": _without_effect('the organization is part of hub_model_id="ORGANIZATION/NAME"', None),
    "ray_scope": _without_effect('give it to the search: trainer.hyperparameter_search(scope="...")', "last", None),
    "save_safetensors": _without_effect(_SAFETENSORS, True, None),
    "sharded_ddp": _without_effect("fsdp or deepspeed shard weights", "", False, None, []),
    "split_batches": _nested("accelerator_config", "split_batches"),
    "torchdynamo": Old(lambda value: {"torch_compile_backend": value} if value else {}, "write torch_compile_backend"),
    "tpu_metrics_debug": _switch('write debug="tpu_metrics_debug"', debug="tpu_metrics_debug"),
    "tpu_num_cores": _without_effect("the launcher decides how many processes there are"),
    "use_ipex": _without_effect("torch itself does what ipex did", False, None),
    "use_legacy_prediction_loop": _without_effect("there is one evaluation loop", False, None),
    "use_mps_device": _without_effect("an mps device is used where there is one", True, False, None),
    "warmup_ratio": Old(_warmup_ratio, "write warmup_steps, which below 1 is a fraction of all steps"),
    "xpu_backend": _renamed("ddp_backend"),
}
"""Arguments of transformers 4's TrainingArguments that transformers 5 has no longer."""

KEPT_AS_ATTRIBUTES = ("logging_dir", "overwrite_output_dir")
"""Old arguments that scripts read back from the object."""

OLD_TRAINER_ARGUMENTS: dict[str, Old] = {"tokenizer": _renamed("processing_class")}
"""The same for the constructor of Trainer."""


NEW_PARAMETERS = {
    "compute_loss": "num_items_in_batch",
    "create_optimizer": "model",
    "log": "start_time",
    "training_step": "num_items_in_batch",
}
"""Methods of Trainer that scripts override, and the parameter that they did not have in transformers 4."""


def accept_old_methods(kind: type) -> None:
    """Let the methods that the class `kind` overrides have their parameters of transformers 4.

    What they lack is left out when they are called; one warning for each names it.
    """
    for name, parameter in NEW_PARAMETERS.items():
        method = vars(kind).get(name)
        if inspect.isfunction(method) and not _takes(method, parameter):
            setattr(kind, name, _without(method, parameter))
            if is_main_rank():
                warnings.warn(
                    f"{kind.__name__}.{name} is a method of transformers 4: give it the parameter {parameter}=None.",
                    FutureWarning,
                    stacklevel=3,
                )


def is_old(method: Any) -> bool:
    """Return True for a method that `accept_old_methods` has changed."""
    return hasattr(method, "without_parameter")


def _takes(method: Callable[..., Any], parameter: str) -> bool:
    parameters = inspect.signature(method).parameters
    return parameter in parameters or any(
        each.kind in (each.VAR_KEYWORD, each.VAR_POSITIONAL) for each in parameters.values()
    )


def _without(method: Callable[..., Any], parameter: str) -> Callable[..., Any]:
    most = len(inspect.signature(method).parameters)

    @functools.wraps(method)
    def called(*positional: Any, **named: Any) -> Any:
        named.pop(parameter, None)
        return method(*positional[:most], **named)

    called.without_parameter = parameter  # type: ignore[attr-defined]  # read by `is_old`
    return called


def todays(
    given: Mapping[str, Any], table: Mapping[str, Old], known: frozenset[str], owner: str, stacklevel: int
) -> Today:
    """Return `given` under today's names, with a warning for each old one.

    Raises:
        TypeError: a name that was never there, with the nearest one; or an old name together with today's.
        ValueError: an old name whose value cannot be honoured.
    """
    unknown = [name for name in given if name not in known and name not in table]
    if unknown:
        raise TypeError(_unknown(unknown[0], owner, known | set(table)))
    named = {name: value for name, value in given.items() if name in known}
    for name in (name for name in given if name not in known):
        for today, value in _translated(name, given[name], table[name], owner).items():
            if isinstance(value, dict) and isinstance(named.get(today), dict):
                value = {**named[today], **value}
            elif today in given:
                raise TypeError(f"{owner} got both {name!r} and {today!r}, today's name for it: give one of them")
            named[today] = value
        if is_main_rank():
            warnings.warn(
                f"{owner}: {name!r} is a name of transformers 4: {table[name].advice}.",
                FutureWarning,
                stacklevel=stacklevel,
            )
    return named


def _translated(name: str, value: Any, old: Old, owner: str) -> Today:
    try:
        return old.today(value)
    except ValueError as error:
        raise ValueError(f"{owner}: {name}={value!r} cannot be used: {error}") from error


def _unknown(name: str, owner: str, known: frozenset[str] | set[str]) -> str:
    near = nearest(name, known)
    hint = f"did you mean {near!r}?" if near else "leave it out"
    return f"{owner} has no argument {name!r}: {hint}"
