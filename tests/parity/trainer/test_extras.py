"""What needs a package of its own, run with both Trainers: LoRA by peft, a search by optuna."""

from pathlib import Path
from typing import Any

import optuna
import peft
import pytest
import torch
from safetensors import safe_open

from tests.parity.trainer.rows import NO_PICKLE
from tests.parity.trainer.sides import OURS, STOCK, Row, check, model, trainer_of


def with_adapters() -> dict[str, Any]:
    torch.manual_seed(0)
    settings = peft.LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["query", "value"])
    return {"model": peft.get_peft_model(model(), settings)}


def test_adapters_are_trained_and_saved_as_there(tmp_path: Path) -> None:
    check(
        Row(
            {"eval_strategy": "steps", "save_strategy": "steps", "save_steps": 2, "load_best_model_at_end": False},
            options=with_adapters,
            differs={"files": NO_PICKLE},
            packed=False,
        ),
        tmp_path,
    )
    assert (tmp_path / OURS / "checkpoint-2/adapter_model.safetensors").exists()


def test_adapters_go_on_from_a_checkpoint(tmp_path: Path) -> None:
    settings = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2}
    whole = trainer_of(OURS, tmp_path, settings, with_adapters())
    whole.train()
    resumed = trainer_of(OURS, tmp_path, settings, with_adapters())
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    with safe_open(tmp_path / "checkpoint-2/weights.safetensors", framework="pt") as file:
        saved = set(file.keys())
    trained = {name for name, weight in whole.model.named_parameters() if weight.requires_grad}
    assert saved & dict(whole.model.named_parameters()).keys() == trained  # as in the stock files, no base model
    weights = whole.model.state_dict()
    assert all(torch.equal(weights[name], tensor) for name, tensor in resumed.model.state_dict().items())


def test_the_best_adapters_of_masters_are_loaded_at_the_end(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"max_steps": 4, "eval_strategy": "steps", "save_strategy": "steps", "save_steps": 1}
    settings |= {
        "eval_steps": 1,
        "load_best_model_at_end": True,
        "metric_for_best_model": "loss",
        "greater_is_better": True,
    }
    trainer = trainer_of(OURS, tmp_path, settings | {"master_weights": True}, with_adapters())
    trainer.train()
    assert trainer.state.best_global_step < 4, "the test needs other weights than the last ones"
    with safe_open(Path(trainer.state.best_model_checkpoint) / "weights.safetensors", framework="pt") as file:
        for name, weight in trainer.model.named_parameters():
            if weight.requires_grad:
                assert torch.equal(weight, file.get_tensor(name).to(weight.dtype)), name


def test_a_search_finds_the_same_best_run(tmp_path: Path) -> None:
    optuna.logging.disable_default_handler()
    found, names = {}, {}
    for side in (STOCK, OURS):
        settings = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 2}
        trainer = trainer_of(side, tmp_path / side, settings, {"model_init": lambda: model()})
        best = trainer.hyperparameter_search(
            hp_space=lambda trial: {"learning_rate": trial.suggest_float("learning_rate", 1e-4, 1e-1, log=True)},
            compute_objective=lambda metrics: metrics["eval_loss"],
            n_trials=3,
            backend="optuna",
            direction="minimize",
            sampler=optuna.samplers.RandomSampler(seed=0),
        )
        found[side] = (best.run_id, best.objective, best.hyperparameters)
        names[side] = sorted(str(path.relative_to(tmp_path / side)) for path in (tmp_path / side).glob("run-*/*"))
    assert found[OURS][0] == found[STOCK][0]
    assert found[OURS][1] == pytest.approx(found[STOCK][1], rel=1e-5)
    assert found[OURS][2] == found[STOCK][2]
    assert names[OURS] == names[STOCK]
    assert names[OURS] == [f"run-{trial}/checkpoint-{step}" for trial in range(3) for step in (2, 3)]


def test_a_search_without_a_model_init_is_refused_as_there(tmp_path: Path) -> None:
    for side in (STOCK, OURS):
        with pytest.raises(RuntimeError, match=r"model_init|optuna"):
            trainer_of(side, tmp_path / side, {}, {}).hyperparameter_search(n_trials=1, backend="optuna")
