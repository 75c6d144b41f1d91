"""Records the forward and backward pass of each batch size as a CUDA graph, and replays it with one launch.

A small step on a GPU is limited by Python, which launches about a thousand kernels one by one. A CUDA graph reads and
writes fixed memory: each batch is copied there before a replay, and gradients are added to buffers that stay allocated.
"""

import logging
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import torch
import transformers
from torch import Tensor, nn

from ftsys.data.batching.collate import PackedBatch, tensors_of
from ftsys.errors import ConfigError, FtsysError
from ftsys.train.perf.late_reduction import why_not_late

_LOG = logging.getLogger(__name__)

Results = tuple[Tensor, Tensor]
Passes = Callable[[PackedBatch, Tensor, Tensor], Results]
"""Computes a batch: (batch, dropout keys (T,), scale of the loss) to (loss, losses (S,)); adds to the gradients."""

Size = tuple[int, int, int]
"""Number of tokens, number of sequences, and longest sequence length of a batch."""
WATCHED = 2
"""Occurrence of a size at which its pass is checked for synchronization with the GPU."""


class Recorder(Protocol):
    """Records passes; a test has a fake implementation."""

    def watched(self, passes: Callable[[], Results]) -> tuple[Results, str | None]:
        """Run `passes`; return their results, and the reason why they cannot be recorded or None."""
        ...

    def recorded(self, passes: Callable[[], Results]) -> tuple[Callable[[], object], Results]:
        """Record `passes` without running them; return a function that replays them, and their result tensors."""
        ...


class GpuRecorder:
    """Records CUDA graphs in one shared memory pool: no graph runs while another does, or reads its scratch data."""

    def __init__(self, stream: torch.cuda.Stream | None = None) -> None:
        """Record on `stream`, or on one that torch chooses."""
        self._pool, self._stream = torch.cuda.graph_pool_handle(), stream

    def watched(self, passes: Callable[[], Results]) -> tuple[Results, str | None]:
        """Run `passes`, and detect synchronization with the GPU.

        A pass that synchronizes cannot be recorded, and torch cannot be used after a failed attempt.
        """
        before = torch.cuda.get_sync_debug_mode()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            caught.clear()  # that call warns that the mode is a prototype, in words like those of a wait
            try:
                results = passes()
            finally:
                told = [*caught]
                torch.cuda.set_sync_debug_mode(before)
        waits = next((f"{each.filename}:{each.lineno}" for each in told if "synchronizing" in str(each.message)), None)
        return results, None if waits is None else f"the pass waits for the GPU in {waits}"

    def recorded(self, passes: Callable[[], Results]) -> tuple[Callable[[], object], Results]:
        """Record `passes` into a graph.

        Raises:
            FtsysError: torch cannot record them; the message has the first cause.
        """
        graph = torch.cuda.CUDAGraph()
        try:
            # Another thread may copy a checkpoint meanwhile; "thread_local" keeps it out of the recording.
            with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
                results = passes()
        except torch.cuda.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise FtsysError(
                f"a pass could not be recorded: {_innermost(error)}. Set engine.cuda_graphs = false"
            ) from error
        return graph.replay, results


def _innermost(error: BaseException) -> str:
    """Return the first error's message: ending a failed recording raises another error."""
    while error.__context__ is not None:
        error = error.__context__
    return str(error).strip().partition("\n")[0]


def check_recordable(trainer: transformers.Trainer) -> None:
    """Raise ConfigError if passes cannot be recorded, or would be recorded incorrectly.

    This check is for scripts that build a Trainer. For a run file, `launcher.planner.plan` checks the same before the
    run folder is claimed.
    """
    args, accelerator = trainer.args, trainer.accelerator
    late = why_not_late(trainer.model_wrapped) if args.world_size > 1 and not trainer.is_deepspeed_enabled else None
    wrong = {
        f"they run on {args.device.type}": args.device.type != "cuda",
        f"there are {args.world_size} ranks, and {late}": late is not None,
        "DeepSpeed moves weights and gradients between them": trainer.is_deepspeed_enabled,
        "fp16 scales each loss by another factor": accelerator.scaler is not None,
        "activations are computed again": getattr(trainer.model, "is_gradient_checkpointing", False),
    }
    ConfigError.raise_if(
        f"cuda_graphs: passes cannot be recorded, because {why}. Leave it out." for why in wrong if wrong[why]
    )


