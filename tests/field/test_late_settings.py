"""Tests that [trainer] is judged before a run folder is claimed: one line a setting, with the words of its refusal.

A case is (settings, wanted): "" for settings that are accepted, else a part of the message. Add a line for your own.
"""

import importlib.util
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, BertTokenizer, TrainerCallback

from ftsys.cli import main
from ftsys.config import build_run, load_run, resolve_task
from ftsys.config.trainer_fields import best_metrics
from ftsys.data.prepare import ensure_store
from ftsys.errors import ConfigError
from ftsys.train.setup import argument_values
from ftsys.train.trainer.arguments import TrainingArguments
from ftsys.train.trainer.trainer import Trainer
from ftsys.train.trial import try_settings
from launcher.planner.plan import World, make_plan

WORDS = "[PAD] [UNK] [CLS] [SEP] [MASK] the cat dog runs sleeps sings falls opens".split()
WIDTH = 32
TRACKER = next(name for name in ("wandb", "mlflow", "swanlab", "dvclive") if importlib.util.find_spec(name) is None)
STEPWISE = {"eval_every": 2, "save_every": 3}

CASES: dict[str, tuple[dict[str, Any], str]] = {
    # metrics
    "a metric of the task": ({"metric_for_best_model": "f1"}, ""),
    "a metric of the task with its prefix": ({"metric_for_best_model": "eval_accuracy"}, ""),
    "the loss": ({"metric_for_best_model": "loss"}, ""),
    "a metric that the task does not compute": ({"metric_for_best_model": "macro_f1"}, "one of accuracy, f1, loss"),
    "a misspelt metric": ({"metric_for_best_model": "acuracy"}, "'acuracy' is not computed in evaluations"),
    "a metric that is no text": ({"metric_for_best_model": 3}, "metric_for_best_model=3 is not computed"),
    # trackers
    "no tracker": ({"report_to": "none"}, ""),
    "an installed tracker": ({"report_to": ["tensorboard"]}, ""),
    "a tracker that is not installed": ({"report_to": TRACKER}, f"report_to='{TRACKER}' cannot be used: .*nstall"),
    "one of two trackers": ({"report_to": ["tensorboard", TRACKER]}, f"report_to='{TRACKER}' cannot be used"),
    "a misspelt tracker": ({"report_to": "tensorbord"}, "report_to='tensorbord' cannot be used: .*only .*tensorboard"),
    # optimizer and schedule
    "an optimizer of torch": ({"optim": "adafactor"}, ""),
    "an optimizer with an argument": ({"optim": "sgd", "optim_args": "momentum=0.9"}, ""),
    "an optimizer that is unknown": ({"optim": "adamw_torhc"}, "adamw_torhc"),
    "an optimizer that is not installed": ({"optim": "galore_adamw"}, "optim='galore_adamw' cannot be used: .*galore"),
    "an argument without a value": ({"optim": "sgd", "optim_args": "momentum"}, "optim_args='momentum' cannot be used"),
    "an optimizer within the backward pass": ({"optim": "lomo"}, "within a backward pass"),
    "a moment of 2": ({"adam_beta1": 2.0}, "adam_beta1=2.0 cannot be used: Invalid beta"),
    "a moment that is text": ({"adam_beta2": "high"}, "adam_beta2='high' cannot be used: write a number"),
    "a negative epsilon": ({"adam_epsilon": -1.0}, "adam_epsilon=-1.0 cannot be used: Invalid epsilon"),
    "a schedule": ({"lr_scheduler_type": "polynomial", "lr_scheduler_kwargs": {"power": 2.0}}, ""),
    "a schedule that is unknown": ({"lr_scheduler_type": "liner"}, "liner"),
    "a schedule's unknown argument": (
        {"lr_scheduler_type": "cosine", "lr_scheduler_kwargs": {"cycles": 2}},
        "lr_scheduler_kwargs={'cycles': 2} cannot be used: TypeError: .*unexpected keyword",
    ),
    "a schedule without an argument it needs": ({"lr_scheduler_type": "cosine_with_min_lr"}, "min_lr"),
    "a schedule that follows a metric": ({"lr_scheduler_type": "reduce_lr_on_plateau"}, ""),
    "the same without evaluations": (
        {"lr_scheduler_type": "reduce_lr_on_plateau", "train.eval_every": "never"},
        "requires an eval strategy",
    ),
    # kinds and ranges
    "a number of steps that is text": (
        {"logging_steps": "often"},
        "'often' cannot be used: write a number",
    ),
    "a delay that is text": ({"eval_delay": "1"}, "eval_delay='1' cannot be used: write a number"),
    "a switch that is text": (
        {"ddp_static_graph": "yes"},
        "'yes' cannot be used: write true or false",
    ),
    "a table that is text": ({"lr_scheduler_kwargs": 3}, "lr_scheduler_kwargs=3 cannot be used: write a table or text"),
    "no logging steps": ({"logging_steps": 0}, "non-zero --logging_steps"),
    "a level of the log": ({"log_level": "warning"}, ""),
    "a level that does not exist": ({"log_level": "loud"}, "log_level='loud' cannot be used"),
    "a way to debug that does not exist": ({"debug": "all"}, "all is not a valid DebugOption"),
    "saving and evaluating at other steps": (
        {"load_best_model_at_end": True, **{f"train.{key}": value for key, value in STEPWISE.items()}},
        "needs a checkpoint of each evaluation that may be the best, but train.eval_every=2 and train.save_every=3",
    ),
    # what changes its meaning, or has none, for packed batches of a store
    "noise": ({"neftune_noise_alpha": 5.0}, ""),
    "no noise": ({"neftune_noise_alpha": 0}, "neftune_noise_alpha=0 cannot be used: write a number above 0"),
    "smoothing": ({"label_smoothing_factor": 0.1}, ""),
    "smoothing by more than everything": ({"label_smoothing_factor": 1.5}, "write a number from 0 to 1"),
    "smoothing of numbers": ({"label_smoothing_factor": 0.1, "task.name": "stsb"}, "this task is a regression"),
    "workers": ({"dataloader_num_workers": 2}, "memory-mapped files, without workers"),
    "batches of metrics": ({"batch_eval_metrics": True}, "all rows at once"),
    "losses without predictions": ({"prediction_loss_only": True}, "all rows at once"),
    "uploads": ({"push_to_hub": True}, "upload the result afterwards: hf upload"),
    "checkpoints without an optimizer": ({"save_only_model": True}, "all that a resume needs"),
    "kernels of another library": ({"use_liger_kernel": True}, "write engine.kernels instead"),
}


