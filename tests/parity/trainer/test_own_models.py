"""Models, checkpoints and subclasses of the user's own, which the drop-in Trainer must take as transformers' does."""

import copy
import dataclasses
import inspect
import json
import logging
import pickle  # people send arguments to other processes; nothing on the disk is a pickle
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ftsys.errors import CheckpointError, ConfigError
from ftsys.train.trainer.arguments import TrainingArguments
from ftsys.train.trainer.trainer import Trainer
from tests.parity.trainer.sides import BASE, CLASSES, OURS, STOCK, data, model
from tests.parity.trainer.sides import trainer_of as tiny_bert_trainer_of

SAVING = {"max_steps": 6, "save_strategy": "steps", "save_steps": 2, "learning_rate": 0.1}


class Line(nn.Module):
    """y = slope x + offset, of two numbers; no config, no input_ids, a tuple as output."""

    def __init__(self) -> None:
        super().__init__()
        self.slope, self.offset = nn.Parameter(torch.tensor(0.0)), nn.Parameter(torch.tensor(0.0))

    def forward(self, x: Tensor, labels: Tensor | None = None) -> tuple[Tensor, ...]:
        y = self.slope * x + self.offset
        return (y,) if labels is None else (nn.functional.mse_loss(y, labels), y)


class Points(torch.utils.data.Dataset):
    """Points of a line, as numbers."""

    def __len__(self) -> int:
        return 16

    def __getitem__(self, index: int) -> dict[str, float]:
        return {"x": index / 8 - 1, "labels": index / 4 + 1}


def trainer_of(side: str, folder: Path, model: nn.Module, base: Any = None, **settings: Any) -> Any:
    trainer_class, arguments_class = CLASSES[side]
    arguments = arguments_class(str(folder), **(BASE | SAVING | settings))
    return (base or trainer_class)(model=model, args=arguments, train_dataset=Points(), eval_dataset=Points())


def weights_after(trainer: Any, resume: Any = None) -> list[float]:
    trainer.train(resume_from_checkpoint=resume and str(resume))
    return [weight.item() for weight in trainer.model.parameters()]


def test_a_model_of_two_numbers_trains_as_there_and_goes_on(tmp_path: Path) -> None:
    stock, ours = (weights_after(trainer_of(side, tmp_path / side, Line())) for side in (STOCK, OURS))
    assert ours == stock
    assert weights_after(trainer_of(OURS, tmp_path / OURS, Line()), tmp_path / OURS / "checkpoint-2") == ours


def test_a_frozen_weight_stays_where_it_is(tmp_path: Path) -> None:
    def half_frozen() -> Line:
        model = Line()
        model.slope.requires_grad_(False)
        return model

    whole = weights_after(trainer_of(OURS, tmp_path, half_frozen()))
    assert whole[0] == 0
    assert weights_after(trainer_of(OURS, tmp_path, half_frozen()), tmp_path / "checkpoint-2") == whole


def test_a_model_that_was_cut_into_shards_is_gone_on_from(tmp_path: Path) -> None:
    whole = weights_after(trainer_of(OURS, tmp_path, Line()))
    folder = tmp_path / "checkpoint-2"
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model.safetensors cannot be read"):
        weights_after(trainer_of(OURS, tmp_path, Line()), folder)
    names = {key: f"model-{index}.safetensors" for index, key in enumerate(tensors)}
    for key, name in names.items():
        save_file({key: tensors[key]}, folder / name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    assert weights_after(trainer_of(OURS, tmp_path, Line()), folder) == whole


def test_the_stock_text_files_may_be_edited(tmp_path: Path) -> None:
    whole = weights_after(trainer_of(OURS, tmp_path, Line()))
    path = tmp_path / "checkpoint-2/trainer_state.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"trial_name": "mine"}))
    resumed = trainer_of(OURS, tmp_path, Line())
    assert weights_after(resumed, path.parent) == whole
    sound = path.read_text()
    path.write_text(json.dumps(json.loads(sound) | {"mood": 7}))
    with pytest.raises(CheckpointError, match=r"trainer_state.json has 'mood', which transformers"):
        weights_after(trainer_of(OURS, tmp_path, Line()), path.parent)
    path.write_text(json.dumps(json.loads(sound) | {"log_history": [1]}))
    with pytest.raises(CheckpointError, match=r"trainer_state.json cannot be read: log_history.0"):
        weights_after(trainer_of(OURS, tmp_path, Line()), path.parent)
    path.write_text(sound[:-9])
    with pytest.raises(CheckpointError, match=r"trainer_state.json cannot be read"):
        weights_after(trainer_of(OURS, tmp_path, Line()), path.parent)


class Recording(Line):
    """Keeps the order of what it saw in a buffer that grows, and makes room for it when it is loaded."""

    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(0))

    def forward(self, x: Tensor, labels: Tensor | None = None) -> tuple[Tensor, ...]:
        self.seen = torch.cat([self.seen, x.detach()])
        return super().forward(x, labels)

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        self.seen = torch.zeros_like(state_dict["seen"])
        return super().load_state_dict(state_dict, strict, assign)


