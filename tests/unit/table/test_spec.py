"""Tests how rows, columns and seeds are read, and every mistake in them."""

import re
from pathlib import Path

import pytest

from ftsys.errors import ConfigError
from ftsys.table.cells import Cell, cells_of, slug
from ftsys.table.spec import parse_seeds, read_spec

RUN = """output_dir = "runs/t"
[task]
name = "mrpc"
[data]
source = "glue"
[train]
learning_rate = 1e-5
[table]
tasks = ["mrpc", "rte"]
seeds = "1..2"
by_task.rte.train.learning_rate = 3e-5
by_task.rte.data.first_rows = {train = 40}
"""
OWN = """[task]
name = "topics"
columns = ["text"]
labels = ["a", "b"]
[data]
source = {train = "t.csv", validation = "v.csv"}
[train]
max_steps = 7
"""
ROW = """[model]
name = "org/large"
[data]
source = "elsewhere"
max_length = 64
[train]
learning_rate = 9e-6
[table]
by_task.rte.train.epochs = 9
"""


@pytest.fixture
def run_file(tmp_path: Path) -> str:
    for name, text in (("run.toml", RUN), ("own.toml", OWN), ("recipe.toml", ROW)):
        (tmp_path / name).write_text(text)
    return str(tmp_path / "run.toml")


def cells(run_file: str, *overrides: str, **asked: object) -> dict[str, Cell]:
    return {cell.name: cell for cell in cells_of(read_spec(run_file, overrides, **asked))}  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("texts", "seeds"),
    [(["1..3"], (1, 2, 3)), (["7"], (7,)), (["1", "3"], (1, 3)), (["1,3", "5..6"], (1, 3, 5, 6))],
)
def test_seeds(texts: list[str], seeds: tuple[int, ...]) -> None:
    assert parse_seeds(texts) == seeds


@pytest.mark.parametrize(
    ("texts", "told"),
    [
        (["5..1"], "seeds '5..1' is an empty range"),
        (["one"], "seeds 'one' is no number and no range"),
        (["1..2", "2"], "names a seed twice"),
        (["1..99999999"], "names 99,999,999 seeds"),
    ],
)
def test_wrong_seeds(texts: list[str], told: str) -> None:
    with pytest.raises(ConfigError, match=told.replace(".", r"\.")):
        parse_seeds(texts)


def test_cells_have_folders_of_their_own_and_by_task_changes_one_column(run_file: str) -> None:
    found = cells(run_file)
    assert list(found) == [f"bundled/{task}/seed-{seed}" for task in ("mrpc", "rte") for seed in (1, 2)]
    mrpc, rte = found["bundled/mrpc/seed-2"].run, found["bundled/rte/seed-2"].run
    assert (mrpc.output_dir, mrpc.train.seed, mrpc.table) == ("runs/t/bundled/mrpc/seed-2", 2, {})
    assert (mrpc.train.learning_rate, rte.train.learning_rate, rte.data.first_rows) == (1e-5, 3e-5, {"train": 40})


def test_rows_and_columns_from_run_files(run_file: str) -> None:
    folder = Path(run_file).parent
    found = cells(
        run_file, models=("bundled", str(folder / "recipe.toml")), tasks=("rte", str(folder / "own.toml")), seeds=("4",)
    )
    assert list(found) == [f"{model}/{task}/seed-4" for model in ("bundled", "recipe") for task in ("rte", "own")]
    own, rte = found["recipe/own/seed-4"].run, found["recipe/rte/seed-4"].run
    assert (own.model.name, own.task.name, own.train.max_steps, own.train.epochs) == ("org/large", "topics", 7, None)
    assert own.data.source == {"train": "t.csv", "validation": "v.csv"}
    assert own.train.learning_rate == 9e-6
    assert (rte.train.learning_rate, rte.train.epochs) == (3e-5, 9)


def test_the_command_line_is_above_by_task(run_file: str) -> None:
    found = cells(run_file, "--train.learning_rate", "7e-5", "--output_dir", "elsewhere")
    assert found["bundled/rte/seed-1"].run.train.learning_rate == 7e-5
    assert found["bundled/rte/seed-1"].folder == Path("elsewhere/bundled/rte/seed-1")


def test_transfer_comes_first_and_marks_its_receivers(run_file: str) -> None:
    found = cells(run_file, tasks=("cola", "rte"), seeds=("3",), transfer="mnli")
    assert list(found) == ["bundled/mnli/seed-3", "bundled/cola/seed-3", "bundled/rte-from-mnli/seed-3"]
    rte = found["bundled/rte-from-mnli/seed-3"]
    assert rte.needs == found["bundled/mnli/seed-3"].folder
    assert (rte.run.model.name, rte.run.model.head) == ("runs/t/bundled/mnli/seed-3/model", "new")
    assert rte.origin.model.name == "bundled"


