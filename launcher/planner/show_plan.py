"""Formats a plan as lines of text."""

from launcher.planner.plan import Plan


def show_plan(plan: Plan) -> str:
    """Format the choices with their reasons, the batch arithmetic and the notes; ends with a newline."""
    lines = [_ranks(plan), "", *_choices(plan), "", *_arithmetic(plan)]
    lines += [f"note: {note}" for note in plan.notes]
    return "\n".join(lines) + "\n"


def _ranks(plan: Plan) -> str:
    nodes = f" on {plan.nodes} machines" if plan.nodes > 1 else ""
    memory = plan.predicted["device_memory"] if plan.predicted else None
    each = f", {memory / 2**30:.1f} GiB each" if memory else ""
    return f"{plan.ranks} {plan.device} rank{'s' if plan.ranks > 1 else ''}{nodes}{each}"


def _choices(plan: Plan) -> list[str]:
    values = {
        "backend": plan.backend,
        "zero_stage": plan.zero_stage,
        "precision": plan.precision,
        "order": plan.order,
        "micro_tokens": plan.micro_tokens,
        "activation_checkpointing": "on" if plan.activation_checkpointing else "off",
        "compile": "on" if plan.compile else "off",
        "cuda_graphs": "on" if plan.cuda_graphs else "off",
    }
    labels = {"activation_checkpointing": "recomputation", "cuda_graphs": "CUDA graphs"}
    return [f"{labels.get(name, name):13} {value!s:15} {plan.reasons[name]}" for name, value in values.items()]


def _arithmetic(plan: Plan) -> list[str]:
    lines = [f"global batch  {_global_batch(plan)}"]
    if plan.predicted is not None:
        count = plan.predicted["micro_batches"]
        lines.append(f"accumulation  {count} micro-batch{'es' if count > 1 else ''} a step where examples are longest")
    return [*lines, f"steps         {_steps(plan)}", f"warm-up       {_warm_up(plan.warmup_steps)}"]


def _global_batch(plan: Plan) -> str:
    if plan.global_size is None:
        return f"at most {plan.global_tokens:,} tokens a step"
    each = f"{plan.rank_examples}" + (f" or {plan.largest_rank_examples}" if plan.ranks_with_one_more else "")
    return f"{plan.global_size} examples a step, {each} a rank, in as many micro-batches as the tokens need"


def _steps(plan: Plan) -> str:
    length = f"{plan.epochs:g} epochs" if plan.epochs is not None else "max_steps"
    if plan.total_steps is None:
        return f"unknown until the training rows are counted ({length})"
    each = "" if plan.steps_per_epoch is None else f"{plan.steps_per_epoch:,} an epoch, "
    return f"{each}{plan.total_steps:,} in all ({length})"


def _warm_up(steps: int | None) -> str:
    return "unknown" if steps is None else f"{steps:,} steps"
