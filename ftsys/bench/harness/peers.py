"""Lists the peers, one row for each way to train or predict, and defines the spec for a peer's process."""

import importlib.util
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ftsys.bench.harness.inputs import Inputs
from ftsys.bench.harness.precision import faster_precision
from ftsys.errors import ConfigError


@dataclass(frozen=True)
class Peer:
    """One way to train or predict. `how` names its loop in `peer_loops`; `batch` is the examples per optimizer step."""

    how: str
    batch: int
    precision: str
    """"fp32", "bf16" or FASTER."""
    description: str
    length_grouped: bool = False
    whole_in_bf16: bool = False
    """True for evaluation with bf16 weights in place of autocast."""
    cuda_graphs: bool = False
    needs: str = ""
    """A package that the peer needs and ftsys does not."""

    @property
    def precision_here(self) -> str:
        """Return "fp32" or "bf16"; FASTER depends on this machine."""
        return faster_precision() if self.precision == FASTER else self.precision

    @property
    def description_here(self) -> str:
        """Return the description with the precision on this machine."""
        return f"{self.description}; {self.precision_here}"


FASTER = "faster"
"""The faster one of bf16 and fp32 here. In bf16, ours has bf16 weights with float32 masters, and others autocast."""
OURS = "ours"
PEERS: dict[str, Peer] = {
    OURS: Peer("ours", 32, FASTER, "ftsys: packed, batch 32, random order"),
    "ours-8": Peer("ours", 8, FASTER, "ftsys: packed, batch 8, random order"),
    "ours-grouped": Peer("ours", 32, FASTER, "as ours, in batches of similar lengths", length_grouped=True),
    "ours-graphs": Peer("ours", 32, FASTER, "as ours, with CUDA graphs (GPU)", cuda_graphs=True),
    "course": Peer("stock", 8, "fp32", "stock Trainer, the course's recipe: fp32, batch 8, random order"),
    "best": Peer("stock", 32, FASTER, "stock Trainer, its best recipe: batch 32, length-grouped", True),
    "accelerate": Peer("accelerate", 32, FASTER, "accelerate's plain loop: batch 32, random order"),
    "cross-encoder": Peer(
        "cross-encoder",
        32,
        FASTER,
        "sentence-transformers' CrossEncoderTrainer: batch 32, random order, tokenizes every batch",
        needs="sentence_transformers",
    ),
    "bf16-weights": Peer(
        "stock", 32, "bf16", "stock Trainer with bf16_full_eval, batch 32, length-grouped", True, whole_in_bf16=True
    ),
}


@dataclass(frozen=True)
class Spec:
    """The task of a peer's process; passed to it as JSON."""

    mode: str
    """"step", "train", "eval" or "matmul": a function of `peer_loops`."""
    peer: str
    model: str
    """The model's folder."""
    store: str
    stock: str
    work: str
    """Output folder of the Trainer."""
    batch: int | None = None
    """Examples per optimizer step, in place of the peer's own number."""
    tokens: int | None = None
    """Largest number of real tokens per optimizer step, in place of a number of examples; only for ours."""
    steps: int = 4
    """Optimizer steps per block, for mode "step"."""
    seconds: float = 0.0
    """Least seconds of a block, for mode "step": it goes on after its last step until they have passed."""
    epochs: int = 1
    """Epochs of a training, for mode "train"."""
    evaluates: bool = True
    """True where a training evaluates after each epoch."""
    split: str = "validation"
    """Split to predict, for mode "eval"."""
    precision: str = "fp32"
    """"fp32" or "bf16"."""
    cpus: tuple[int, ...] = ()
    """CPUs that the process is bound to; empty: no binding."""

    def to_json(self) -> str:
        """Return one line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Spec":
        """Read the line that `to_json` returned."""
        values = json.loads(text)
        return cls(**{**values, "cpus": tuple(values["cpus"])})

    @property
    def recipe(self) -> Peer:
        """Return the peer's row."""
        return PEERS[self.peer]

    @property
    def examples(self) -> int:
        """Return the examples per optimizer step."""
        return self.batch or self.recipe.batch


def check_peers(names: Sequence[str], known: Sequence[str]) -> None:
    """Raise ConfigError for a peer that the benchmark does not have."""
    ConfigError.raise_if(
        f"--peers {name!r} is not a peer of this benchmark. Use some of {list(known)}."
        for name in names
        if name not in known
    )


def installed(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the peers whose packages are installed, and a line for each of the others."""
    missing = [name for name in names if PEERS[name].needs and importlib.util.find_spec(PEERS[name].needs) is None]
    lines = [
        f"{name}: left out, because {PEERS[name].needs} is not installed (pip install 'ftsys[bench]')"
        for name in missing
    ]
    return [name for name in names if name not in missing], lines


def peer_spec(mode: str, peer: str, model: Path, inputs: Inputs, work: Path) -> Spec:
    """Create the spec of one peer, with its own folder below `work`."""
    folders = (str(model), str(inputs.store), str(inputs.stock), str(work / f"{mode}-{peer}"))
    return Spec(mode, peer, *folders, precision=PEERS[peer].precision_here)
