"""Lists the cases of the memory benchmark (models, engines, batches), and measures a case."""

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ftsys.bench.harness.local_ranks import rank_variables
from ftsys.console.child_python import python_command
from ftsys.ranks import free_port
from launcher.planner.cost.activations import MicroBatch
from launcher.planner.cost.memory import Memory, Setting, predicted_memory
from launcher.planner.model_shape import model_shape

LARGE = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
MODELS: dict[str, dict[str, Any]] = {
    "MiniLM-L6": {"model_type": "bert", "hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 6},
    "BERT-base": {"model_type": "bert"},
    "BERT-large": {"model_type": "bert", **LARGE},
    "RoBERTa-large": {
        "model_type": "roberta",
        **LARGE,
        "vocab_size": 50265,
        "max_position_embeddings": 514,
        "type_vocab_size": 1,
    },
    "ModernBERT-base": {"model_type": "modernbert"},
}
SECONDS = 900.0
"""Time limit of a case's ranks."""


class MeasurementFailed(RuntimeError):
    """A rank printed no result; the message has the end of its log."""


@dataclass(frozen=True)
class Case:
    """One row of the table."""

    model: str
    setting: Setting
    batch: MicroBatch
    micro_batches: int = 1
    how: str = "ranks"
    """"ranks": live tensors of real gloo ranks; "fake": torch's fake tensors; "none": predicted, not verified."""

    @property
    def name(self) -> str:
        """Return a name with every setting of the case."""
        setting = self.setting
        engine = {"none": "torch", "ddp": "DDP"}.get(setting.backend, f"ZeRO {setting.zero_stage}")
        words = [self.model, f"{setting.ranks} x {setting.device}", engine, setting.precision]
        words += [f"offload {setting.offload}"] if setting.offload != "none" else []
        words += ["recomputed"] if setting.checkpointing else []
        return ", ".join([*words, f"{self.micro_batches} x {self.batch.tokens}/{self.batch.length} tokens"])

    def predict(self) -> Memory:
        """Predict the memory of the case."""
        return predicted_memory(model_shape(MODELS[self.model], 2), self.batch, self.micro_batches, self.setting)

    @property
    def predicted_bytes(self) -> int:
        """Return the predicted live bytes; on a CPU the offloaded parts are in the same memory and count too."""
        memory = self.predict()
        return memory.total + (memory.parts.host if self.setting.device == "cpu" else 0)

    def measured(self) -> dict[str, int]:
        """Measure the bytes by part at the peak, and their "total", on the rank with the highest peak."""
        if self.how == "fake":
            from ftsys.bench.memory_parts.fake_step import fake_step_bytes

            setting = self.setting
            shape = (self.batch.tokens, self.batch.length)
            return fake_step_bytes(MODELS[self.model], setting.precision, setting.checkpointing, *shape)
        return _of_ranks(self)


ENGINES = (
    *((stage, "none") for stage in range(4)),
    *((stage, "optimizer") for stage in (1, 2, 3)),
    (3, "parameters"),
)


def cases() -> Iterator[Case]:
    """Yield all cases: first those that take seconds, then those with ranks, then those that need a GPU."""
    yield from (case for model in MODELS for case in _fake(model))
    yield from _on_ranks("MiniLM-L6", MicroBatch(1024, 128))
    yield from _more_of_minilm()
    yield from _on_ranks("BERT-base", MicroBatch(512, 128))
    yield from (case for model in MODELS for case in _not_verified(model))


def _fake(model: str) -> Iterator[Case]:
    for precision in ("fp32", "bf16"):
        for again in (False, True):
            setting = Setting("none", 0, precision, "none", again, 1, "cpu", kernel="padded")
            yield Case(model, setting, MicroBatch(4096, 128), how="fake")


def _on_ranks(model: str, batch: MicroBatch) -> Iterator[Case]:
    yield from (Case(model, Setting("ddp", 0, "bf16", "none", again, 2, "cpu"), batch) for again in (False, True))
    for stage, offload in ENGINES:
        for again in (False, True):
            yield Case(model, Setting("deepspeed", stage, "bf16", offload, again, 2, "cpu"), batch)


def _more_of_minilm() -> Iterator[Case]:
    """Yield cases with float32, more ranks, several micro-batches and long sequences."""
    batch = MicroBatch(1024, 128)
    for stage in range(4):
        plain = Setting("deepspeed", stage, "bf16", "none", False, 2, "cpu")
        yield Case("MiniLM-L6", replace(plain, precision="fp32"), batch)
        yield Case("MiniLM-L6", plain, batch, micro_batches=2)
        if stage:
            yield Case("MiniLM-L6", replace(plain, ranks=4), batch)
    yield Case("MiniLM-L6", Setting("none", 0, "bf16", "none", False, 1, "cpu"), MicroBatch(2048, 512))
    yield Case("MiniLM-L6", Setting("none", 0, "fp32", "none", False, 1, "cpu"), MicroBatch(2048, 128))


def _not_verified(model: str) -> Iterator[Case]:
    """Yield cases of eight GPUs, which are predicted only."""
    for stage, offload in ENGINES:
        for again in (False, True):
            backend: Any = "deepspeed" if stage else "ddp"
            setting = Setting(backend, stage, "bf16", offload, again, 8, "cuda")
            yield Case(model, setting, MicroBatch(16_384, 128), how="none")


def _of_ranks(case: Case) -> dict[str, int]:
    """Run the case's ranks and read their results. Raises MeasurementFailed where a rank prints none."""
    with tempfile.TemporaryDirectory(prefix="ftsys-bench-memory-") as work:
        found = _run_ranks(case, Path(work))
    fullest = max(found, key=lambda rank: rank["peak"])
    return {**fullest["parts"], "total": fullest["peak"]}


def _run_ranks(case: Case, work: Path) -> list[dict[str, Any]]:
    from ftsys.bench.memory_parts.rank import STEPS, make_store

    ranks, share = case.setting.ranks, case.batch.sequences * case.micro_batches
    store = make_store(work, ranks * share * STEPS, case.batch.length, 30522)
    words = json.dumps(
        {"run": _run_tree(case, work, ranks * share, STEPS), "store": str(store), "model": MODELS[case.model]}
    )
    port = free_port()
    processes = []
    try:
        for rank in range(ranks):
            with (work / f"rank-{rank}.log").open("w") as log:
                command = python_command("-m", "ftsys.bench.memory_parts.rank", words)
                environment = _environment(rank, ranks, port)
                processes.append(
                    subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=log, text=True)
                )
        outputs = [process.communicate(timeout=SECONDS)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [_answer(output, work / f"rank-{rank}.log", case) for rank, output in enumerate(outputs)]


def _run_tree(case: Case, work: Path, global_size: int, steps: int) -> dict[str, Any]:
    setting = case.setting
    return {
        "output_dir": str(work / "run"),
        "task": {"name": "mrpc"},
        "data": {"max_length": case.batch.length},
        "batch": {"global_size": global_size, "micro_tokens": case.batch.tokens},
        "train": {"max_steps": steps, "eval_every": "never", "save_every": "never"},
        "engine": {
            "precision": setting.precision,
            "backend": setting.backend,
            "zero_stage": setting.zero_stage,
            "offload": setting.offload,
            "activation_checkpointing": setting.checkpointing,
        },
    }


def _environment(rank: int, ranks: int, port: int) -> dict[str, str]:
    threads = {"OMP_NUM_THREADS": str(max(1, len(os.sched_getaffinity(0)) // ranks)), "DS_ACCELERATOR": "cpu"}
    return os.environ | threads | rank_variables(rank, ranks, port)


def _answer(output: str, log: Path, case: Case) -> dict[str, Any]:
    for line in output.splitlines():
        if line.startswith('{"rank"'):
            answer: dict[str, Any] = json.loads(line)
            return answer
    raise MeasurementFailed(f"{case.name}: a rank printed no result:\n{log.read_text()[-2000:]}")