def run_of(settings: dict[str, Any]) -> Any:
    """Build a run on MRPC; a key with a dot belongs to another section."""
    tree: dict[str, Any] = {"output_dir": "runs/x", "task": {"name": "mrpc"}, "trainer": {}}
    for name, value in settings.items():
        section, _, key = name.rpartition(".")
        tree.setdefault(section or "trainer", {})[key] = value
    return build_run(tree)


@pytest.mark.parametrize(("settings", "wanted"), list(CASES.values()), ids=list(CASES))
def test_a_setting_is_judged_before_anything_is_claimed(settings: dict[str, Any], wanted: str) -> None:
    def judge() -> None:
        run = run_of(settings)
        try_settings(run, resolve_task(run), rows=100)

    if not wanted:
        judge()
        return
    with pytest.raises(ConfigError, match=wanted):
        judge()
    assert not torch.distributed.is_initialized()


def test_an_optimizer_that_a_checkpoint_cannot_hold_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class TwoWeights(torch.optim.SGD):
        def train(self) -> None: ...

        def eval(self) -> None: ...

    monkeypatch.setattr(
        "ftsys.train.trial.StandInTrainer.create_optimizer", lambda self: TwoWeights(self.model.parameters())
    )
    run = run_of({"optim": "sgd"})
    with pytest.raises(ConfigError, match=r"trainer.optim=.*sgd.* evaluates other weights than it trains"):
        try_settings(run, resolve_task(run), rows=100)


def test_trying_draws_nothing_from_the_generator() -> None:
    before = torch.get_rng_state()
    run = run_of({"optim": "adafactor"})
    try_settings(run, resolve_task(run), rows=100)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("task", "best", "greater"),
    [
        ({"name": "mrpc"}, None, True),
        ({"name": "mrpc"}, "loss", False),
        ({"name": "mrpc"}, "eval_loss", False),
        ({"name": "mrpc"}, "eval_f1", True),
        ({"name": "stsb", "metrics": ["pearson", "mse"]}, "mse", False),
        ({"name": "mnli"}, "validation_mismatched_accuracy", True),
        ({"name": "mnli"}, "eval_validation_matched_loss", False),
    ],
)
def test_the_best_is_the_lowest_loss_and_the_highest_score(task: Any, best: str | None, greater: bool) -> None:
    tree = {"output_dir": "runs/x", "task": task, "trainer": {} if best is None else {"metric_for_best_model": best}}
    run = build_run(tree)
    values = argument_values(run, make_plan(run, World()), resolve_task(run))
    assert values["greater_is_better"] is greater
    assert str(values["metric_for_best_model"]).removeprefix("eval_") in best_metrics(run)


# Runs


