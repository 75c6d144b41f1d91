"""States which modules are changed, and which tests are nearest to each."""

from dataclasses import dataclass

BATCHING, CHECKPOINT, TRAINER = "ftsys/data/batching", "ftsys/train/checkpoint", "ftsys/train/trainer"
OF_DDP = "test_state.py::test_ddp_goes_on_bit_for_bit"
OF_STAGES = "test_state.py::test_a_state_fits_any_stage_and_world"
OF_SYNC = "tests/unit/files/test_synced_writers.py"
OF_BATCHING, OF_CHECKPOINT = "tests/unit/data/batching", "tests/unit/train/checkpoint"


@dataclass(frozen=True)
class Module:
    """A module and its nearest tests."""

    path: str
    tests: tuple[str, ...]
    """The fastest first: the first that fails ends a trial."""
    slow_tests: tuple[str, ...] = ()
    """Tests that start ranks. Only what has passed `tests` is tried by them."""


def _checkpoint(name: str, *tests: str, slow: str = "", others: tuple[str, ...] = ()) -> Module:
    slow_tests = (f"tests/distributed/{slow}",) if slow else ()
    own = tuple(f"{OF_CHECKPOINT}/{test}.py" for test in tests)
    return Module(f"{CHECKPOINT}/{name}.py", own + others, slow_tests)


def _batching(name: str, *tests: str) -> Module:
    return Module(f"{BATCHING}/{name}.py", tuple(f"{OF_BATCHING}/{test}.py" for test in tests))


def _trainer(name: str, *tests: str) -> Module:
    return Module(f"{TRAINER}/{name}.py", tests, ("tests/distributed/test_evaluation.py",))


TARGETS: dict[str, tuple[Module, ...]] = {
    "batching": (
        _batching("plan", "test_plan", "test_full_batches", "test_collate"),
        _batching("collate", "test_layouts", "test_collate"),
        _batching("loader", "test_loader", "test_collate", "test_size_buckets"),
        _batching("size_buckets", "test_size_buckets"),
        _batching("stock_order", "test_stock_order"),
    ),
    "metrics": (
        Module(
            "ftsys/metrics.py",
            tuple(f"tests/unit/test_{name}.py" for name in ("metric_limits", "metrics", "multi_label_metrics")),
        ),
    ),
    "evaluation": (
        _trainer("evaluation_loop", "tests/unit/train/trainer/test_evaluation_loop.py"),
        _trainer("predictions", "tests/unit/train/trainer/test_predictions.py"),
    ),
    "checkpoint files": (
        _checkpoint("files", "test_files", "test_catalog", others=(OF_SYNC,)),
        _checkpoint("manifest", "test_files", "test_catalog"),
    ),
    "checkpoint folders": (
        _checkpoint("catalog", "test_named_checkpoints", "test_catalog", "test_content"),
        _checkpoint("writer", "test_named_checkpoints", "test_catalog", "test_shard", others=(OF_SYNC,)),
        _checkpoint("background", "test_background"),
    ),
    "checkpoint barrier": (_checkpoint("store_barrier", "test_barrier_results", "test_store_barrier"),),
    "checkpoint state": (
        _checkpoint("training_state", "test_shard"),
        _checkpoint("optimizer_layout", "test_layout", "test_state_dict", "test_shard", slow=OF_DDP),
        _checkpoint("param_groups", "test_param_groups", "test_state_dict"),
        _checkpoint("rng_state", "test_rng_state"),
        _checkpoint("shard", "test_shard", slow=OF_DDP),
        _checkpoint("state_dict", "test_own_optimizers", "test_state_dict", slow=OF_STAGES),
        _checkpoint("transfer", "test_transfer", "test_state_dict", slow=OF_STAGES),
    ),
    "checkpoint under DeepSpeed": (_checkpoint("deepspeed_layout", "test_deepspeed_layout", slow=OF_STAGES),),
    "plan choices": (
        Module(
            "launcher/planner/choices.py",
            ("tests/unit/launcher/planner/test_plan.py", "tests/unit/launcher/planner/test_choices.py"),
        ),
    ),
    "sbatch": (
        Module(
            "launcher/slurm/batch_script.py",
            tuple(f"tests/unit/launcher/slurm/test_{name}.py" for name in ("limits", "batch_script")),
        ),
    ),
}
"""Modules by the name under which they are sampled together."""
