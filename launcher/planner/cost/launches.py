"""Counts the kernel launches of a step by a formula for each family, and the time that the host needs for them. Pure.

The table is for packed batches in bf16 with float32 masters. `python -m tools.launch_table` counts it by the counter of
`ftsys bench launches`; `tests/unit/bench/test_launch_table.py` holds it to that.
"""

from dataclasses import dataclass

from launcher.planner.model_shape import ModelShape

LAUNCH_SECONDS = 5e-6
"""Time of the host for one launch, from Python to the driver: usual on servers of today, not measured here."""


@dataclass(frozen=True)
class Launches:
    """Launches of a micro-batch's passes: outside the layers and of each layer."""

    forward_outside: int
    forward_layer: int
    backward_outside: int
    backward_layer: int

    def passes(self, layers: int, recomputed: bool) -> int:
        """Return the launches of both passes; `recomputed`: the backward pass runs the layers forward again."""
        forward, backward = self.forward_layer, self.backward_layer
        each = (2 if recomputed else 1) * forward + backward
        return self.forward_outside + self.backward_outside + layers * each


_BY_FAMILY = {
    "bert": Launches(99, 22, 25, 29),
    "roberta": Launches(108, 22, 26, 29),
    "electra": Launches(107, 22, 29, 29),
    "albert": Launches(76, 19, 9, 53),
    "distilbert": Launches(92, 17, 22, 28),
    "mpnet": Launches(133, 51, 23, 50),
    "deberta-v2": Launches(115, 62, 24, 72),
    "modernbert": Launches(69, 28, 19, 39),
    "llama": Launches(69, 38, 30, 72),
    "mistral": Launches(69, 38, 30, 72),
    "qwen2": Launches(69, 38, 30, 75),
    "qwen3": Launches(69, 54, 30, 104),
}
LAUNCHES = {**_BY_FAMILY, "xlm-roberta": _BY_FAMILY["roberta"], "camembert": _BY_FAMILY["roberta"]}
"""Family -> launches of its packed passes."""

GRAPH_LAUNCHES = 12
"""Launches of a micro-batch whose passes are replayed: the copies of its tensors, and the graph."""

_UPDATE_LAUNCHES = 10
_ELEMENTS_OF_A_LAUNCH = 320 * 65_536
"""Elements that one launch of torch's multi-tensor kernels takes."""
_UPDATE_PARTS = 4
"""Multi-tensor operations of clipping and update: norm, widening, AdamW, rounding."""


def update_launches(shape: ModelShape) -> int:
    """Return the launches of clipping and update, of all weights on one rank."""
    return _UPDATE_LAUNCHES + _UPDATE_PARTS * -(-shape.parameters // _ELEMENTS_OF_A_LAUNCH)


def step_launches(shape: ModelShape, micro_batches: int, recomputed: bool, graphs: bool = False) -> int:
    """Return the launches of a step; with `graphs` the passes are replayed."""
    passes = GRAPH_LAUNCHES if graphs else LAUNCHES[shape.family].passes(shape.layers, recomputed)
    return micro_batches * passes + update_launches(shape)
