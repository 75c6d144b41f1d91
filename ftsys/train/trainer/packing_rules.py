"""Decides whether a user's data set may be packed, and gives the reason where it may not.

Packing must change nothing but the speed. Anything that the user, the model or an argument adds to the stock step or
evaluation, and that packing would leave out, is a reason for the stock data path.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
from torch import nn
from transformers import DataCollatorWithPadding, PreTrainedConfig, Trainer, TrainingArguments, default_data_collator
from transformers.trainer_pt_utils import LabelSmoother
from transformers.training_args import OptimizerNames

from ftsys.config.trainer_fields import KNOWN_TRAINER_FIELDS
from ftsys.data.store.in_memory import NotPackable, TokenizedSplit
from ftsys.errors import ConfigError, DataError
from ftsys.models.packed import why_not_packable
from ftsys.models.proof.alterations import why_altered
from ftsys.train.trainer.arguments import setting

_BOTH = ("compute_loss", "_prepare_inputs", "_prepare_input", "_get_dataloader", "_remove_unused_columns")
TRAINING_HOOKS = (
    *_BOTH, "training_step", "get_batch_samples", "_get_num_items_in_batch", "_get_train_sampler",
    "get_train_dataloader", "floating_point_ops",
)  # fmt: skip
EVALUATION_HOOKS = (
    *_BOTH, "prediction_step", "evaluation_loop", "_get_eval_sampler", "get_eval_dataloader", "get_test_dataloader",
)  # fmt: skip

_UNSETTLED = ("deberta-v2",)
"""Types of models whose own loss leaves a missing `problem_type` as it is."""


def why_padded(trainer: Trainer, base: type[Trainer], training: bool) -> str | None:
    """Return the first reason why `trainer` pads every data set, in training or in evaluation; None when it packs.

    `base` is the class whose methods support packing; a method that a subclass overrides does not.
    """
    hooks = TRAINING_HOOKS if training else EVALUATION_HOOKS
    own = [name for name in hooks if getattr(type(trainer), name) is not getattr(base, name) or name in vars(trainer)]
    if own:
        return f"{type(trainer).__name__}.{own[0]} is your own"
    if not setting(trainer.args, "packing"):
        return "packing=False"
    return (
        next(_collator_reasons(trainer), None)
        or next(_argument_reasons(trainer), None)
        or next(_training_reasons(trainer) if training else _evaluation_reasons(trainer), None)
        or next(_model_reasons(trainer.model), None)
    )


def why_not_unpadded(trainer: Trainer, training: bool) -> str | None:
    """Return the first reason why the model also computes the padding of stock batches; None where it leaves it out.

    Data, collator and loss are no reasons: outside the model, nothing of it is seen.
    """
    model, reasons = without_adapters(trainer.model), ["packing=False"]
    if setting(trainer.args, "packing"):
        reasons = [*_device_reasons(trainer), *_output_reasons(model)]
    if trainer.is_deepspeed_enabled:
        reasons.append("DeepSpeed runs the model")
    if training and trainer.neftune_noise_alpha is not None:
        reasons.append("NEFTune scales its noise by the padded length")
    if training and _recomputes(trainer) and any(_is_own(trainer, name) for name in ("compute_loss", "training_step")):
        # It may call the model twice before the backward pass, which would compute the layers of the first call again
        # with the dropout of the second.
        reasons.append("activations are computed again for a loss of the script's own")
    return next(iter(reasons), None) or why_altered(trainer.model)


def _is_own(trainer: Trainer, method: str) -> bool:
    known = getattr(type(trainer), method).__module__.startswith(("ftsys.", "transformers."))
    return not known or method in vars(trainer)


def _recomputes(trainer: Trainer) -> bool:
    """Return True where the backward pass computes activations again; the setting has two names."""
    asked = (getattr(trainer.args, f"{kind}_checkpointing", False) for kind in ("activation", "gradient"))
    return any(asked) or any(getattr(each, "gradient_checkpointing", False) for each in trainer.model.modules())


def without_adapters(model: Any) -> Any:
    """Return the transformers model within a model of peft; any other model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _collator_reasons(trainer: Trainer) -> Iterator[str]:
    collator = trainer.data_collator
    if type(collator) is DataCollatorWithPadding:
        if collator.return_tensors != "pt":
            yield f"the collator makes {collator.return_tensors!r} tensors"
        if getattr(collator.tokenizer, "padding_side", "right") != "right":
            yield "the tokenizer pads on the left"
    elif collator is not default_data_collator:
        yield f"the collator {getattr(collator, '__name__', type(collator).__name__)} may do anything to a batch"


def _argument_reasons(trainer: Trainer) -> Iterator[str]:
    """Yield reasons that hold in training and in evaluation."""
    args = trainer.args
    for field in dataclasses.fields(TrainingArguments):
        if field.name not in KNOWN_TRAINER_FIELDS and getattr(args, field.name) != field.default:
            yield f"{field.name}={getattr(args, field.name)!r} is an argument that this version of ftsys does not know"
    if trainer.compute_loss_func is not None:
        yield "compute_loss_func forms the loss of a whole batch"
    yield from _device_reasons(trainer)
    smoother = trainer.label_smoother
    epsilon = smoother.epsilon if type(smoother) is LabelSmoother else 0
    if epsilon != args.label_smoothing_factor or type(smoother) not in (LabelSmoother, type(None)):
        yield "label_smoother or label_smoothing_factor was changed after the Trainer was made"
    if trainer.label_names != ["labels"]:
        yield f"label_names={trainer.label_names!r}"


