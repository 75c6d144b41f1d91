"""Estimates the time of a step: launches against products and update, plus bytes over bandwidths. Pure.

The host launches kernels while the GPU computes, so the longer of both counts; what is sent is not overlapped.

The estimate ranks candidates and promises no speed: nothing here was measured. The assumptions are in the constants.
"""

from dataclasses import dataclass

from launcher.planner.cost.activations import MicroBatch
from launcher.planner.cost.communication import sent_per_rank
from launcher.planner.cost.launches import LAUNCH_SECONDS, step_launches
from launcher.planner.cost.memory import Setting
from launcher.planner.gpus import Gpu
from launcher.planner.model_shape import ModelShape

UTILISATION = 0.4
"""Fraction of a GPU's matrix rate that an encoder's forward and backward pass reach."""
LINK_SHARE = 0.7
"""Fraction of a link's bandwidth that collectives reach."""
NETWORK = 12.5e9
"""Bytes per second between machines, for all GPUs of a machine together: 100 Gbit/s."""
_UPDATE_BYTES = 28
"""Bytes that AdamW reads and writes for each parameter: a gradient, a weight, a master weight and two moments."""
_HOST_UPDATE_BANDWIDTH = 10e9
"""Bytes per second at which one rank's CPU cores update an offloaded optimizer."""


@dataclass(frozen=True)
class Links:
    """The GPU of a rank and its distance to the other ranks."""

    gpu: Gpu
    nodes: int

    @property
    def bandwidth(self) -> float:
        """Return the bytes per second of the ring's slowest link."""
        inside = self.gpu.link * LINK_SHARE
        return min(inside, NETWORK * LINK_SHARE) if self.nodes > 1 else inside


def operations(shape: ModelShape, batch: MicroBatch, checkpointing: bool) -> float:
    """Count the floating-point operations of a micro-batch: 2 per parameter and token, and attention's two products.

    The backward pass takes twice the forward pass, less the gradients of frozen weights; recomputation adds one forward
    pass. A trimmed last layer computes
    only first tokens after its attention.
    """
    layer, tokens = shape.layer, batch.tokens
    behind_attention = layer.hidden * (layer.heads * layer.head_size + 2 * layer.inner)
    not_read = shape.trimmed_layers * behind_attention * (tokens - batch.sequences)
    forward = 2 * (shape.computed_parameters * tokens - not_read)
    forward += 4 * shape.layers * tokens * batch.length * layer.heads * layer.head_size
    frozen = 2 * (shape.computed_parameters - shape.trained_products) * tokens
    return forward * (4 if checkpointing else 3) - frozen


@dataclass(frozen=True)
class StepTime:
    """The seconds that the parts of a step take, each by itself."""

    launches: int
    computing: float
    """Of the GPU, in matrix products and the update."""
    launching: float
    """Of the host, for the kernels of passes and update."""
    launching_graphs: float
    """Of the host, where the passes are replayed as CUDA graphs."""
    sending: float

    def seconds(self, graphs: bool = False) -> float:
        """Return the seconds of the step."""
        return max(self.computing, self.launching_graphs if graphs else self.launching) + self.sending


def step_time(shape: ModelShape, batch: MicroBatch, micro_batches: int, setting: Setting, links: Links) -> StepTime:
    """Estimate the parts of a step of `micro_batches` micro-batches, each as large as `batch`."""
    gpu, again = links.gpu, setting.checkpointing
    products = operations(shape, batch, again) / (gpu.rate(setting.precision) * UTILISATION)
    launches, replayed = (step_launches(shape, micro_batches, again, graphs) for graphs in (False, True))
    return StepTime(
        launches=launches,
        computing=micro_batches * products + _update_seconds(shape, setting, gpu),
        launching=launches * LAUNCH_SECONDS,
        launching_graphs=replayed * LAUNCH_SECONDS,
        sending=sent_per_rank(shape, setting, micro_batches) / links.bandwidth if setting.ranks > 1 else 0.0,
    )


def _update_seconds(shape: ModelShape, setting: Setting, gpu: Gpu) -> float:
    share = shape.trained_parameters / (setting.ranks if setting.zero_stage else 1)
    if setting.offload == "none":
        return share * _UPDATE_BYTES / gpu.memory_bandwidth
    moved = share * 2 * (2 if setting.low_weights else 4)
    return moved / (gpu.host_link * LINK_SHARE) + share * _UPDATE_BYTES / _HOST_UPDATE_BANDWIDTH