@pytest.fixture(scope="module")
def run_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a run file, with a tiny model and sixteen rows of two lengths."""
    folder = tmp_path_factory.mktemp("late")
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    BertTokenizer(str(folder / "vocab.txt"), model_max_length=32).save_pretrained(folder / "model")
    shape = {"hidden_size": WIDTH, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 32}
    config = BertConfig(vocab_size=len(WORDS), max_position_embeddings=32, hidden_dropout_prob=0.0, **shape)
    BertForSequenceClassification(config).save_pretrained(folder / "model")
    rows = [{"text": "the cat runs" if index % 2 else "the dog " * 5, "label": index % 2} for index in range(16)]
    for split in ("train", "validation"):
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = folder / "run.toml"
    run.write_text(
        f'output_dir = "{folder}/out"\n[task]\nname = "mine"\ncolumns = ["text"]\nlabels = ["0", "1"]\n'
        f'[data]\nsource = {{train = "{folder}/train.jsonl", validation = "{folder}/validation.jsonl"}}\n'
        f'max_length = 16\n[model]\nname = "{folder}/model"\n[batch]\nglobal_size = 8\n[train]\nepochs = 1\n'
        f'[engine]\nprecision = "fp32"\n'
    )
    return run


@pytest.mark.parametrize(
    ("key", "value"),
    [("report_to", TRACKER), ("metric_for_best_model", "macro_f1"), ("adam_beta1", "2.0"), ("log_level", "loud")],
)
def test_a_refused_run_claims_no_folder(
    key: str, value: str, run_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", str(run_file), "--output_dir", str(tmp_path / "out"), f"--trainer.{key}", value]) == 2
    said = capsys.readouterr().err
    assert f"trainer.{key}={value}" in said.replace("'", "")
    assert "Traceback" not in said
    assert not (tmp_path / "out").exists()


class Noise(TrainerCallback):
    """Keeps the noise of each training pass: of every token, the largest number that was added."""

    def __init__(self) -> None:
        self.seen: list[torch.Tensor] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        table = kwargs["model"].get_input_embeddings()
        self.handle = table.register_forward_hook(self._look)

    def _look(self, table: Any, inputs: Any, output: torch.Tensor) -> None:
        if table.training:
            self.seen.append((output - table.weight[inputs[0]]).detach().abs()[0].amax(-1))

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.handle.remove()


def noises(run_file: Path, folder: Path, micro_tokens: int) -> tuple[list[torch.Tensor], Any]:
    run = load_run(str(run_file), [])
    train = ensure_store(run, resolve_task(run), lambda *progress: None).splits["train"]
    torch.manual_seed(0)
    model = BertForSequenceClassification.from_pretrained(run.model.name)
    noise = Noise()
    arguments = TrainingArguments(
        str(folder), max_steps=2, global_batch_size=16, micro_tokens=micro_tokens, neftune_noise_alpha=5.0,
        use_cpu=True, save_strategy="no", report_to="none", disable_tqdm=True,
    )  # fmt: skip
    trainer = Trainer(model=model, args=arguments, train_dataset=train, callbacks=[noise])
    trainer.train()
    return noise.seen, model


def test_noise_is_scaled_by_each_sequence_whatever_the_pack(run_file: Path, tmp_path: Path) -> None:
    """Half of the rows have 5 tokens, half 12; all are in one pack."""
    seen, model = noises(run_file, tmp_path, micro_tokens=4096)
    assert len(seen) == 2
    for noise_T in seen:
        bounds = [5.0 / math.sqrt(length * WIDTH) for length in (5, 12)]
        assert float(noise_T.max()) <= bounds[0]
        # The largest of 32 uniform numbers is above 0.8 of the bound with probability 0.999.
        short_T = noise_T > bounds[1]
        assert 30 <= int(short_T.sum()) <= 8 * 5
        assert float(noise_T[~short_T].max()) > 0.95 * bounds[1]
    assert not model.get_input_embeddings()._forward_hooks


def test_noise_does_not_depend_on_how_a_step_is_cut(run_file: Path, tmp_path: Path) -> None:
    whole, parts = (noises(run_file, tmp_path / str(tokens), tokens)[0] for tokens in (4096, 40))
    assert len(parts) > len(whole)
    torch.testing.assert_close(torch.cat(whole).sort().values[-60:], torch.cat(parts).sort().values[-60:])


def test_the_best_checkpoint_by_the_loss_is_the_one_with_the_lowest(run_file: Path, tmp_path: Path) -> None:
    options = {"train.epochs": "3", "trainer.metric_for_best_model": "loss", "trainer.load_best_model_at_end": "true"}
    words = [word for key, value in options.items() for word in (f"--{key}", value)]
    words += ["--train.learning_rate", "0.05", "--output_dir", str(tmp_path / "out")]
    assert main(["train", str(run_file), *words]) == 0
    lines = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if line.get("split") == "validation"]
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["metrics"]["validation"]["loss"] == pytest.approx(min(losses), rel=1e-4)


HONOURED: dict[str, str] = {
    "debug": "underflow_overflow",
    "eval_delay": "1",
    "eval_on_start": "true",
    "include_num_input_tokens_seen": "all",
    "label_smoothing_factor": "0.1",
    "logging_strategy": "epoch",
    "lr_scheduler_type": "reduce_lr_on_plateau",
    "neftune_noise_alpha": "5.0",
    "optim": "adafactor",
    "skip_memory_metrics": "false",
}


@pytest.mark.parametrize(("name", "value"), list(HONOURED.items()))
def test_a_setting_that_is_let_through_can_be_trained_with(
    name: str, value: str, run_file: Path, tmp_path: Path
) -> None:
    words = ["--output_dir", str(tmp_path / "out"), f"--trainer.{name}", value]
    assert main(["train", str(run_file), *words]) == 0
    assert "accuracy" in json.loads((tmp_path / "out" / "results.json").read_text())["metrics"]["validation"]