@dataclass(frozen=True)
class _Recorded:
    """Holds the recording of one size, and the memory that it reads."""

    batch: PackedBatch
    keys_T: Tensor
    scale: Tensor
    replay: Callable[[], object]
    results: Results


class PassGraphs:
    """Runs `passes` of `model` by recordings: one for each batch size, made at the third occurrence of a size.

    The first occurrence runs normally, which also initializes libraries and compiles kernels. The second one runs under
    the recorder's check.
    """

    def __init__(self, model: nn.Module, passes: Passes, recorder: Recorder) -> None:
        """Set up without recording; `recorder` is a `GpuRecorder`, or a test's fake."""
        self.model, self._passes, self._recorder = model, passes, recorder
        self.recorded: dict[Size, _Recorded] = {}
        self._met: Counter[Size] = Counter()
        self._gradients: dict[nn.Parameter, Tensor] = {}
        self.eager_because: str | None = None
        """Reason why no further size is recorded, or None."""

    def begin_step(self) -> None:
        """Set each parameter's gradient to its zeroed buffer, to which recorded and other passes of a step add."""
        if self._gradients:
            torch._foreach_zero_(list(self._gradients.values()))
        for parameter, gradient in self._gradients.items():
            parameter.grad = gradient

    def __call__(self, batch: PackedBatch, keys_T: Tensor, scale: Tensor) -> Results:
        """Return the loss and the losses (S,) of `batch`; add its gradients to the parameters' gradients."""
        size = (batch.input_ids_T.numel(), batch.example_ids_S.numel(), batch.max_seqlen)
        self._met[size] += 1
        if self._met[size] > WATCHED and self.eager_because is None:
            if size not in self.recorded:
                self._record(size, batch, keys_T, scale)
            if size in self.recorded:
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
        """Keep the gradient tensors as buffers.

        A parameter without a gradient gets no buffer: the optimizer skips it, but would apply weight decay to a
        parameter whose gradient is zero.
        """
        found = {parameter: parameter.grad for parameter in self.model.parameters() if parameter.grad is not None}
        self._gradients = found | self._gradients

    def _record(self, size: Size, batch: PackedBatch, keys_T: Tensor, scale: Tensor) -> None:
        """Record the size; where that fails, say so and record nothing more."""
        own = replace(batch, **{name: value.clone() for name, value in tensors_of(batch).items()})
        keys, scaled_by = keys_T.clone(), scale.clone()
        try:
            recorded = self._recorder.recorded(partial(self._passes, own, keys, scaled_by))
        except FtsysError as error:
            self.eager_because = str(error)
            _LOG.warning("cuda_graphs: passes are not recorded, because %s", error)
            for parameter in self.model.parameters():  # a gradient from the recording has no memory of its own
                parameter.grad = self._gradients.get(parameter)
        else:
            self.recorded[size] = _Recorded(own, keys, scaled_by, *recorded)

    def _replayed(self, recorded: _Recorded, batch: PackedBatch, keys_T: Tensor, scale: Tensor) -> Results:
        own, given = tensors_of(recorded.batch) | {"keys": recorded.keys_T}, tensors_of(batch) | {"keys": keys_T}
        for dtype in {tensor.dtype for tensor in own.values()}:  # one launch copies all tensors of a type
            names = [name for name in own if own[name].dtype == dtype]
            torch._foreach_copy_([own[name] for name in names], [given[name] for name in names])
        recorded.scale.copy_(scale)
        recorded.replay()
        loss, losses_S = recorded.results
        return loss.clone(), losses_S.clone()  # the next replay overwrites them
