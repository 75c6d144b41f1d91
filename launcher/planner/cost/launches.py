"""Counts the kernel launches of a step by a formula for each family, and the time that the host needs for them. Pure.

The table is for packed batches in bf16 with float32 masters. `python -m tools.launch_table` counts it by the counter of
`ftsys bench launches`; `tests/parity/models/test_launch_table.py` holds it to that.
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
    "bert": Launches(27, 9, 27, 17),
    "roberta": Launches(30, 9, 28, 17),
    "electra": Launches(29, 9, 31, 17),
    "albert": Launches(25, 17, 9, 45),
    "distilbert": Launches(24, 12, 22, 20),
    "mpnet": Launches(59, 39, 23, 40),
    "deberta-v2": Launches(43, 48, 26, 61),
    "modernbert": Launches(42, 28, 19, 39),
    "llama": Launches(36, 24, 16, 37),
    "mistral": Launches(36, 24, 16, 37),
    "qwen2": Launches(36, 24, 16, 38),
    "qwen3": Launches(36, 30, 16, 41),
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
    return _UPDATE_LAUNCHES + _UPDATE_PARTS * -(-shape.trained_parameters // _ELEMENTS_OF_A_LAUNCH)


def step_launches(shape: ModelShape, micro_batches: int, recomputed: bool, graphs: bool = False) -> int:
    """Return the launches of a step; with `graphs` the passes are replayed."""
    passes = GRAPH_LAUNCHES if graphs else LAUNCHES[shape.family].passes(shape.layers, recomputed)
    return micro_batches * passes + update_launches(shape)
