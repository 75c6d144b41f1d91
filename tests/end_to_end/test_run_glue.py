"""`ftsys run-glue` as a user starts it, on a tiny model and a tiny task: the files, the ranks, and what is refused."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from ftsys.model_files.calibration import Calibration, write_calibration
from ftsys.score.model import find_model
from tests.end_to_end.commands import call, free_port, ftsys, read_json

PAIR = "{}\t1\t2\tthe {} sat on the mat .\tthe {} sat there .\n"
ANIMALS = ("cat", "dog", "cow", "hen", "fox")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, minilm_folder: Path) -> Path:
    """A folder with MRPC in GLUE's layout, 24, 9 and 5 pairs, and a tiny BERT with a real tokenizer."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    folder = tmp_path_factory.mktemp("run-glue")
    (folder / "files/MRPC").mkdir(parents=True)
    for name, rows in {"train": 24, "dev": 9, "test": 5}.items():
        pairs = ((row % 2, ANIMALS[row % 5], ANIMALS[(row if row % 2 else row + 1) % 5]) for row in range(rows))
        text = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n" + "".join(PAIR.format(*pair) for pair in pairs)
        (folder / f"files/MRPC/{name}.tsv").write_text(text)
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(minilm_folder)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
    )
    BertForSequenceClassification(config).bert.save_pretrained(folder / "tiny")
    tokenizer.save_pretrained(folder / "tiny")
    return folder


def words(place: Path, output: str, per_device: int) -> list[str]:
    text = f"""--model_name_or_path {place}/tiny --task_name mrpc --glue_dir {place}/files
    --do_train --do_eval --do_predict --max_seq_length 48
    --per_device_train_batch_size {per_device} --learning_rate 1e-3 --num_train_epochs 2
    --save_strategy epoch --eval_strategy epoch --logging_steps 1 --max_eval_samples 7 --output_dir {output}"""
    return text.split()


@pytest.fixture(scope="module")
def alone(place: Path) -> Path:
    """The output folder of one process."""
    ended = ftsys("run-glue", *words(place, "alone", 8), cwd=place)
    assert ended.returncode == 0, ended.stderr
    (place / "shown.toml").write_text(ended.stdout.partition("\n\nmrpc,")[0])
    return place / "alone"


def test_the_files_and_their_keys(alone: Path) -> None:
    found = read_json(alone / "all_results.json")
    expected = {"epoch", "train_loss", "train_runtime", "train_samples", "train_samples_per_second"}
    expected |= {"train_steps_per_second", "total_flos", "eval_accuracy", "eval_f1", "eval_combined_score", "eval_loss"}
    expected |= {"eval_runtime", "eval_samples", "eval_samples_per_second", "eval_steps_per_second"}
    assert set(found) == expected
    assert (found["epoch"], found["train_samples"], found["eval_samples"]) == (2.0, 24, 7)
    assert found["eval_combined_score"] == pytest.approx((found["eval_accuracy"] + found["eval_f1"]) / 2)
    lines = (alone / "predict_results_mrpc.txt").read_text().splitlines()
    assert lines[0] == "index\tprediction"
    assert [line.split("\t")[0] for line in lines[1:]] == ["0", "1", "2", "3", "4"]
    assert {line.split("\t")[1] for line in lines[1:]} <= {"equivalent", "not_equivalent"}
    assert read_json(alone / "trainer_state.json")["global_step"] == 6


def test_the_model_lies_in_the_output_folder(alone: Path) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(alone)
    assert model.config.id2label == {0: "not_equivalent", 1: "equivalent"}
    assert AutoTokenizer.from_pretrained(alone)("a", "b")["input_ids"][0] == 101
    with safe_open(alone / "model.safetensors", framework="np") as weights:
        assert weights.get_tensor("classifier.weight").shape == (2, 16)


def test_the_run_file_that_was_shown_is_that_run(alone: Path, place: Path) -> None:
    ended = ftsys("train", "shown.toml", "--no-table", cwd=place)
    assert ended.returncode == 0, ended.stderr
    assert read_json(alone / "status.json")["attempt"] == 1, "it is the run that is finished already"


def test_two_ranks_come_to_the_same(alone: Path, place: Path) -> None:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", free_port()]
    ended = call(*launcher, "-m", "ftsys", "run-glue", *words(place, "two", 4), cwd=place)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count('name = "mrpc"') == 1, "rank 0 alone speaks"
    one, two = (read_json(place / name / "all_results.json") for name in ("alone", "two"))
    assert two["eval_loss"] == pytest.approx(one["eval_loss"], rel=1e-4)
    assert (two["eval_accuracy"], two["eval_samples"]) == (one["eval_accuracy"], one["eval_samples"])
    assert (place / "two/predict_results_mrpc.txt").read_text() == (alone / "predict_results_mrpc.txt").read_text()


def test_a_trained_model_is_evaluated_without_training(alone: Path, place: Path) -> None:
    flags: dict[str, Any] = {"model_name_or_path": str(alone), "task_name": "mrpc", "glue_dir": f"{place}/files"}
    flags |= {"do_eval": True, "do_predict": True, "max_seq_length": 48, "max_eval_samples": 7, "output_dir": "again"}
    (place / "flags.json").write_text(json.dumps(flags))
    ended = ftsys("run-glue", "flags.json", cwd=place)
    assert ended.returncode == 0, ended.stderr
    found, trained = (read_json(folder / "eval_results.json") for folder in (place / "again", alone))
    assert found["eval_loss"] == pytest.approx(trained["eval_loss"], rel=1e-5)
    assert "epoch" not in found
    text = (place / "again/predict_results_mrpc.txt").read_text()
    assert text == (alone / "predict_results_mrpc.txt").read_text()
    assert not (place / "again/train_results.json").exists()


@pytest.mark.parametrize(
    ("missing", "told"),
    [("test", "--do_predict: the source has no split test, only"), ("dev", "so there is no validation split")],
)
def test_a_missing_split_is_found_before_the_training(place: Path, tmp_path: Path, missing: str, told: str) -> None:
    shutil.copytree(place / "files", tmp_path / "files")
    (tmp_path / f"files/MRPC/{missing}.tsv").unlink()
    (tmp_path / "tiny").symlink_to(place / "tiny")
    ended = ftsys("run-glue", *words(tmp_path, "out", 8), cwd=tmp_path)
    assert (ended.returncode, "Traceback" in ended.stderr) == (2, False), ended.stderr
    assert told in ended.stderr
    assert not (tmp_path / "out").exists()


def test_a_calibration_stays_beside_the_model_that_it_is_of(alone: Path, place: Path) -> None:
    write_calibration(alone / "model", Calibration(2.0))
    assert ftsys("run-glue", *words(place, "alone", 8), cwd=place).returncode == 0
    assert not (alone / "calibration.json").exists()
    assert find_model(str(alone)).folder == alone / "model"
    (alone / "model/calibration.json").unlink()


def test_wrong_input_ends_with_2_and_no_traceback(place: Path) -> None:
    shutil.rmtree(place / "wrong", ignore_errors=True)
    ended = ftsys("run-glue", *words(place, "wrong", 8), "--push_to_hub", "--token", "x", cwd=place)
    assert ended.returncode == 2
    assert ended.stderr.splitlines()[0].startswith("error: --push_to_hub True cannot be honoured")
    assert "--token is a secret" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (place / "wrong").exists()
