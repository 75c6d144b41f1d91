"""A tiny model with every awkward kind of parameter, and the engines that train it, for tests of the state."""

from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.optim import AdamW, Optimizer

from ftsys.train.checkpoint.training_state import FullState


class Tiny(nn.Module):
    """Tied, frozen and odd-sized parameters, a two-element bias, persistent and other buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 6)
        self.body = nn.Linear(6, 6)
        self.frozen = nn.Linear(6, 5)
        self.norm = nn.LayerNorm(5)
        self.back = nn.Linear(5, 6)
        self.decoder = nn.Linear(6, 11, bias=False)
        self.decoder.weight = self.embed.weight
        self.head = nn.Linear(11, 2)
        self.frozen.requires_grad_(False)
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        self.register_buffer("cache", torch.randn(3), persistent=False)

    def forward(self, ids: Tensor, labels: Tensor) -> Tensor:
        """Mean loss of ids (N, L) int64 and labels (N,) int64."""
        if self.training:
            self.seen += 1
        hidden = self.norm(self.frozen(torch.tanh(self.body(self.embed(ids)).mean(1))))
        return nn.functional.cross_entropy(self.head(self.decoder(self.back(hidden))).float(), labels)


def batch(step: int, rank: int, ranks: int) -> dict[str, Tensor]:
    """This rank's rows of the 12 rows of a step."""
    generator = torch.Generator().manual_seed(step)
    ids, labels = torch.randint(0, 11, (12, 4), generator=generator), torch.randint(0, 2, (12,), generator=generator)
    return {"ids": ids[rank::ranks], "labels": labels[rank::ranks]}


def adamw(model: nn.Module) -> AdamW:
    """AdamW with the two groups that the Hugging Face Trainer makes."""
    decayed = [p for p in model.parameters() if p.dim() > 1 and p.requires_grad]
    others = [p for p in model.parameters() if p.dim() == 1 and p.requires_grad]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0, "lr": 0.02}]
    return AdamW(groups, lr=0.01, betas=(0.8, 0.95))


def build(stage: int, precision: str, seed: int, **zero: Any) -> Any:
    """A DeepSpeed engine as accelerate makes it: client AdamW, clipping, no optimizer block."""
    from ftsys.train.deepspeed_setup import prepare_deepspeed

    prepare_deepspeed()
    import deepspeed

    torch.manual_seed(seed)
    model = Tiny()
    settings: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": 4,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": 0.5,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "bf16": {"enabled": precision == "bf16"},
        "zero_optimization": {"stage": stage, "stage3_param_persistence_threshold": 12, **zero},
    }
    if precision == "bf16" and settings["zero_optimization"].pop("fp32_gradients", False):
        settings["data_types"] = {"grad_accum_dtype": "fp32"}
    return deepspeed.initialize(model=model, optimizer=adamw(model), config_params=settings)[0]


def train_engine(engine: Any, first: int, last: int) -> list[float]:
    """Steps first to last - 1; rates fall by a tenth a step, in the groups alone. Returns this rank's losses."""
    losses = []
    for step in range(first, last):
        loss = engine(**batch(step, dist.get_rank(), dist.get_world_size()))
        engine.backward(loss)
        engine.step()
        decay_rates(engine.optimizer)
        losses.append(loss.item())
    return losses


def train_plain(model: nn.Module, optimizer: Optimizer, first: int, last: int, rank: int = 0, ranks: int = 1) -> None:
    """The same steps with a plain torch optimizer."""
    for step in range(first, last):
        optimizer.zero_grad()
        model(**batch(step, rank, ranks)).backward()
        optimizer.step()
        decay_rates(optimizer)


def decay_rates(optimizer: Any) -> None:
    for group in optimizer.param_groups:
        group["lr"] *= 0.9


def differences(one: FullState, other: FullState) -> list[str]:
    """What differs between two states, bit for bit; empty when nothing does."""
    found = [name for name in ("numbers", "groups", "counters") if getattr(one, name) != getattr(other, name)]
    for kind, mine, theirs in (
        ("weights", one.weights, other.weights),
        ("buffers", one.buffers, other.buffers),
        *((key, one.moments.get(key, {}), other.moments.get(key, {})) for key in {*one.moments, *other.moments}),
    ):
        found += [f"{kind} {name}" for name in mine.keys() ^ theirs.keys()]
        found += [
            f"{kind} {name}"
            for name in mine.keys() & theirs.keys()
            if mine[name].dtype != theirs[name].dtype or not torch.equal(mine[name], theirs[name])
        ]
    return sorted(found)
