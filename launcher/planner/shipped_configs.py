"""Writes the DeepSpeed files of configs/deepspeed, one for each valid ZeRO stage, precision and offload."""

from collections.abc import Iterator
from pathlib import Path

from ftsys.config import build_run, lowest_stage
from ftsys.files.atomic import atomic_write_text
from launcher.planner.deepspeed_config import AUTO, deepspeed_config, file_name, to_text
from launcher.planner.plan import World, make_plan

NVME_PATH = "/local_nvme"
"""Folder for NVMe offload in the shipped files; users change it to a folder of their machine."""

_DEPEND_ON_THE_RUN = ("train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "gradient_clipping")


def combinations() -> Iterator[tuple[int, str, str]]:
    """Yield (ZeRO stage, precision, offload), as a run file writes them."""
    for stage in range(4):
        for offload in ("none", "optimizer", "parameters", f"nvme:{NVME_PATH}"):
            if stage >= lowest_stage(offload):
                yield from ((stage, precision, offload) for precision in ("bf16", "fp16", "fp32"))


def shipped_files() -> dict[str, str]:
    """Return file name -> text. Values that depend on the run are "auto": ftsys and the stock Trainer fill them in."""
    files: dict[str, str] = {}
    for stage, precision, offload in combinations():
        engine = {"zero_stage": stage, "precision": precision, "offload": offload, "backend": "deepspeed"}
        run = build_run({"output_dir": "runs/any", "task": {"name": "mrpc"}, "engine": engine})
        plan = make_plan(run, World(ranks=8, local_ranks=8, device="cuda", bf16_supported=True))
        config = deepspeed_config(plan, run) | dict.fromkeys(_DEPEND_ON_THE_RUN, AUTO)
        files[file_name(plan)] = to_text(config)
    return files


def write_shipped(folder: Path) -> list[Path]:
    """Write every shipped file into a folder, created if missing; returns their paths. Raises StorageError."""
    paths = []
    for name, text in shipped_files().items():
        path = folder / name
        atomic_write_text(path, text)
        paths.append(path)
    return paths
