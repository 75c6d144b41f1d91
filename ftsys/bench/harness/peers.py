"""Who is measured against whom: a row for each way to train or predict, and what a peer's process is told."""

import importlib.util
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ftsys.bench.harness.inputs import Inputs
from ftsys.errors import ConfigError


@dataclass(frozen=True)
class Peer:
    """One way to do it. `how` names its loop in `peer_loops`; `batch` counts examples of an optimizer step."""

    how: str
    batch: int
    precision: str
    says: str
    length_grouped: bool = False
    whole_in_bf16: bool = False
    """Evaluation with bf16 weights in place of autocast."""
    cuda_graphs: bool = False
    needs: str = ""
    """A package that ftsys itself does not need."""


OURS = "ours"
PEERS: dict[str, Peer] = {
    OURS: Peer("ours", 32, "bf16", "ftsys: packed, bf16 weights with float32 masters, batch 32, random order"),
    "ours-8": Peer("ours", 8, "bf16", "ftsys: packed, bf16 weights with float32 masters, batch 8, random order"),
    "ours-grouped": Peer("ours", 32, "bf16", "as ours, in batches of like lengths", length_grouped=True),
    "ours-graphs": Peer("ours", 32, "bf16", "as ours, its passes recorded and replayed (GPU)", cuda_graphs=True),
    "course": Peer("stock", 8, "fp32", "stock Trainer, the course's recipe: fp32, batch 8, random order"),
    "best": Peer("stock", 32, "bf16", "stock Trainer, its best recipe: bf16 autocast, batch 32, length-grouped", True),
    "accelerate": Peer("accelerate", 32, "bf16", "accelerate's plain loop: bf16 autocast, batch 32, random order"),
    "cross-encoder": Peer(
        "cross-encoder",
        32,
        "bf16",
        "sentence-transformers' CrossEncoderTrainer: bf16 autocast, batch 32, random order, tokenizes every batch",
        needs="sentence_transformers",
    ),
    "bf16-weights": Peer(
        "stock", 32, "bf16", "stock Trainer with bf16_full_eval, batch 32, length-grouped", True, whole_in_bf16=True
    ),
}


@dataclass(frozen=True)
class Spec:
    """All that a peer's process is told; travels as JSON."""

    mode: str
    """"step", "train", "eval" or "matmul": a function of `peer_loops`."""
    peer: str
    model: str
    """The model's folder."""
    store: str
    stock: str
    work: str
    """A folder for what a Trainer writes."""
    batch: int | None = None
    """Examples of an optimizer step, in place of the peer's own number."""
    tokens: int | None = None
    """Real tokens of an optimizer step at most, in place of a number of examples: ours alone."""
    steps: int = 4
    """Optimizer steps of a block ("step")."""
    epochs: int = 1
    """Of a training ("train")."""
    evaluates: bool = True
    """Whether a training evaluates after each epoch."""
    split: str = "validation"
    """What is predicted ("eval")."""
    cpus: tuple[int, ...] = ()
    """CPUs that this process is bound to; none: all that it may use."""

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Spec":
        """The inverse of `to_json`."""
        values = json.loads(text)
        return cls(**{**values, "cpus": tuple(values["cpus"])})

    @property
    def recipe(self) -> Peer:
        """The peer's row."""
        return PEERS[self.peer]

    @property
    def examples(self) -> int:
        """Of an optimizer step."""
        return self.batch or self.recipe.batch


def check_peers(names: Sequence[str], known: Sequence[str]) -> None:
    """Raise ConfigError for a peer that the benchmark does not have."""
    ConfigError.raise_if(
        f"--peers {name!r} is not a peer of this benchmark. Use some of {list(known)}."
        for name in names
        if name not in known
    )


def installed(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """The peers that can run here, and a line for each that cannot."""
    missing = [name for name in names if PEERS[name].needs and importlib.util.find_spec(PEERS[name].needs) is None]
    lines = [
        f"{name}: left out, because {PEERS[name].needs} is not installed (pip install 'ftsys[bench]')"
        for name in missing
    ]
    return [name for name in names if name not in missing], lines


def peer_spec(mode: str, peer: str, model: Path, inputs: Inputs, work: Path) -> Spec:
    """The spec of one peer, with a folder of its own below `work`."""
    return Spec(mode, peer, str(model), str(inputs.store), str(inputs.stock), str(work / f"{mode}-{peer}"))