def test_all_is_glue_without_the_diagnostic_set(run_file: str) -> None:
    tasks = {cell.column for cell in cells(run_file, tasks=("all",)).values()}
    assert tasks == {"cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte", "wnli"}


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"tasks": ("mrcp",)}, "did you mean 'mrpc'"),
        ({"tasks": ("mrpc", "mrpc")}, "two of the tasks have the name 'mrpc'"),
        ({"models": ("a/b", "a--b")}, "two of the models have the name 'a--b'"),
        ({"transfer": "rte"}, "transfer 'rte' is no task to start from"),
    ],
)
def test_wrong_names(run_file: str, asked: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        cells(run_file, **asked)


def test_a_mistake_of_every_column_is_reported(run_file: str) -> None:
    with pytest.raises(ConfigError) as raised:
        cells(run_file, "--train.learning_rate", "-1")
    assert [text.partition(":")[0] for text in raised.value.messages] == ["bundled, mrpc", "bundled, rte"]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("task = ['rte']", "table.task is not a known key: did you mean 'tasks'"),
        ("tasks = 'rte'", "table.tasks: Input should be a valid array"),
        ("seeds = [-1]", "table.seeds"),
        ("seeds = []", r"table.seeds=\[\] names nothing"),
        ("seeds = ''", "table.seeds='' names nothing"),
        ("models = []", r"table.models=\[\] names nothing"),
    ],
)
def test_wrong_keys_of_the_section(tmp_path: Path, line: str, told: str) -> None:
    (tmp_path / "run.toml").write_text(f'output_dir = "r"\n[table]\n{line}\n')
    with pytest.raises(ConfigError, match=told):
        read_spec(str(tmp_path / "run.toml"), ())


def test_a_table_needs_a_folder_and_a_task(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text("")
    with pytest.raises(ConfigError, match="has no task"):
        read_spec(str(tmp_path / "run.toml"), ())
    with pytest.raises(ConfigError, match="sets no output_dir"):
        read_spec(str(tmp_path / "run.toml"), (), tasks=("rte",))


def test_names_of_rows(tmp_path: Path) -> None:
    assert slug("org/model") == "org--model"
    assert slug(str(tmp_path / "my model")) == "my-model"
    assert slug("configs/recipes/minilm.toml") == "minilm"


def test_a_row_sets_values_of_the_data_but_not_its_source(run_file: str) -> None:
    row = str(Path(run_file).parent / "recipe.toml")
    found = cells(run_file, models=("org/small", row))
    assert found["recipe/mrpc/seed-1"].run.data.max_length == 64
    assert found["recipe/mrpc/seed-1"].run.data.source == found["org--small/mrpc/seed-1"].run.data.source
    assert found["org--small/mrpc/seed-1"].run.data.max_length == 128


def test_a_task_of_ones_own_in_a_file_of_a_glue_name_starts_from_no_other(run_file: str) -> None:
    own = Path(run_file).parent / "own.toml"
    own.rename(own.with_name("stsb.toml"))
    found = cells(run_file, tasks=("mnli", "rte", str(own.with_name("stsb.toml"))), transfer="mnli", models=("m",))
    assert {cell.column: cell.start for cell in found.values()} == {"mnli": "", "rte-from-mnli": "mnli", "stsb": ""}


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (
            "by_task.sst-2.train.epochs = 2",
            "table.by_task.sst-2 is no task of this table and no known task: did you mean 'sst2'",
        ),
        (
            "by_task.train.epochs = 2",
            "table.by_task.train is no task of this table and no known task: write one of",
        ),
        ("by_task.all.train.epochs = 2", "table.by_task.all is no task"),
        ("by_task.rte-from-mnli.train.epochs = 2", "table.by_task.rte-from-mnli is no task"),
        ("by_task.cola.train.epochs = 2", ""),
        ("by_task.own.train.epochs = 2", ""),
        ("by_task.mine.train.epochs = 2", ""),
    ],
)
def test_by_task_names_tasks(tmp_path: Path, line: str, told: str) -> None:
    """Tasks of the run file that this call leaves out are no mistake; "all" and sections of a run file are."""
    own = 'output_dir = "r"\n[task]\nname = "mine"\ncolumns = ["text"]\nlabels = ["a", "b"]\n'
    (tmp_path / "own.toml").write_text(OWN)
    wanted = f'[table]\ntasks = ["mrpc", "{tmp_path}/own.toml"]\n'
    (tmp_path / "run.toml").write_text(f"{own}{wanted}{line}\n")
    (tmp_path / "plain.toml").write_text(f"{own}{wanted}")
    (tmp_path / "row.toml").write_text(f'[model]\nname = "m"\n[table]\n{line}\n')
    for name, models in (("run.toml", ()), ("plain.toml", ("bundled", str(tmp_path / "row.toml")))):
        for tasks in ((), ("rte",)):
            if not told:
                assert cells(str(tmp_path / name), models=models, tasks=tasks)
                continue
            with pytest.raises(ConfigError, match=re.escape(told)) as raised:
                cells(str(tmp_path / name), models=models, tasks=tasks)
            assert repr(str(tmp_path / ("row.toml" if models else name))) in raised.value.messages[0]


def test_by_task_of_the_command_line_is_checked_too(run_file: str) -> None:
    with pytest.raises(ConfigError, match=r"table\.by_task\.mrcp .* did you mean 'mrpc'"):
        cells(run_file, "--table.by_task.mrcp.train.epochs", "2")
