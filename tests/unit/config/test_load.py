"""Tests loading of run files: values, overrides, and the message about each mistake."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

from ftsys.config import RunConfig, build_run, load_run, resolved_tree, split_overrides
from ftsys.errors import ConfigError

MINIMAL = 'output_dir = "runs/x"\n[task]\nname = "mrpc"\n'
Writer = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Writer:
    def write_text(text: str) -> Path:
        path = tmp_path / "run.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write_text


def mistakes(path: Path, *overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_run(path, overrides)
    assert caught.value.exit_status == 2
    return list(caught.value.messages)


def test_defaults_are_those_of_the_design(write: Writer) -> None:
    run = load_run(write(MINIMAL))
    assert (run.data.source, run.data.max_length, run.data.store) == ("hub", 128, "auto")
    assert (run.batch.global_size, run.batch.global_tokens, run.batch.order, run.batch.micro_tokens) == (
        32,
        None,
        "auto",
        "auto",
    )
    assert (run.train.epochs, run.train.max_steps, run.train.learning_rate, run.train.seed) == (3.0, None, 5e-5, 42)
    assert (run.train.eval_every, run.train.save_every, run.train.save_keep, run.train.resume) == (
        "epoch",
        "epoch",
        2,
        "auto",
    )
    assert (run.train.max_nonfinite_steps, run.train.watchdog_seconds) == (20, 300.0)
    assert run.engine.model_dump() == {
        "precision": "auto",
        "zero_stage": "auto",
        "offload": "none",
        "activation_checkpointing": "auto",
        "backend": "auto",
        "deepspeed": "",
        "kernels": "auto",
        "compile": "auto",
        "cuda_graphs": "auto",
    }
    assert run.launch.model_dump() == {"nodes": 1, "gpus_per_node": "auto", "backend": "auto"}
    assert run.trainer == {}


def test_command_line_wins_over_file_wins_over_default(write: Writer) -> None:
    path = write(MINIMAL + "[train]\nseed = 7\nlearning_rate = 1e-4\n")
    run = load_run(path, ["--train.seed", "8", "--engine.precision=fp32"])
    assert (run.train.seed, run.train.learning_rate, run.train.save_keep, run.engine.precision) == (8, 1e-4, 2, "fp32")


def test_origins(write: Writer) -> None:
    path = write(MINIMAL + '[train]\nseed = 7\n[trainer]\nreport_to = ["none"]\n')
    words = ["--train.learning_rate=1e-3", "--output_dir", "elsewhere", "--trainer.weight_decay", "0.1"]
    origin = {key: (value, where) for key, value, where in resolved_tree(path, words)}
    assert origin["train.seed"] == (7, "file")
    assert origin["train.learning_rate"] == (1e-3, "command line")
    assert origin["output_dir"] == ("elsewhere", "command line")
    assert origin["train.epochs"] == (3.0, "default")
    assert origin["trainer.report_to"] == (["none"], "file")
    assert origin["trainer.weight_decay"] == (0.1, "command line")


@pytest.mark.parametrize(
    ("words", "read"),
    [
        (["--model.name", "123"], lambda run: run.model.name == "123"),
        (["--output_dir", "2024-01-02"], lambda run: run.output_dir == "2024-01-02"),
        (["--output_dir=a=b"], lambda run: run.output_dir == "a=b"),
        (["--model.name", '"quoted"'], lambda run: run.model.name == "quoted"),
        (["--data.source", '{train = "a.csv"}'], lambda run: run.data.source == {"train": "a.csv"}),
        (["--data.source.train", "a.csv"], lambda run: run.data.source == {"train": "a.csv"}),
        (["--data.source", "/data/glue"], lambda run: run.data.source == "/data/glue"),
        (["--engine.zero_stage", "2"], lambda run: run.engine.zero_stage == 2),
        (["--engine.zero_stage=auto"], lambda run: run.engine.zero_stage == "auto"),
        (["--engine.compile", "false"], lambda run: run.engine.compile is False),
        (["--train.eval_every", "no"], lambda run: run.train.eval_every == "never"),
        (["--train.eval_every", "50"], lambda run: run.train.eval_every == 50),
        (["--train.epochs", "0.5"], lambda run: run.train.epochs == 0.5),
        (["--train.seed", "1", "--train.seed", "2"], lambda run: run.train.seed == 2),
        (["--engine.offload", "nvme:/disk"], lambda run: run.engine.offload == "nvme:/disk"),
        (["--trainer.report_to", '["none"]'], lambda run: run.trainer == {"report_to": ["none"]}),
        (["--model.name", '"a"\nseed = 1'], lambda run: run.model.name == '"a"\nseed = 1'),
        (["--model.name=--odd"], lambda run: run.model.name == "--odd"),
        (["--model.name", "$HOME/~model"], lambda run: run.model.name == "$HOME/~model"),
    ],
)
def test_override_values(write: Writer, words: list[str], read: Callable[[RunConfig], bool]) -> None:
    assert read(load_run(write(MINIMAL), words))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--overwite"], "'--overwite' is not an option: see --help"),
        (["--output_dir"], "'--output_dir' has no value"),
        (["--train.seed"], "'--train.seed' has no value: write --train.seed VALUE"),
        (["--train.seed", "--train.epochs", "1"], "'--train.seed' has no value"),
        (["train.seed=1"], "'train.seed=1' is not an override: write --section.key value"),
        (["--train.seed", "1", "2"], "'2' is not an override"),
    ],
)
def test_words_that_are_no_overrides(write: Writer, words: list[str], said: str) -> None:
    assert any(message.startswith(said) for message in mistakes(write(MINIMAL), *words))


def test_command_line_chooses_between_epochs_and_steps(write: Writer) -> None:
    path = write(MINIMAL + "[train]\nepochs = 5\n[batch]\nglobal_tokens = 4096\n")
    run = load_run(path, ["--train.max_steps", "10", "--batch.global_size", "8"])
    assert (run.train.max_steps, run.train.epochs) == (10, None)
    assert (run.batch.global_size, run.batch.global_tokens) == (8, None)


def test_both_of_a_pair_in_one_place_are_refused(write: Writer) -> None:
    in_file = mistakes(write(MINIMAL + "[train]\nepochs = 5\nmax_steps = 9\n"))
    assert in_file == ["train.epochs=5.0 and train.max_steps=9 exclude each other: write one of the two."]
    on_line = mistakes(write(MINIMAL), "--batch.global_size", "8", "--batch.global_tokens", "4096")
    assert on_line == ["batch.global_size=8 and batch.global_tokens=4096 exclude each other: write one of the two."]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[train]\nlerning_rate = 3\n", "train.lerning_rate=3 is not a known key: did you mean train.learning_rate?"),
        ("[trian]\nseed = 3\n", "[trian] is not a known section: did you mean [train]?"),
        ("[batch]\nseed = 3\n", "batch.seed=3 is not a known key: did you mean train.seed?"),
        (
            "[engine]\nPrecision = 'bf16'\n",
            "engine.Precision='bf16' is not a known key: did you mean engine.precision?",
        ),
        ("[launch]\nzzzzz = 1\n", "launch.zzzzz=1 is not a known key: known ones are launch.nodes, "),
        ("[train]\nseed = '4'\n", "train.seed='4' cannot be used: write a whole number from 0 to 4294967295 (without "),
        ("[train]\nseed = true\n", "train.seed=True cannot be used: write a whole number"),
        ("[train]\nseed = -1\n", "train.seed=-1 cannot be used: write a whole number"),
        ("[train]\nepochs = 0\n", "train.epochs=0 cannot be used: write a number above 0, and 1,000,000 at most."),
        ("[train]\nepochs = nan\n", "train.epochs=nan cannot be used: write a number above 0, and"),
        ("[train]\nlearning_rate = inf\n", "train.learning_rate=inf cannot be used: write a number above 0."),
        ("[train]\nmax_steps = 2.5\n", "train.max_steps=2.5 cannot be used: write a whole number above 0."),
        ("[train]\nsave_every = 0\n", 'train.save_every=0 cannot be used: write "epoch", "never" or a whole number'),
        ("[train]\neval_every = true\n", 'train.eval_every=True cannot be used: write "epoch", "never" or a whole'),
        ("[train]\nwatchdog_seconds = -1\n", "train.watchdog_seconds=-1 cannot be used: write a number of seconds"),
        ("[engine]\nprecision = 'fp8'\n", 'engine.precision=\'fp8\' cannot be used: write "auto", "bf16"'),
        ("[engine]\nzero_stage = 4\n", 'engine.zero_stage=4 cannot be used: write "auto", 0, 1, 2 or 3.'),
        ("[engine]\nzero_stage = true\n", 'engine.zero_stage=True cannot be used: write "auto", 0, 1, 2 or 3.'),
        ("[engine]\nzero_stage = 1.0\n", 'engine.zero_stage=1.0 cannot be used: write "auto", 0, 1, 2 or 3.'),
        ("[engine]\nzero_stage = '2'\n", "engine.zero_stage='2' cannot be used: write \"auto\", 0, 1, 2 or 3 (without"),
        ("[engine]\noffload = 'nvme:'\n", 'engine.offload=\'nvme:\' cannot be used: write "none", "optimizer"'),
        ("[engine]\ncompile = 'yes'\n", "engine.compile='yes' cannot be used: write \"auto\", true or false."),
        ("[data]\nmax_length = 2\n", "data.max_length=2 cannot be used: write a whole number of tokens, 8 or above."),
        ("[data]\nsource = ['a']\n", 'data.source=[\'a\'] cannot be used: write "hub", "hub:NAME", "syn'),
        ("[data]\nsource = {train = 1}\n", "data.source={'train': 1} cannot be used: write \"hub\""),
        ("[model]\nname = 5\n", "model.name=5 cannot be used: write text in quotes, not empty."),
        ("[batch]\nmicro_tokens = 64\n", "batch.micro_tokens=64 is smaller than data.max_length=128: the longest"),
        ("[batch]\nglobal_tokens = 64\n", "batch.global_tokens=64 is smaller than data.max_length=128: the longest"),
        (
            "[engine]\nbackend = 'ddp'\nzero_stage = 2\n",
            "engine.zero_stage=2 needs DeepSpeed, but engine.backend='ddp'",
        ),
        ("[engine]\nbackend = 'none'\noffload = 'optimizer'\n", "engine.offload='optimizer' needs DeepSpeed, but"),
        ("[engine]\nbackend = 'ddp'\ndeepspeed = 'a.json'\n", "engine.deepspeed='a.json' needs DeepSpeed, but"),
        ("[engine]\nzero_stage = 2\noffload = 'parameters'\n", "engine.offload='parameters' needs ZeRO stage 3 or"),
        ("[engine]\nzero_stage = 0\noffload = 'optimizer'\n", "engine.offload='optimizer' needs ZeRO stage 1 or"),
        (
            "[trainer]\nbf16 = true\n",
            "trainer.bf16=True is decided by another section: write engine.precision instead.",
        ),
        ("[trainer]\nnum_train_epochs = 3\n", "trainer.num_train_epochs=3 is decided by another section: write train."),
        (
            "[trainer]\nwarmup_ratio = 0.1\n",
            "trainer.warmup_ratio=0.1 has no use here (transformers 5 reads a trainer.",
        ),
        ("[trainer]\nwarmup_steps = 'x'\n", "trainer.warmup_steps='x' cannot be used: write a number of steps, or"),
        ("[trainer]\nmax_grad_norm = -1\n", "trainer.max_grad_norm=-1 cannot be used: write a number, 0 (no clipping)"),
        ("[trainer]\nrun_name = 2024-01-01\n", "trainer.run_name=datetime.date(2024, 1, 1) is not a plain value"),
        ("[trainer]\nlogging_steps = inf\n", "trainer.logging_steps=inf is not a plain value"),
    ],
)
def test_each_mistake_is_one_clear_message(write: Writer, text: str, said: str) -> None:
    (message,) = mistakes(write(MINIMAL + text))
    assert message.startswith(said)


def test_a_budget_of_just_one_example_is_enough(write: Writer) -> None:
    assert load_run(write(MINIMAL), ["--batch.micro_tokens", "128"]).batch.micro_tokens == 128


def test_a_section_that_is_no_table() -> None:
    with pytest.raises(ConfigError, match=r"train=3 is not a table: write its keys under \[train\]"):
        build_run({"output_dir": "x", "task": {"name": "mrpc"}, "train": 3})


def test_all_mistakes_are_reported_together(write: Writer) -> None:
    text = """
        [task]
        name = "mprc"
        [train]
        seed = "x"
        lerning_rate = 1
        [batch]
        micro_tokens = 16
        [trainer]
        fp16 = true
    """
    found = mistakes(write(text), "--engine.precision", "int8")
    starts = (
        "train.seed='x'",
        "train.lerning_rate=1",
        "engine.precision='int8'",
        "output_dir=''",
        "batch.micro_tokens=16",
        "task.name='mprc'",
        "trainer.fp16=True",
    )
    assert len(found) == len(starts)
    assert all(any(message.startswith(start) for message in found) for start in starts)


def test_a_bad_field_is_not_judged_twice(write: Writer) -> None:
    found = mistakes(write(MINIMAL + "[data]\nmax_length = 'long'\n[batch]\nmicro_tokens = 16\n"))
    assert [message.partition("=")[0] for message in found] == ["data.max_length"]


def test_a_missing_file(tmp_path: Path) -> None:
    assert mistakes(tmp_path / "no.toml")[0].endswith("no.toml' does not exist: give the path of a TOML file.")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    assert "cannot be read (Is a directory)" in mistakes(tmp_path)[0]


def test_broken_toml_names_its_line(write: Writer) -> None:
    assert "is not valid TOML" in (message := mistakes(write(MINIMAL + "[train]\nseed = = 3\n"))[0])
    assert "line 5" in message


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_bytes(b"output_dir = '\xff'")
    assert "is not UTF-8 text (byte 14)" in mistakes(path)[0]


def test_a_byte_order_mark_is_read_over(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_bytes(b"\xef\xbb\xbf" + MINIMAL.encode())
    assert load_run(path).output_dir == "runs/x"


def test_a_run_is_frozen(write: Writer) -> None:
    run = load_run(write(MINIMAL))
    with pytest.raises(ValidationError, match="frozen"):
        setattr(run.train, "seed", 1)  # noqa: B010 - an assignment that a type checker would refuse


def test_a_tree_built_in_python_is_checked_too() -> None:
    with pytest.raises(ConfigError, match="names no folder"):
        RunConfig()


def test_command_lines_are_split_into_own_words_and_overrides() -> None:
    words = ["--train.seed", "3", "run.toml", "--json", "--output_dir=x", "--data.source", "a b", "--nodes", "2"]
    own, overrides = split_overrides(words)
    assert own == ["run.toml", "--json", "--nodes", "2"]
    assert overrides == ["--train.seed", "3", "--output_dir=x", "--data.source", "a b"]


def test_nothing_heavy_is_imported() -> None:
    heavy = ("torch", "transformers", "datasets", "pandas", "numpy", "deepspeed")
    code = f"import sys, ftsys.config, launcher.cli; print([name for name in {heavy!r} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
