"""Trains, resumes and scores on two ranks that cannot call torch's collectives for objects, which use pickle."""

from pathlib import Path
from typing import Any

from tests.end_to_end.attempts import make_project, start
from tests.end_to_end.score_project import COMMAND, make_score_project


def without_pickles(rank: int, _: str) -> None:
    """Let each message that torch would pickle, or read from a pickle, end this process."""
    from torch.distributed import distributed_c10d

    def refused(*arguments: Any) -> None:
        raise AssertionError(f"rank {rank} pickles a message")

    for name in ("_object_to_tensor", "_tensor_to_object"):
        setattr(distributed_c10d, name, refused)


def test_a_training_and_its_resume_pickle_no_message(tmp_path: Path, minilm_folder: Path) -> None:
    folder = make_project(tmp_path, minilm_folder)
    for words in ((), ("--train.resume", "run/checkpoints/step-000004", "--output_dir", "again")):
        attempt = start(folder, 2, ("--train.max_steps", "6", *words), (without_pickles, ""))
        assert attempt.statuses() == [0, 0], attempt.log()
    first, again = ((folder / name / "model/model.safetensors").read_bytes() for name in ("run", "again"))
    assert first == again


def test_a_scoring_pickles_no_message(tmp_path: Path, minilm_folder: Path) -> None:
    folder = make_score_project(tmp_path, minilm_folder, 100)
    attempt = start(folder, 2, (), (without_pickles, ""), COMMAND)
    assert attempt.statuses() == [0, 0], attempt.log()
