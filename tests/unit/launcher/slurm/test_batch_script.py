"""Tests batch scripts: the whole text, and every value that must not pass."""

import dataclasses
import subprocess
from pathlib import Path

import pytest

from ftsys.errors import LaunchError
from launcher.cli import main
from launcher.slurm import site
from launcher.slurm.batch_script import Job, render

GOLDEN = Path(__file__).parent / "golden"

PLAIN = Job(
    name="mrpc",
    arguments=("configs/runs/mrpc.toml",),
    folder="/home/ada/ftsys",
    run_folder="/home/ada/ftsys/runs/mrpc",
    scripts="/home/ada/ftsys/slurm",
)
EVERYTHING = dataclasses.replace(
    PLAIN,
    arguments=("configs/runs/mrpc.toml", "--train.seed", "7", "--task.labels", "['it''s', \"$HOME\"]"),
    folder="/home/ada/my work",
    run_folder="/scratch/ada/100% of it",
    nodes=4,
    gpus_per_node=8,
    cpus_per_node=64,
    time="1-12:00:00",
    partition="gpu,spot",
    account="nlp-2026",
    constraint="[a100|h100]&ib",
    warning_seconds=300,
    max_restarts=3,
    modules=("gcc/13.2", "cuda/12.8"),
    venv="/home/ada/my work/.venv",
)
APPTAINER = dataclasses.replace(
    PLAIN, gres="gpu:a100:4", container="apptainer", image="/images/ftsys.sif", mounts=("/data/glue",)
)
ENROOT = dataclasses.replace(
    PLAIN, nodes=2, gpus_per_node=8, container="enroot", image="/images/ftsys.sqsh", mounts=("/data/glue",)
)
ARRAY = dataclasses.replace(
    PLAIN,
    arguments=(),
    run_folder="/home/ada/runs/my table",
    array=("/home/ada/runs/my table/a/cell.toml", "/home/ada/runs/my table/b's/cell.toml"),
    array_limit=4,
    after="17",
)
JOBS = {"array": ARRAY, "plain": PLAIN, "everything": EVERYTHING, "apptainer": APPTAINER, "enroot": ENROOT}


@pytest.mark.parametrize("name", JOBS)
def test_the_whole_text(name: str) -> None:
    assert render(JOBS[name]) == (GOLDEN / f"{name}.sbatch").read_text()


def test_every_golden_file_is_of_a_job() -> None:
    assert {path.stem for path in GOLDEN.iterdir()} == set(JOBS)


@pytest.mark.parametrize("name", JOBS)
def test_bash_reads_it(name: str) -> None:
    subprocess.run(["bash", "-n", str(GOLDEN / f"{name}.sbatch")], check=True)


def test_bash_gets_the_words_back(tmp_path: Path) -> None:
    folder = tmp_path / "a b"
    folder.mkdir()
    (folder / "job.sh").write_text('printf "%s\\0" "$PWD" "$@"')
    job = dataclasses.replace(EVERYTHING, folder=str(folder), scripts=str(folder), modules=())
    shown = subprocess.run(["bash"], input=render(job), capture_output=True, text=True, check=True).stdout
    assert tuple(shown.split("\0")[:-1]) == (str(folder), *EVERYTHING.arguments)


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("partition", "gpu\n#SBATCH --exclusive", "--partition 'gpu\\n#SBATCH --exclusive' cannot be passed on"),
        ("partition", "gpu --exclusive", "--partition 'gpu --exclusive'"),
        ("account", "$(id)", "--account '$(id)'"),
        ("account", "-x", "--account '-x'"),
        ("time", "soon", "--time 'soon' cannot be passed on to SLURM: write minutes"),
        ("time", "01:00:00 #", "--time"),
        ("gres", "gpu:8;reboot", "--gres 'gpu:8;reboot'"),
        ("constraint", 'a100" --x="', "--constraint"),
        ("name", "two words", "--job-name 'two words'"),
        ("name", "", "--job-name '' cannot be passed on"),
        ("run_folder", 'a"b', "output_dir 'a\"b'"),
        ("run_folder", "a\nb", "output_dir 'a\\nb'"),
        ("folder", "/a`id`", "the folder of the run '/a`id`'"),
        ("modules", ("cuda; reboot",), "--module 'cuda; reboot'"),
        ("venv", "/a'b", '--venv "/a\'b"'),
        ("arguments", ("run.toml", "--task.name", "a\nb"), "holds a control character"),
        ("nodes", 0, "--nodes 0 is too small: give 1 or more"),
        ("gpus_per_node", -1, "--gpus-per-node -1 is too small: give 0 or more"),
        ("warning_seconds", 70_000, "--warning-seconds 70000 is more than SLURM takes"),
        ("max_restarts", -1, "--max-restarts -1"),
        ("image", "/images/x.sif", "--container and --image go together"),
        ("container", "apptainer", "--container and --image go together"),
    ],
)
def test_a_value_that_must_not_pass(field: str, value: object, named: str) -> None:
    with pytest.raises(LaunchError) as caught:
        render(dataclasses.replace(PLAIN, **{field: value}))  # type: ignore[arg-type]
    assert named in str(caught.value)


def test_a_container_sees_no_folder_whose_name_has_blanks() -> None:
    with pytest.raises(LaunchError, match="--mount '/home/ada/my work' cannot be passed on"):
        render(dataclasses.replace(APPTAINER, folder="/home/ada/my work"))


def test_several_mistakes_are_told_together() -> None:
    with pytest.raises(LaunchError) as caught:
        render(dataclasses.replace(PLAIN, partition="a b", time="x", nodes=0))
    assert len(str(caught.value).splitlines()) == 3


RUN = 'output_dir = "runs/x"\n[task]\nname = "paraphrase"\n[data]\nsource = "synthetic"\n'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(site, "run_slurm", slurm_is_away)
    (tmp_path / "run.toml").write_text(RUN)
    return tmp_path


def slurm_is_away(*command: str) -> str:
    raise LaunchError(f"{command[0]!r} is not found: run this on a login node of a SLURM cluster.")


def test_dry_run_shows_the_script_and_does_nothing(
    folder: Path, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--dry-run", "--gpus-per-node", "8", "--nodes", "2", "--partition", "gpu"]
    assert main(["sbatch", "run.toml", *words, "--train.seed", "7"]) == 0
    job = Job(
        name="run",
        arguments=("run.toml", "--train.seed", "7"),
        folder=str(folder),
        run_folder=str(folder / "runs/x"),
        scripts=str(repository / "slurm"),
        nodes=2,
        gpus_per_node=8,
        cpus_per_node=32,  # SLURM does not answer here
        partition="gpu",
    )
    assert capsys.readouterr().out == render(job)
    assert sorted(path.name for path in folder.iterdir()) == ["run.toml"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "the number of GPUs on each node is not set: write --gpus-per-node N, --gres, or --cpu."),
        (["--gpus-per-node", "8", "--cpus-per-node", "7"], "--cpus-per-node 7 is less than one for each of 8 ranks"),
        (["--cpu", "--gres", "gpu:1"], "--cpu asks for no GPU: leave it out, or leave out --gres and --gpus-per-node."),
        (["--gpus-per-node", "8", "--nodes", "9"], "batch.global_size=32 has fewer examples in a step"),
        (["--cpu", "--time", "soon"], "--time 'soon' cannot be passed on"),
        (["--cpu", "--trian.seed", "7"], "did you mean [train]?"),
    ],
)
def test_a_run_that_cannot_work_is_refused_before_the_queue(
    folder: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert main(["sbatch", "run.toml", "--dry-run", *words]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert said in shown.err
