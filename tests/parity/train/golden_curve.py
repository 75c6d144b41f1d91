"""Twenty training steps of a tiny BERT on the fast path: packed, keyed dropout, clipping, AdamW, in both precisions.

`python -m tests.parity.train.golden_curve` prints the curves as JSON; `... --write` makes them the golden ones, which
declares that a change was meant to have a numeric effect.
"""

import hashlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.distributed.tiny_run import make_store, make_trainer, tiny_bert

GOLDEN = Path(__file__).parent / "golden/curve.json"
STEPS = 20


def curve(precision: str) -> dict[str, Any]:
    """Losses and gradient norms before clipping, step by step, and a digest of the last weights' bits."""
    with tempfile.TemporaryDirectory() as scratch:
        store = make_store(Path(scratch) / "stores")
        model = tiny_bert(dropout=0.1)
        trainer = make_trainer(
            store, Path(scratch), model=model, precision=precision, max_steps=STEPS, micro_tokens=60, weight_decay=0.01
        )
        trainer.train()
    lines = [line for line in trainer.state.log_history if "loss" in line]
    digest = hashlib.sha256()
    for parameter in trainer.model.parameters():
        digest.update(parameter.detach().float().numpy().tobytes())
    return {
        "losses": [line["loss"] for line in lines],
        "norms": [line["grad_norm"] for line in lines],
        "weights": digest.hexdigest(),
    }


def main() -> None:
    """Print both curves, or write them without the digest, which holds on this kind of CPU alone."""
    curves = {precision: curve(precision) for precision in ("fp32", "bf16")}
    if sys.argv[1:] == ["--write"]:
        kept = {name: {key: found[key] for key in ("losses", "norms")} for name, found in curves.items()}
        GOLDEN.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    print("curves " + json.dumps(curves))


if __name__ == "__main__":
    main()