def _device_reasons(trainer: Trainer) -> Iterator[str]:
    """Yield what compiles, shards or spreads the model."""
    args = trainer.args
    if args.n_gpu > 1:
        yield f"one process drives {args.n_gpu} GPUs: start it with torchrun to have a process for each"
    if args.torch_compile:
        yield "torch_compile=True"
    if args.use_liger_kernel:
        yield "use_liger_kernel=True"
    if trainer.is_fsdp_enabled or trainer.is_fsdp_xla_enabled or args.parallelism_config is not None:
        yield "the model is sharded"
    if trainer.is_model_parallel or getattr(trainer.model, "hf_device_map", None) is not None:
        yield "the model lies on several devices"


def _training_reasons(trainer: Trainer) -> Iterator[str]:
    args, config = trainer.args, trainer.args.accelerator_config
    if trainer.neftune_noise_alpha is not None:
        yield "NEFTune scales its noise by the padded length"
    if args.auto_find_batch_size:
        yield "auto_find_batch_size=True"
    if config.split_batches or config.dispatch_batches or not config.use_seedable_sampler:
        yield "accelerator_config decides how batches are made"
    if args.optim in (OptimizerNames.LOMO, OptimizerNames.ADALOMO):
        yield f"optim={args.optim.value!r} steps within the backward pass"
    if trainer.is_deepspeed_enabled and args.gradient_accumulation_steps > 1:
        yield "DeepSpeed counts gradient_accumulation_steps itself"


def _evaluation_reasons(trainer: Trainer) -> Iterator[str]:
    args = trainer.args
    if args.batch_eval_metrics:
        yield "batch_eval_metrics=True"
    if not args.eval_do_concat_batches:
        yield "eval_do_concat_batches=False"
    if "inputs" in args.include_for_metrics:
        yield "include_for_metrics asks for the padded inputs"


def _model_reasons(model: nn.Module) -> Iterator[str]:
    reason = why_not_packable(model)
    if reason is not None:
        yield reason
        return
    kind = type(model)
    if not kind.__module__.startswith("transformers.models."):
        yield f"{kind.__name__} is a class of your own, and its loss may be too"
    if "forward" in vars(model) and "_original_forward" not in vars(model):  # accelerate's autocast keeps the original
        yield "the model's forward was replaced"
    if "_loss_function" in vars(model):
        yield "the model's loss function was replaced"
    if getattr(model, "_hf_peft_config_loaded", False):
        yield "the model has adapters"
    yield from _output_reasons(model)
    altered = why_altered(model)
    if altered is not None:
        yield altered


def _output_reasons(model: nn.Module) -> Iterator[str]:
    """Yield what a packed model does not return, or cannot compute."""
    reason = why_not_packable(model)
    if reason is not None:
        yield reason
        return
    config = model.config
    if config.output_hidden_states or config.output_attentions:
        yield "the model returns hidden states or attentions"
    if not config.return_dict:
        yield "the model returns tuples"
    if getattr(model, "hf_quantizer", None) is not None:
        yield "the model is quantized"


def with_labels_for(split: TokenizedSplit, config: PreTrainedConfig, loss_is_models: bool = True) -> TokenizedSplit:
    """Return the split with labels of the type that the model's loss takes.

    Where the stock step would use the model's own loss, a missing `problem_type` is set in its config, as it would.

    Raises:
        NotPackable: the problem has no single label, or labels are of another kind than it takes.
        ConfigError: labels are to be smoothed, and are no classes.
        DataError: a label is none of the model's classes.
    """
    whole_numbers, classes = split.labels.dtype == np.int64, config.num_labels
    by_labels = "single_label_classification" if whole_numbers else "multi_label_classification"
    problem = config.problem_type or ("regression" if classes == 1 else by_labels)
    if problem == "multi_label_classification" or (problem == "regression" and classes != 1):
        raise NotPackable(f"the problem is {problem!r} with {classes} outputs")
    if problem == "regression" and split.labelled and not loss_is_models:
        raise ConfigError(
            "label_smoothing_factor shares a label's weight among classes, and these labels are numbers: set it to 0."
        )
    if problem == "regression":
        labels = split.labels.astype(np.float64) if split.labelled else np.full(len(split), np.nan)
        found = dataclasses.replace(split, labels=labels)
    elif not whole_numbers:
        raise NotPackable("classes are given as numbers with a fraction")
    else:
        _check_classes(split, classes)
        found = split
    if loss_is_models and split.labelled and config.problem_type is None and config.model_type not in _UNSETTLED:
        config.problem_type = problem
    return found


def _check_classes(split: TokenizedSplit, classes: int) -> None:
    wrong = (split.labels < 0) | (split.labels >= classes)
    if split.labelled and wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise DataError(
            f"row {row} of the {split.name} data has label {split.labels[row]}, the model's labels are 0 to "
            f"{classes - 1}: make the model with num_labels={int(split.labels.max()) + 1}, or correct the labels "
            "(-1 in every row stands for a set without labels)."
        )


def check_fits(split: TokenizedSplit, model: Any, positions: int | None) -> None:
    """Compare tokens with the model's tables. Raises DataError for a row that is too long or an unknown token."""
    longest = int(split.lengths.max())
    if positions is not None and longest > positions:
        raise DataError(
            f"row {int(split.lengths.argmax())} of the {split.name} data has {longest} tokens, the model has "
            f"{positions} positions: tokenize with truncation=True, max_length={positions}."
        )
    known, highest = model.get_input_embeddings().num_embeddings, int(split.tokens.max())
    if highest >= known:
        raise DataError(
            f"the {split.name} data holds token {highest}, the model knows {known} tokens: tokenizer and model do not "
            "belong together, or model.resize_token_embeddings is due."
        )
