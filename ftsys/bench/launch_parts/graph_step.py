"""One optimizer step of ours with recorded passes, as a GPU would get it: what is left beside the graph's launch."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import torch

from ftsys.bench.launch_parts.counter import LaunchCounter
from ftsys.bench.launch_parts.gpu_paths import gpu_paths
from ftsys.bench.launch_parts.steps import Phase, Step, narrow, our_update, packed_batch
from ftsys.bench.memory_parts.fake_step import fake_model
from ftsys.data.batching.collate import PackedBatch
from ftsys.kernels.select import TRITON
from ftsys.models.inputs import dropout_keys, model_inputs
from ftsys.models.packed import PackedView
from ftsys.train.perf.cuda_graphs import WATCHED, PassGraphs, Results
from ftsys.train.trainer.loss import loss_per_example
from ftsys.train.trainer.nonfinite_steps import nan_gradient_if_nonfinite


class _OneLaunch:
    """A recorder whose recordings compute nothing, and count as one launch."""

    def __init__(self, kernels: Counter[str]) -> None:
        self._kernels = kernels

    def watched(self, passes: Callable[[], Results]) -> tuple[Results, str | None]:
        return passes(), None

    def recorded(self, passes: Callable[[], Results]) -> tuple[Callable[[], object], Results]:
        return lambda: self._kernels.update(["graph"]), passes()


def our_step_with_graphs(config: Mapping[str, Any]) -> Step:
    """The step of `our_step` whose passes are replayed: keys, inputs and results around them, clipping, update."""
    with gpu_paths() as kernels:
        model = fake_model(narrow(config)).to(torch.bfloat16).train()
        view, batch = PackedView(model, TRITON), packed_batch()

        def passes(batch: PackedBatch, keys_T: torch.Tensor, scale: torch.Tensor) -> Results:
            logits_SC = model(**model_inputs(batch, view, keys_T)).logits
            losses_S = loss_per_example(logits_SC, batch.labels_S, batch.example_ids_S)
            loss = nan_gradient_if_nonfinite(losses_S.sum() * scale)
            loss.backward()
            return loss.detach(), losses_S.detach()

        graphs = PassGraphs(model, passes, _OneLaunch(kernels))
        for _ in range(WATCHED + 1):
            _replayed(graphs, batch)
        kernels.clear()
        with LaunchCounter("cpu") as counter:
            _replayed(graphs, batch)
        return {"passes": Phase.of(counter, kernels)} | our_update(config)


def _replayed(graphs: PassGraphs, batch: PackedBatch) -> None:
    graphs.begin_step()
    keys_T = dropout_keys(batch, 1, 2, TRITON)
    assert keys_T is not None
    graphs(batch, keys_T, torch.full((), 0.1))
