"""CUDA graphs: the forward and backward pass of a batch of a given size, recorded once and replayed by one launch.

A small step on a GPU waits for Python, which starts its thousand kernels one by one. A recording reads and writes fixed
memory: what differs between batches is copied there before a replay, and gradients are added to buffers that stay.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor, nn

from ftsys.data.collate import PackedBatch

_LOG = logging.getLogger(__name__)

Results = tuple[Tensor, Tensor]
Passes = Callable[[PackedBatch, Tensor, Tensor], Results]
"""Of a batch, its dropout keys (T,) and the loss's scale: the loss and the losses (S,); adds to the gradients."""

Recorder = Callable[[Callable[[], Results]], tuple[Callable[[], object], Results]]
"""Records a function without running it: how to run it again, and the tensors that its results will be in."""


def gpu_recorder() -> Recorder:
    """CUDA graphs in memory that they share: none of them runs while another does, or reads what another left.

    What it returns raises RuntimeError where something asks the GPU for a number, or cannot be recorded.
    """
    pool = torch.cuda.graph_pool_handle()

    def record(passes: Callable[[], Results]) -> tuple[Callable[[], object], Results]:
        graph = torch.cuda.CUDAGraph()
        # A checkpoint may be copied in another thread meanwhile, which is no part of the recording.
        with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
            results = passes()
        return graph.replay, results

    return record


@dataclass(frozen=True)
class _Recorded:
    """One size's recording, and the memory that it reads."""

    batch: PackedBatch
    keys_T: Tensor
    scale: Tensor
    replay: Callable[[], object]
    results: Results


class PassGraphs:
    """`passes` of `model`, by recordings: one for each size of batch, made when a size is met for the second time.

    The first time is computed as usual, which also readies libraries and compiles kernels.
    """

    def __init__(self, model: nn.Module, passes: Passes, record: Recorder) -> None:
        """`record` is what `gpu_recorder` returns, or a test's double."""
        self.model, self._passes, self._record = model, passes, record
        self.recorded: dict[tuple[int, int], _Recorded] = {}
        self._met: set[tuple[int, int]] = set()
        self._gradients: dict[nn.Parameter, Tensor] = {}
        self.eager_because: str | None = None
        """Why nothing more is recorded."""

    def begin_step(self) -> None:
        """Put zeroed buffers where gradients go: recordings add to them, and so do the other passes of a step."""
        if self._gradients:
            torch._foreach_zero_(list(self._gradients.values()))
        for parameter, gradient in self._gradients.items():
            parameter.grad = gradient

    def __call__(self, batch: PackedBatch, keys_T: Tensor, scale: Tensor) -> Results:
        """The loss and the losses (S,) of `batch`; adds its gradients."""
        size = (batch.input_ids_T.numel(), batch.example_ids_S.numel())
        if size in self._met and size not in self.recorded and self.eager_because is None:
            self._try_to_record(size, batch, keys_T, scale)
        if size in self.recorded:
            return self._replayed(self.recorded[size], batch, keys_T, scale)
        self._met.add(size)
        results = self._passes(batch, keys_T, scale)
        self._keep_gradients()
        return results

    def _keep_gradients(self) -> None:
        """A weight that got no gradient has no buffer: an optimizer leaves it alone, but would decay one with zeros."""
        found = {parameter: parameter.grad for parameter in self.model.parameters() if parameter.grad is not None}
        self._gradients = found | self._gradients

    def _try_to_record(self, size: tuple[int, int], batch: PackedBatch, keys_T: Tensor, scale: Tensor) -> None:
        own = replace(batch, **{name: value.clone() for name, value in tensors_of(batch).items()})
        keys, scaled_by = keys_T.clone(), scale.clone()
        try:
            replay, results = self._record(lambda: self._passes(own, keys, scaled_by))
        except RuntimeError as error:  # torch's, whatever it was that cannot be recorded
            self.eager_because = str(error).strip().splitlines()[0]
            _LOG.warning("engine.cuda_graphs: passes cannot be recorded, so they are not: %s", self.eager_because)
        else:
            self.recorded[size] = _Recorded(own, keys, scaled_by, replay, results)

    def _replayed(self, recorded: _Recorded, batch: PackedBatch, keys_T: Tensor, scale: Tensor) -> Results:
        for name, own in tensors_of(recorded.batch).items():
            own.copy_(getattr(batch, name), non_blocking=True)
        recorded.keys_T.copy_(keys_T)
        recorded.scale.copy_(scale)
        recorded.replay()
        loss, losses_S = recorded.results
        return loss.clone(), losses_S.clone()  # the next replay writes there


def tensors_of(batch: PackedBatch) -> dict[str, Tensor]:
    """Its tensors, by field."""
    values = {field.name: getattr(batch, field.name) for field in fields(batch)}
    return {name: value for name, value in values.items() if isinstance(value, Tensor)}
