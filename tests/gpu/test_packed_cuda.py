"""The packed path on a CUDA device: the same logits, loss and gradients as on the CPU, and a short training."""

from pathlib import Path

import pytest
import torch

from tests.distributed.tiny_run import make_store, make_trainer, tiny_bert
from tests.parity.models.tiny_models import all_in_float64, packed_logits, sequences, small_model, switch_dropout_off

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


VARIANTS = ["bert", "roberta", "distilbert", "mpnet", "deberta-v3", "deberta-v2", "modernbert-mean", "llama"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_float64_logits_and_gradients_equal_the_cpus(variant: str) -> None:
    with all_in_float64():
        compare_devices(variant)


def compare_devices(variant: str) -> None:
    from ftsys.models.packed import PackedView

    models = [small_model(variant, 2), small_model(variant, 2).cuda()]
    models[1].load_state_dict(models[0].state_dict())
    logits = []
    for model in models:
        switch_dropout_off(model)
        rows = [row.to(model.device) for row in sequences([5, 1, 24, 7])]
        with torch.device(model.device):
            found = packed_logits(model, PackedView(model), rows)
        found.sum().backward()
        logits.append(found.detach().cpu())
    torch.testing.assert_close(logits[1], logits[0], rtol=1e-9, atol=1e-9)
    for (name, parameter), other in zip(models[0].named_parameters(), models[1].parameters(), strict=True):
        if parameter.grad is not None:
            assert other.grad is not None, name
            torch.testing.assert_close(other.grad.cpu(), parameter.grad, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_training_on_the_gpu_follows_the_cpus(tmp_path: Path, precision: str) -> None:
    store, losses = make_store(tmp_path / "stores"), []
    for on_cpu in (True, False):
        trainer = make_trainer(store, tmp_path / str(on_cpu), precision=precision, use_cpu=on_cpu, micro_tokens=60)
        trainer.train()
        losses.append([line["loss"] for line in trainer.state.log_history if "loss" in line])
    assert losses[1] == pytest.approx(losses[0], rel=1e-4 if precision == "fp32" else 2e-2)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_training_by_recorded_passes_follows_the_plain_one(tmp_path: Path, precision: str) -> None:
    store, losses, recorded = make_store(tmp_path / "stores"), [], []
    for graphs in (False, True):
        trainer = make_trainer(
            store,
            tmp_path / str(graphs),
            model=tiny_bert(dropout=0.1),
            precision=precision,
            use_cpu=False,
            max_steps=100,
            cuda_graphs=graphs,
        )
        trainer.train()
        losses.append([line["loss"] for line in trainer.state.log_history if "loss" in line])
        recorded.append(trainer.parts.step.graphs)
    assert recorded[1].eager_because is None
    assert len(recorded[1].recorded) >= 2
    assert losses[1] == pytest.approx(losses[0], rel=1e-4 if precision == "fp32" else 5e-2)
