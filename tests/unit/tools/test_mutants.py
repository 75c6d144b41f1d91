"""Tests the tool that changes code: the changes it makes, its samples, its trials on a made-up tree, and its page."""

from pathlib import Path

import pytest

from tools.mutants.__main__ import ROOT, Bench
from tools.mutants.mutant import mutants_of, sample
from tools.mutants.results import (
    EXPLAINED,
    PAGE,
    RESULTS,
    Explanations,
    Result,
    page,
    read_results,
    unexplained,
    write_results,
)
from tools.mutants.targets import TARGETS, Module
from tools.mutants.tree import Tree

CODE = '''"""Add."""
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    ZERO = 0
LIMIT: int = 3


@decorated(size=1)
def add(numbers, most: "int" = 2):
    """Return 0."""
    assert most > 1, f"{most + 1} é"
    if most < LIMIT and not numbers: raise ValueError
    return sorted(numbers, reverse=True)[: most]
'''


def test_each_change_is_made_once_at_its_own_place() -> None:
    source = CODE.encode()
    changed = {mutant.applied(source).decode() for mutant in mutants_of("a.py", source)}
    expected = {
        ("LIMIT: int = 3", "LIMIT: int = 4"),
        ('most: "int" = 2', 'most: "int" = 3'),
        ("most < LIMIT and not numbers", "(most < LIMIT or not numbers)"),
        ("most < LIMIT", "(most <= LIMIT)"),
        ("most < LIMIT", "(most >= LIMIT)"),
        ("not numbers", "numbers"),
        ("raise ValueError", "pass"),
        ("return sorted(numbers, reverse=True)[: most]", "return None"),
        ("sorted(numbers, reverse=True)", "(sorted(numbers))"),
        ("reverse=True", "reverse=False"),
    }
    assert changed == {CODE.replace(before, after) for before, after in expected}


@pytest.mark.parametrize(
    ("code", "after"),
    [
        ("x = a + -b", {"x = (a - -b)", "x = a + b"}),
        ("x += 1", {"x -= 1", "pass", "x += 2"}),
        ("x[0] = f()", {"pass", "x[1] = f()"}),
        ("x = 1 if a else b", {"x = 1 if (not a) else b", "x = 2 if a else b"}),
        ("x = [a for a in b if a]", {"x = [a for a in b if (not a)]"}),
        ("min(a)", {"pass", "max(a)"}),
        ("del a", {"pass"}),
        ("x = a is None", {"x = (a is not None)"}),
        ("x = 'a' \"b\"", set[str]()),
        ("Kind = Literal[1]", set[str]()),
        ("T = TypeVar('T', covariant=True)", set[str]()),
    ],
)
def test_kinds_of_changes(code: str, after: set[str]) -> None:
    assert {mutant.applied(code.encode()).decode() for mutant in mutants_of("a.py", code.encode())} == after


def test_names_tell_equal_changes_apart_and_stay_when_lines_move() -> None:
    code = "def f(a):\n    return a + 1, a + 1\n"
    names = [mutant.name for mutant in mutants_of("a.py", code.encode())]
    assert "a.py f: a + 1 -> (a - 1)" in names
    assert "a.py f: a + 1 -> (a - 1) (2)" in names
    assert [mutant.name for mutant in mutants_of("a.py", b"import b\n" + code.encode())] == names


def test_a_sample_follows_from_the_seed_and_hardly_from_other_lines() -> None:
    body = b"".join(b"def f%d(a):\n    return a + %d\n" % (index, index) for index in range(30))
    mutants = mutants_of("a.py", body)
    chosen = [mutant.name for mutant in sample(mutants, 10, 1)]
    assert len(chosen) == 10
    assert chosen != [mutant.name for mutant in sample(mutants, 10, 2)]
    more = [mutant.name for mutant in sample(mutants_of("a.py", b"LIMIT = 1\n" + body), 10, 1)]
    assert len(set(chosen) & set(more)) >= 9


def exists(repository: Path, test: str) -> bool:
    name, _, function = test.partition("::")
    return f"def {function}" in (repository / name).read_text()