def test_a_load_state_dict_of_the_models_own_is_called(tmp_path: Path) -> None:
    whole, resumed = trainer_of(OURS, tmp_path, Recording()), trainer_of(OURS, tmp_path, Recording())
    weights = weights_after(whole)
    assert weights_after(resumed, tmp_path / "checkpoint-4") == weights
    assert torch.equal(resumed.model.seen, whole.model.seen)


class Turned(Line):
    """Holds numbers of a kind that our format has not."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("turn", torch.tensor([1j]))


class OwnStates(Trainer):
    """Keeps a note beside the optimizer."""

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        Path(output_dir, "note.txt").write_text("mine")


@pytest.mark.parametrize(
    ("model", "base", "reason"),
    [
        (Turned, None, "'turn' of the model is of type complex64"),
        (Line, OwnStates, "OwnStates._save_optimizer_and_scheduler is your own"),
    ],
)
def test_what_our_format_would_lose_is_saved_the_stock_way(
    model: Any, base: Any, reason: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "ftsys"):
        whole = weights_after(trainer_of(OURS, tmp_path, model(), base))
    assert f"checkpoints in the stock format, because {reason}" in [record.getMessage() for record in caplog.records]
    assert (tmp_path / "checkpoint-2/optimizer.pt").exists()
    assert (tmp_path / "checkpoint-2/note.txt").exists() == (base is OwnStates)
    assert weights_after(trainer_of(OURS, tmp_path, model(), base), tmp_path / "checkpoint-2") == whole


def test_numbers_cannot_be_smoothed(tmp_path: Path) -> None:
    """The stock Trainer ends with an error of torch's gather."""
    settings, numbers = {"label_smoothing_factor": 0.1}, data(12).map(lambda row: {"label": 0.5})
    trainer = tiny_bert_trainer_of(OURS, tmp_path, settings, {"model": model(num_labels=1), "train_dataset": numbers})
    with pytest.raises(ConfigError, match="label_smoothing_factor shares a label's weight among classes"):
        trainer.train()


def test_arguments_are_shown_without_their_tokens() -> None:
    arguments = TrainingArguments("unused", use_cpu=True, hub_token="hf_secret")
    assert "hf_secret" not in repr(arguments) + str(arguments) + arguments.to_json_string()


@dataclasses.dataclass
class MoreArguments(TrainingArguments):
    """Arguments of a script's own beside ours."""

    slope: float = 0.5


def test_arguments_survive_every_copy(tmp_path: Path) -> None:
    made = MoreArguments("unused", use_cpu=True, learning_rate=1.0, slope=2.0, global_batch_size=8)
    copies = (pickle.loads(pickle.dumps(made)), copy.deepcopy(made), dataclasses.replace(made))
    assert all(type(other) is MoreArguments and other == made for other in copies)
    parser, saved = transformers.HfArgumentParser(MoreArguments), tmp_path / "arguments.json"
    saved.write_text(made.to_json_string())
    for (read,) in (parser.parse_dict(made.to_dict()), parser.parse_json_file(str(saved))):
        assert read.to_dict() == made.to_dict()
    words = ["--output_dir", "unused", "--use_cpu", "--slope", "2", "--global_batch_size", "8", "--no_packing"]
    (given,) = parser.parse_args_into_dataclasses(words)
    assert (given.slope, given.global_batch_size, given.packing) == (2.0, 8, False)


def test_old_names_are_for_the_constructor_not_for_the_parser() -> None:
    """HfArgumentParser knows fields alone, so there a dropped name is the stock error; `ftsys run-glue` takes them."""
    for arguments in (transformers.TrainingArguments, TrainingArguments):
        parser = transformers.HfArgumentParser(arguments)
        with pytest.raises(ValueError, match=r"not used by the HfArgumentParser: \['--evaluation_strategy', 'epoch'\]"):
            parser.parse_args_into_dataclasses(["--output_dir", "unused", "--evaluation_strategy", "epoch"])


def test_libraries_find_the_stock_arguments() -> None:
    stock, ours = (inspect.signature(vars(kind)["__init__"]) for kind in (transformers.Trainer, Trainer))
    assert list(ours.parameters) == list(stock.parameters)
    assert issubclass(Trainer, transformers.Trainer)
