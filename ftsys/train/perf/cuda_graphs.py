"""CUDA graphs: the forward and backward pass of a batch of a given size, recorded once and replayed by one launch.

A small step on a GPU waits for Python, which starts its thousand kernels one by one. A recording reads and writes fixed
memory: what differs between batches is copied there before a replay, and gradients are added to buffers that stay.
"""

import logging
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Protocol

import torch
import transformers
from torch import Tensor, nn

from ftsys.data.batching.collate import PackedBatch
from ftsys.errors import ConfigError, FtsysError

_LOG = logging.getLogger(__name__)

Results = tuple[Tensor, Tensor]
Passes = Callable[[PackedBatch, Tensor, Tensor], Results]
"""Of a batch, its dropout keys (T,) and the loss's scale: the loss and the losses (S,); adds to the gradients."""

Size = tuple[int, int, int]
"""Tokens, sequences, and the longest that a sequence may be."""
WATCHED = 2
"""The time that a size is met for which its passes are watched."""


class Recorder(Protocol):
    """What records; a test has a double of it."""

    def watched(self, passes: Callable[[], Results]) -> tuple[Results, str | None]:
        """Run `passes`: what they give, and why they cannot be recorded."""
        ...

    def recorded(self, passes: Callable[[], Results]) -> tuple[Callable[[], object], Results]:
        """Record `passes` without running them: how to run them, and the tensors that their results will be in."""
        ...


class GpuRecorder:
    """CUDA graphs, in memory that they share: none of them runs while another does, or reads what another left."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def watched(self, passes: Callable[[], Results]) -> tuple[Results, str | None]:
        """What waits for the GPU cannot be recorded, and torch does not survive the attempt: so it is looked for."""
        before = torch.cuda.get_sync_debug_mode()
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                results = passes()
            finally:
                torch.cuda.set_sync_debug_mode(before)
        waits = next((f"{each.filename}:{each.lineno}" for each in told if "synchronizing" in str(each.message)), None)
        return results, None if waits is None else f"the pass waits for the GPU in {waits}"

    def recorded(self, passes: Callable[[], Results]) -> tuple[Callable[[], object], Results]:
        """Raises FtsysError with the innermost cause where torch cannot record: the process is not to be used then."""
        graph = torch.cuda.CUDAGraph()
        try:
            # A checkpoint may be copied in another thread meanwhile, which is no part of the recording.
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                results = passes()
        except torch.cuda.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise FtsysError(
                f"a pass could not be recorded: {_innermost(error)}. Leave out engine.cuda_graphs"
            ) from error
        return graph.replay, results


def _innermost(error: BaseException) -> str:
    """What happened first: the end of a recording that failed has an error of its own."""
    while error.__context__ is not None:
        error = error.__context__
    return str(error).strip().partition("\n")[0]


def check_recordable(trainer: transformers.Trainer) -> None:
    """Raise ConfigError where passes cannot be recorded, or would be recorded wrongly.

    For scripts, which have no plan: `launcher.planner.plan` says it of a run file before its folder is claimed.
    """
    args, accelerator = trainer.args, trainer.accelerator
    wrong = {
        f"they run on {args.device.type}": args.device.type != "cuda",
        f"there are {args.world_size} ranks": args.world_size > 1,
        "DeepSpeed moves weights and gradients between them": trainer.is_deepspeed_enabled,
        "fp16 scales each loss anew": accelerator.scaler is not None,
        "activations are computed again": getattr(trainer.model, "is_gradient_checkpointing", False),
    }
    ConfigError.raise_if(
        f"cuda_graphs: passes cannot be recorded, because {why}. Leave it out." for why in wrong if wrong[why]
    )


@dataclass(frozen=True)
class _Recorded:
    """One size's recording, and the memory that it reads."""

    batch: PackedBatch
    keys_T: Tensor
    scale: Tensor
    replay: Callable[[], object]
    results: Results


class PassGraphs:
    """`passes` of `model`, by recordings: one for each size of batch, made when a size is met for the third time.

    The first time is computed as usual, which also readies libraries and compiles kernels; the second time is watched.
    """

    def __init__(self, model: nn.Module, passes: Passes, recorder: Recorder) -> None:
        """`recorder` is a `GpuRecorder`, or a test's double."""
        self.model, self._passes, self._recorder = model, passes, recorder
        self.recorded: dict[Size, _Recorded] = {}
        self._met: Counter[Size] = Counter()
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
        size = (batch.input_ids_T.numel(), batch.example_ids_S.numel(), batch.max_seqlen)
        self._met[size] += 1
        if self._met[size] > WATCHED and self.eager_because is None:
            if size not in self.recorded:
                self.recorded[size] = self._record(batch, keys_T, scale)
            return self._replayed(self.recorded[size], batch, keys_T, scale)
        results = self._computed(partial(self._passes, batch, keys_T, scale), self._met[size] == WATCHED)
        self._keep_gradients()
        return results

    def _computed(self, passes: Callable[[], Results], watch: bool) -> Results:
        if not watch or self.eager_because is not None:
            return passes()
        results, self.eager_because = self._recorder.watched(passes)
        if self.eager_because is not None:
            _LOG.warning("cuda_graphs: passes are not recorded, because %s", self.eager_because)
        return results

    def _keep_gradients(self) -> None:
        """A weight that got no gradient has no buffer: an optimizer leaves it alone, but would decay one with zeros."""
        found = {parameter: parameter.grad for parameter in self.model.parameters() if parameter.grad is not None}
        self._gradients = found | self._gradients

    def _record(self, batch: PackedBatch, keys_T: Tensor, scale: Tensor) -> _Recorded:
        own = replace(batch, **{name: value.clone() for name, value in tensors_of(batch).items()})
        keys, scaled_by = keys_T.clone(), scale.clone()
        return _Recorded(own, keys, scaled_by, *self._recorder.recorded(partial(self._passes, own, keys, scaled_by)))

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
