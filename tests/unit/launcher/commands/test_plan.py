"""Tests `ftlaunch plan` with a model of known sizes: the table, the choice, and the error if nothing fits."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from launcher.cli import COMMANDS, build_parser, main

MRPC = str(Path(__file__).parents[4] / "configs/runs/mrpc.toml")
BERT_LARGE = {
    "model_type": "bert",
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
}


@pytest.fixture
def large(tmp_path: Path) -> str:
    """Make a folder with only BERT-large's config.json."""
    (tmp_path / "config.json").write_text(json.dumps(BERT_LARGE))
    return str(tmp_path)


def planned(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["plan", MRPC, *words]) == 0
    return capsys.readouterr().out


def values(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(planned(capsys, *words, "--json"))
    return found


def test_bert_needs_no_zero(large: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = planned(capsys, "--model.name", large, "--gpu", "h100-80g", "--gpus-per-node", "8")
    lines = text.splitlines()
    assert lines[0] == "8 cuda ranks, 79.1 GiB each"
    assert "model         bert, 335.1 million parameters, 303.4 outside the embeddings" in lines
    assert "> ZeRO 0: 6.1 GiB of 79.1 GiB, nothing needs splitting" in lines
    assert "accumulation  1 micro-batch a step where examples are longest" in lines
    (chosen,) = [line for line in lines if line.startswith(">    0")]
    assert chosen.split()[1:5] == ["0", "none", "bf16", "no"]


def test_a_table_for_a_terminal(large: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--model.name", large, "--gpu", "t4-16g", "--nodes", "2", "--gpus-per-node", "4", "--train-rows", "3668")
    lines = planned(capsys, *words).splitlines()
    assert max(map(len, lines)) <= 120
    table = [line for line in lines if line[4:6] in (" 0", " 1", " 2", " 3") or line[:6].strip(">+ ").isdecimal()]
    assert 8 <= len(table) <= 25
    assert len(planned(capsys, *words, "--all").splitlines()) > len(lines) + 50


def test_the_table_for_machines(large: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = values(capsys, "--model.name", large, "--gpu", "a100-40g", "--gpus-per-node", "2")
    (chosen,) = [candidate for candidate in found["candidates"] if candidate["chosen"]]
    assert (found["zero_stage"], found["model"]["parameters"]) == (0, 335_143_938)
    assert found["predicted"]["bytes"] == chosen["bytes"]
    assert {(c["zero_stage"], c["offload"]) for c in found["candidates"]} == {
        (0, "none"), (1, "none"), (2, "none"), (3, "none"),
        (1, "optimizer"), (2, "optimizer"), (3, "optimizer"), (3, "parameters"),
    }  # fmt: skip
    assert {c["precision"] for c in found["candidates"]} == {"bf16", "fp16", "fp32"}
    parts = ("weights", "gradients", "optimizer", "activations", "buffers")
    assert all(c["bytes"]["total"] == sum(c["bytes"][part] for part in parts) for c in found["candidates"])


def test_less_memory_asks_for_more(large: str, capsys: pytest.CaptureFixture[str]) -> None:
    """From plenty to little: nothing; smaller micro-batches or recomputation; ZeRO; and then nothing fits."""
    words = ("--model.name", large, "--gpus-per-node", "4", "--data.max_length", "512", "--batch.global_size", "128")
    found = [values(capsys, *words, "--gpu-memory", f"{size}GiB") for size in (80, 16, 5)]
    first, second, third = found
    assert (first["zero_stage"], first["activation_checkpointing"], first["micro_tokens"]) == (0, False, 16_384)
    assert second["micro_tokens"] < 16_384 or second["activation_checkpointing"]
    assert second["backend"] == "ddp"
    assert third["zero_stage"] > 0
    assert all(plan["predicted"]["fits"] == "yes" for plan in found)


def test_a_model_that_fits_nowhere(large: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", MRPC, "--model.name", large, "--gpu-memory", "3GiB"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: no setting that the run allows fits the GPU's 3.0 GiB. The smallest (ZeRO 0, bf16,")
    assert "needs 6.2 GiB, 3.2 GiB too much. What would make it fit: other settings (ZeRO 1, offload optimizer" in said
    assert "4 GPUs of this size instead of 1; a GPU of 7 GiB, such as t4-16g" in said


def test_one_process_is_not_advised_to_be_several(large: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--data.max_length", "512", "--batch.global_size", "128", "--batch.micro_tokens", "16384"]
    words += ["--gpu-memory", "12GiB", "--engine.activation_checkpointing", "false", "--engine.backend"]
    for backend, advised in (("none", False), ("ddp", True)):
        assert main(["plan", MRPC, "--model.name", large, *words, backend]) == 2
        assert ("8 GPUs of this size instead of 1" in capsys.readouterr().err) is advised


def test_adapters_are_not_advised_to_split_the_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    words = ["--model.name", str(tmp_path), "--gpu-memory", "10GiB", "--gpus-per-node", "8"]
    assert main(["plan", MRPC, *words, "--lora.r", "4"]) == 2
    said = capsys.readouterr().err
    assert "What would make it fit: " in said
    assert "ZeRO 3" not in said


def test_adapters_have_no_candidates_that_split_the_weights(large: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = values(capsys, "--model.name", large, "--gpu", "t4-16g", "--gpus-per-node", "2", "--lora.r", "4")
    assert {candidate["zero_stage"] for candidate in found["candidates"]} == {0, 1, 2}


def test_a_longer_text_than_fits(large: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--model.name", large, "--gpu-memory", "6GiB", "--engine.activation_checkpointing", "false"]
    words += ["--engine.precision", "fp32"]  # in bf16 the peak is in the update, whatever the length
    assert main(["plan", MRPC, *words, "--data.max_length", "512"]) == 2
    assert "data.max_length = " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "stage", "recomputed", "reason"),
    [
        (("--engine.zero_stage", "2"), 2, False, "engine.zero_stage = 2"),
        (("--engine.activation_checkpointing", "true"), 0, True, "engine.activation_checkpointing = true"),
        (("--engine.offload", "optimizer"), 1, False, ""),
    ],
)
def test_what_is_asked_for_is_taken(
    large: str, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], stage: int, recomputed: bool, reason: str
) -> None:
    found = values(capsys, "--model.name", large, "--gpu", "h100-80g", *words)
    assert (found["zero_stage"], found["activation_checkpointing"]) == (stage, recomputed)
    assert reason in found["reasons"].values() or not reason


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--gpu", "h200"], "error: --gpu 'h200' is not in the table: write one of h200-141g, "),
        (["--gpu-memory", "much"], "error: --gpu-memory 'much' is not an amount of memory: write it as 24GiB."),
        (["--cpu", "--gpu", "t4-16g"], "error: --cpu and --gpu or --gpu-memory exclude each other: leave one out."),
        (["--engine.zero_stage", "2", "--engine.backend", "ddp"], "error: engine.zero_stage=2 needs DeepSpeed"),
    ],
)
def test_mistakes(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", MRPC, *words]) == 2
    assert capsys.readouterr().err.startswith(said)


def test_a_model_that_cannot_be_recomputed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "mpnet"}')
    words = ("--model.name", str(tmp_path), "--gpu", "t4-16g")
    assert not any(c["activation_checkpointing"] for c in values(capsys, *words)["candidates"])
    assert main(["plan", MRPC, *words, "--engine.activation_checkpointing", "true"]) == 2
    assert capsys.readouterr().err == (
        "error: engine.activation_checkpointing=True, but transformers cannot compute activations of 'mpnet' models "
        'again: write "auto" or false.\n'
    )


def test_a_gpu_without_bf16_is_told_what_is_faster(large: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = planned(capsys, "--model.name", large, "--gpu", "v100-32g")
    assert 'fp16 may be 8 times as fast: engine.precision = "fp16"' in text


def test_an_unknown_model_is_planned_without_its_memory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "t5"}')
    assert "memory        not known: model type 't5' is not among" in planned(capsys, "--model.name", str(tmp_path))


def test_every_command_says_the_same_as_the_list_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    listed = build_parser().format_help()
    for name, help_text in COMMANDS.items():
        own = build_parser(name).format_help()
        assert own == listed
        with pytest.raises(SystemExit) as left:
            build_parser(name).parse_args([name, "--help"])
        assert left.value.code == 0
        assert "usage: ftlaunch " + name in capsys.readouterr().out
        assert help_text in " ".join(listed.split())


@pytest.mark.parametrize(
    ("words", "unloaded"),
    [
        (["--help"], {"torch", "numpy", "pydantic", "rich"}),
        (["plan", MRPC, "--model.name", "bundled"], {"torch", "numpy", "rich", "transformers", "huggingface_hub"}),
    ],
    ids=["help", "plan"],
)
def test_what_is_not_needed_is_not_loaded(words: list[str], unloaded: set[str]) -> None:
    code = (
        f"import sys\nfrom launcher.cli import main\ntry:\n    main({words!r})\nexcept SystemExit:\n    pass\n"
        f"print(sorted({unloaded!r} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "[]\n"
