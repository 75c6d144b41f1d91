"""The private names of other libraries that ftsys uses or overrides: a new version may take them away unannounced.

A row is (place, names, why). The place is a module, or `module:Class`, or another attribute of it.
`tests/parity/test_private_names.py` looks each name up in the installed version, and fails for a private name in our
sources that has no row here.
"""

from typing import NamedTuple


class Private(NamedTuple):
    """Private names in one place of a library, and what we need them for."""

    place: str
    names: str
    why: str


OVERRIDDEN = Private(
    "transformers:Trainer",
    "_clip_grad_norm _evaluate _get_grad_norm _inner_training_loop _load_best_model _load_from_checkpoint "
    "_load_rng_state _maybe_log_save_evaluate _prepare_for_training _run_epoch _save_checkpoint "
    "_track_num_input_tokens",
    "methods that ComposedTrainer overrides: without them the stock code would run unseen",
)
PRIVATE = (
    OVERRIDDEN,
    Private(
        "transformers:Trainer",
        "_determine_best_metric _get_output_dir _load_optimizer_and_scheduler _move_model_to_device "
        "_push_from_checkpoint _save _set_signature_columns_if_needed",
        "stock methods that ours call",
    ),
    Private(
        "transformers:Trainer",
        "_globalstep_last_logged _signature_columns _tr_loss _train_batch_size",
        "the stock loop's own counters",
    ),
    Private("transformers:TrainingArguments", "_n_gpu", "one device a rank"),
    Private("transformers:PreTrainedConfig", "_attn_implementation", "the attention function of a packed view"),
    Private("transformers:PreTrainedModel", "_hf_peft_config_loaded", "tells models with adapters"),
    Private("transformers:PreTrainedTokenizerFast", "_tokenizer", "the tokenizers library's own object"),
    Private("accelerate:Accelerator", "_models", "the prepared model in evaluation"),
    Private("accelerate.state:GradientState", "_set_sync_gradients", "a step without accumulation"),
    Private("accelerate.optimizer:AcceleratedOptimizer", "_is_overflow", "a skipped step leaves the schedule alone"),
    Private("datasets:Dataset", "_fingerprint", "identity of a data set in memory"),
    Private("optuna.trial:FrozenTrial", "_trial_id", "takes over the trial of a dead process"),
    Private("torch", "_dynamo", "compiled kernels"),
    Private(
        "torch",
        "_foreach_add_ _foreach_copy_ _foreach_norm _foreach_zero_ _fused_adamw_",
        "the optimizer's passes over many tensors",
    ),
    Private(
        "torch:ops.mkldnn",
        "_is_mkldnn_bf16_supported _linear_pointwise _reorder_linear_weight",
        "linear layers with weights in oneDNN's order; without these operators, torch's own function computes them",
    ),
    Private("torch.nn.modules.batchnorm", "_NormBase", "models with batch statistics are not packed"),
    Private("deepspeed.ops", "__compatible_ops__", "leaves out an op that would be compiled at every start"),
    Private("torch.optim:AdamW", "_step_supports_amp_scaling", "tells optimizers that skip by themselves"),
    Private("torch._dynamo.eval_frame:OptimizedModule", "_orig_mod", "the module inside a compiled one"),
    Private(
        "torch.nn:Module",
        "_backward_hooks _backward_pre_hooks _buffers _forward_hooks _forward_pre_hooks _non_persistent_buffers_set",
        "modules with hooks or own buffers are left as they are",
    ),
    Private("torch:Tensor", "_backward_hooks", "weights with hooks are left as they are"),
    Private("torch:UntypedStorage", "_cdata", "tells tensors that share memory"),
    Private("torch.distributed.distributed_c10d", "_get_default_store", "notes between ranks, without a collective"),
    Private("torch.distributed.distributed_c10d", "_set_pg_timeout", "ranks meet soon, and may compute for days then"),
    Private("torch.utils._python_dispatch", "TorchDispatchMode", "`ftsys bench` counts operations"),
    Private("torch.utils._pytree", "tree_leaves", "`ftsys bench` finds tensors"),
    Private("torch._subclasses.fake_tensor", "FakeTensorMode", "`ftsys bench memory`"),
    Private("torch.distributed._tools.mem_tracker", "MemTracker", "`ftsys bench memory`"),
)
PYTHONS_OWN = "_actions _ActionsContainer _current_frames _exit _option_string_actions".split()
"""Names of Python's standard library with an underscore: documented, or unchanged since Python 2."""