def test_every_change_of_every_target_compiles_and_its_tests_exist(repository: Path) -> None:
    for modules in TARGETS.values():
        for module in modules:
            source = (repository / module.path).read_bytes()
            mutants = mutants_of(module.path, source)
            assert len({mutant.name for mutant in mutants}) == len(mutants) > 0
            for mutant in mutants:
                compile(mutant.applied(source), module.path, "exec")
            assert [test for test in (*module.tests, *module.slow_tests) if not exists(repository, test)] == []


TREE = {
    "pyproject.toml": "[tool.pytest.ini_options]\nmarkers = ['long', 'gpu', 'cluster']\npythonpath = ['.']\n",
    "ftsys/__init__.py": "",
    "ftsys/count.py": "def below(n):\n    while n > 3:\n        n -= 1\n    return n + 0\n",
    "test_count.py": "from ftsys.count import below\n\ndef test_below():\n    assert [below(6), below(2)] == [3, 2]\n",
    "test_slow.py": "from ftsys.count import below\n\n\ndef test_zero():\n    assert below(0) == 0\n",
}


@pytest.mark.long
def test_a_made_up_tree_is_tried_and_left_as_it_was(tmp_path: Path) -> None:
    """Three mutants never end: each is given 20 seconds, so that a busy machine ends no other one by time."""
    for name, text in TREE.items():
        (tmp_path / "from" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "from" / name).write_text(text)
    bench = Bench(Tree(tmp_path / "from", tmp_path / "tree"), tmp_path / "trial", grace=20.0)
    modules = (Module("ftsys/count.py", ("test_count.py",), ("test_slow.py",)),)
    result = bench.result_of(modules, 99, 0, None)
    place = "ftsys/count.py below: "
    assert result.survivors == [f"{place}n + 0 -> (n - 0)"]
    assert (result.mutants, result.tried, result.killed) == (9, 9, 8)
    assert result.timed_out == 3, "a negated condition and a step that is dropped or turned round never end"
    assert (tmp_path / "tree/ftsys/count.py").read_text() == TREE["ftsys/count.py"]
    again = bench.result_of(modules, 99, 0, Result(9, 9, 5, 2, [result.survivors[0], f"{place}n + 0 -> gone"]))
    assert (again.tried, again.survivors) == (8, result.survivors)


def test_tests_that_fail_without_a_change_are_an_error(tmp_path: Path) -> None:
    for name, text in (TREE | {"test_count.py": "def test_no():\n    assert False\n"}).items():
        (tmp_path / "from" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "from" / name).write_text(text)
    bench = Bench(Tree(tmp_path / "from", tmp_path / "tree"), tmp_path / "trial")
    for test, said in (("test_count.py", "unchanged code does not pass"), ("test_none.py", "could not be run")):
        with pytest.raises(RuntimeError, match=said):
            bench.result_of((Module("ftsys/count.py", (test,)),), 1, 0, None)


def test_results_are_kept_and_survivors_explained(tmp_path: Path) -> None:
    results = {"one": Result(30, 10, 7, 1, ["a.py f: x | 1 -> (x & 1)", "a.py f: b -> pass"])}
    write_results(tmp_path / "results.json", results)
    assert read_results(tmp_path / "results.json") == results
    toml = '[kinds]\nspeed = "Only time differs."\n\n[speed]\n"a.py f: b -> pass" = "It is a cache."\n'
    (tmp_path / "explained.toml").write_text(toml)
    explained = Explanations.read(tmp_path / "explained.toml")
    assert unexplained(results, explained) == ["a.py f: x | 1 -> (x & 1)"]
    text = page(results, explained)
    assert "| one | 30 | 10 | 8 | 1 | 1 | 1 | 80 |" in text
    assert "| a.py f | `` b -> pass `` | It is a cache. |" in text
    assert "## Not explained" in text
    assert r"`` x \| 1 -> (x & 1) ``" in text
    (tmp_path / "explained.toml").write_text('[speed]\n"x" = "y"\n')
    with pytest.raises(ValueError, match=r"speed is not in \[kinds\]"):
        Explanations.read(tmp_path / "explained.toml")


def test_the_page_is_what_results_and_explanations_say() -> None:
    results, explained = read_results(ROOT / RESULTS), Explanations.read(ROOT / EXPLAINED)
    assert list(results) == [name for name in TARGETS if name in results]
    assert (ROOT / PAGE).read_text(encoding="utf-8") == page(results, explained)
    assert unexplained(results, explained) == []
