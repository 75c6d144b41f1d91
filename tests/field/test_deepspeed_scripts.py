"""The Trainer in a script of one's own, with a DeepSpeed JSON file as people have them. One line a case."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.distributed.worlds import World as Ranks
from tests.field.test_deepspeed_json import (
    ALL_AUTO,
    BUCKETS,
    OFFLOADED,
    SIZES,
    SWITCHES,
    TORCH_ADAM,
    Json,
    locked,
    zero,
)


def train_script(
    folder: Path, config: Json, settings: Json, stock_arguments: bool = False, launched: bool = False
) -> dict[str, Any]:
    """Train three steps in this rank; the engine's clipping and the learning rates, or the error's text.

    `launched`: the script names no DeepSpeed file, and `accelerate launch` does.
    """
    import os

    import transformers

    from ftsys.errors import LaunchError
    from ftsys.train.trainer.arguments import TrainingArguments
    from ftsys.train.trainer.trainer import Trainer
    from tests.parity.trainer.sides import BASE, data, model, tokenizer

    os.environ["TORCH_EXTENSIONS_DIR"] = str(folder / "ops")
    kind = transformers.TrainingArguments if stock_arguments else TrainingArguments
    try:
        if launched:
            (folder / "ds.json").write_text(json.dumps(config))
            os.environ["ACCELERATE_USE_DEEPSPEED"] = "true"
            os.environ["ACCELERATE_DEEPSPEED_CONFIG_FILE"] = str(folder / "ds.json")
        named: dict[str, Any] = {} if launched else {"deepspeed": config}
        arguments = kind(output_dir=str(folder), **named, **(BASE | settings))
        trainer = Trainer(model(), arguments, train_dataset=data(22), processing_class=tokenizer())
        trainer.train()
    except LaunchError as error:
        return {"error": str(error)}
    history = trainer.state.log_history
    return {
        "clipping": trainer.model_wrapped.gradient_clipping(),
        "rates": [line["learning_rate"] for line in history if "loss" in line],
        "padded": trainer.padded_reasons,
    }


@pytest.fixture(scope="module")
def rank() -> Any:
    ranks = Ranks(1)
    yield ranks
    ranks.close()


@pytest.mark.parametrize(
    ("config", "settings", "key", "value"),
    [
        ({**ALL_AUTO, **TORCH_ADAM}, {}, "rates", [0.0, 0.01, 0.01]),  # as transformers' own Trainer
        ({**SIZES, **SWITCHES, **zero(2)}, {}, "clipping", 1.0),
        ({**SIZES, **zero(2)}, {"max_grad_norm": 0.25}, "clipping", 0.25),
        ({"train_micro_batch_size_per_gpu": "auto", **zero(0)}, {"max_grad_norm": 0.25}, "clipping", 0.25),
        ({"train_micro_batch_size_per_gpu": "auto", **zero(1)}, {"max_grad_norm": 0.0}, "clipping", 0.0),
        ({**SIZES, **zero(2, **BUCKETS)}, {}, "padded", []),
        (
            {**SIZES, **zero(2)},
            {"gradient_accumulation_steps": 2},
            "padded",
            ["DeepSpeed counts gradient"],
        ),
    ],
)
def test_a_script_with_its_own_file(
    config: Json, settings: Json, key: str, value: Any, rank: Ranks, tmp_path: Path
) -> None:
    found = rank.run(train_script, tmp_path, config, settings)[0][key]
    if key == "padded":
        assert [row[: len(wanted)] for row, wanted in zip(found, value, strict=True)] == value
    else:
        assert found == pytest.approx(value)


@pytest.mark.parametrize("stock_arguments", [False, True])
@pytest.mark.parametrize(
    ("config", "clipping"),
    [({}, 0.25), ({"gradient_clipping": 0.25}, 0.25), ({"gradient_clipping": "auto"}, 0.25)],
)
def test_a_script_under_accelerate_launch_clips_as_its_arguments_say(
    config: Json, clipping: float, stock_arguments: bool, rank: Ranks, tmp_path: Path
) -> None:
    whole = {"train_micro_batch_size_per_gpu": "auto", "gradient_accumulation_steps": "auto", **zero(1), **config}
    found = rank.run(train_script, tmp_path, whole, {"max_grad_norm": 0.25}, stock_arguments, True)[0]
    assert found["clipping"] == clipping


@pytest.mark.parametrize("stock_arguments", [False, True])
@pytest.mark.parametrize(("config", "op"), [(ALL_AUTO, "fused_adam"), ({**SIZES, **zero(2, **OFFLOADED)}, "cpu_adam")])
def test_a_script_is_told_of_the_lock_of_a_dead_process(
    config: Json, op: str, stock_arguments: bool, rank: Ranks, tmp_path: Path
) -> None:
    lock = locked(tmp_path, op)
    assert f"rm {lock}" in rank.run(train_script, tmp_path, config, {}, stock_arguments)[0]["error"]


@pytest.mark.parametrize("form", ["text", "file"])
def test_a_file_in_any_form_is_guarded(form: str, rank: Ranks, tmp_path: Path) -> None:
    lock, text = locked(tmp_path, "fused_adam"), json.dumps(ALL_AUTO)
    (tmp_path / "ds.json").write_text(text)
    config: Any = text if form == "text" else str(tmp_path / "ds.json")
    assert f"rm {lock}" in rank.run(train_script, tmp_path, config, {})[0]["error"]


def evaluate_first(folder: Path, config: Json | None) -> dict[str, Any]:
    """Load a model, evaluate it, train it, and evaluate it again; whether its weights were spread from the start."""
    from transformers import BertForSequenceClassification

    from ftsys.train.trainer.arguments import TrainingArguments
    from ftsys.train.trainer.trainer import Trainer
    from tests.parity.trainer.sides import BASE, data, model, tokenizer

    if not (folder / "model").exists():
        model().save_pretrained(folder / "model")
    arguments = TrainingArguments(output_dir=str(folder / "out"), deepspeed=config, **BASE)
    loaded = BertForSequenceClassification.from_pretrained(folder / "model")
    spread = all(hasattr(weight, "ds_id") for weight in loaded.parameters())
    sets = {"train_dataset": data(22), "eval_dataset": data(10, seed=1)}
    trainer = Trainer(loaded, arguments, processing_class=tokenizer(), **sets)
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    return {"losses": [before, trainer.evaluate()["eval_loss"]], "spread": spread, "padded": trainer.padded_reasons}


def test_a_script_may_evaluate_before_it_trains_under_zero_3(rank: Ranks, tmp_path: Path) -> None:
    plain = rank.run(evaluate_first, tmp_path, None)[0]
    found = rank.run(evaluate_first, tmp_path, {**SIZES, **zero(3), "zero_allow_untested_optimizer": True})[0]
    assert (plain["spread"], found["spread"]) == (False, True)
    assert found["losses"] == pytest.approx(plain["losses"], rel=1e-4)
    assert found["padded"] == []
