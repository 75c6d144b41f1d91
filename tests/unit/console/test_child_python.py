"""Tests that no Python which ftsys or ftlaunch starts takes modules from the current folder."""

import ast
import re
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from ftsys.console import child_python
from ftsys.console.child_python import SAFE_PATH, pass_on_own_folder, python_command
from ftsys.demo.command import Devices, launch_command, rank_environment
from launcher.command_lines import LaunchSpec, agent_command, launcher_command, srun_command, ssh_command
from tools.imports import sources

BUILDER = "ftsys.console.child_python"
LAUNCH = LaunchSpec("torchrun", 1, 2, "127.0.0.1", 17_000, "abc", ("train", "run.toml"), "/logs")


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    """Each call, with the last part of the function's name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name):
            yield node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id, node


def is_interpreter(node: ast.expr) -> bool:
    """True for sys.executable."""
    return "executable" in (getattr(node, "attr", ""), getattr(node, "id", ""))


def is_python(node: ast.expr) -> bool:
    """True for a variable `python` and for a word such as "python3"; both may be something else than a command."""
    if isinstance(node, ast.Constant):
        return isinstance(node.value, str) and re.fullmatch(r"(.*/)?python[\d.]*", node.value) is not None
    return isinstance(node, ast.Name) and node.id == "python"


def is_option(node: ast.expr, *options: str) -> bool:
    """True for one of the options; without any, for a word that begins like one and for words from another list."""
    if isinstance(node, ast.Starred):
        return not options
    said = node.value if isinstance(node, ast.Constant) else None
    return said in options if options else isinstance(said, str) and said.startswith("-")


def is_command(words: list[ast.expr]) -> bool:
    """True for words that start Python."""
    if any(is_interpreter(word) or is_option(word, "-m", "-c") for word in words):
        return True
    return any(is_python(first) and is_option(second) for first, second in pairwise(words))


def unsafe_lines(source: str) -> list[int]:
    """Lines in which a command of Python is written by other means than `python_command`."""
    tree = ast.parse(source)
    lists = [node for node in ast.walk(tree) if isinstance(node, ast.List | ast.Tuple)]
    found = [node.lineno for node in lists if is_command(node.elts)]
    for name, call in calls(tree):
        options = any(is_option(each, "-m", "-c") for each in call.args) and name != "python_command"
        started = any(map(is_interpreter, call.args)) and not name.endswith("_command") and name != "execv"
        found += [call.lineno] if options or started else []
    return sorted(set(found))


def test_each_command_of_python_comes_from_one_function(repository: Path) -> None:
    texts = {name: path.read_text(encoding="utf-8") for name, path in sources(repository).items() if name != BUILDER}
    assert {name: lines for name, text in texts.items() if (lines := unsafe_lines(text))} == {}
    built = [name for name, text in texts.items() for called, _ in calls(ast.parse(text)) if called == "python_command"]
    assert len(built) >= 19


@pytest.mark.parametrize(
    "source",
    [
        "subprocess.run([sys.executable, '-m', 'ftsys'])",
        "PROGRAM = (executable, *words)",
        "def command(python): return [python, '-u', *words]",
        "os.execv(sys.executable, [sys.executable, '-c', code])",
        "run(['env', 'A=1', '/usr/bin/python3.12', '-u', script])",
        "run(command('-m', 'ftsys'))",
        "subprocess.run(sys.executable)",
    ],
)
def test_a_new_command_line_would_be_found(source: str) -> None:
    assert unsafe_lines(source) == [1]


@pytest.mark.parametrize(
    "command",
    [
        python_command("-m", "ftsys"),
        agent_command("/venv/python"),
        launcher_command("/venv/python", LAUNCH, 0),
        launcher_command("/venv/python", LaunchSpec(**{**LAUNCH.as_fields(), "launcher": "deepspeed"}), 0),
        srun_command("/venv/python", ("node1", "node2"), {}),
        ssh_command("node1", "/venv/python", "/home/me", {})[-1].split(),
        launch_command(Devices((), 2), 17_000, ["train"]),
    ],
)
def test_the_option_comes_right_after_python(command: list[str]) -> None:
    place = next(number for number, word in enumerate(command) if word.endswith(("python", Path(sys.executable).name)))
    assert command[place + 1] == "-P"


def test_launchers_that_start_python_themselves_get_the_variable(repository: Path) -> None:
    assert SAFE_PATH == {"PYTHONSAFEPATH": "1"}
    assert rank_environment(Devices((), 2), {}) | SAFE_PATH == rank_environment(Devices((), 2), {})
    for name in ("job.sh", "node.sh"):
        assert "\nexport PYTHONSAFEPATH=1" in (repository / "slurm" / name).read_text()


def test_each_python_of_the_slurm_scripts_has_the_option(repository: Path) -> None:
    texts = [path.read_text() for path in sorted((repository / "slurm").iterdir())]
    started = [word for text in texts for word in re.findall(r'"\$(?:FTSYS_PYTHON|python)" (-\S+ -\S+)', text)]
    assert started == ["-P -m"] * 6
    uses = [line for text in texts for line in text.splitlines() if re.search(r'"\$(FTSYS_PYTHON|python)"', line)]
    assert [line for line in uses if " -P -m " not in line and "command -v" not in line] == []


@pytest.fixture
def found_in(monkeypatch: pytest.MonkeyPatch) -> str:
    """A folder in which `python -m` has found ftsys."""
    monkeypatch.setattr(child_python, "_OWN_FOLDER", "/checkout")
    monkeypatch.setattr(sys, "path", ["/checkout", "/usr/lib"])
    return "/checkout"


@pytest.mark.parametrize(
    ("before", "after"),
    [(None, "/checkout"), ("/a::/b", "/checkout:/a:/b"), ("/a:/checkout", "/a:/checkout")],
)
@pytest.mark.usefixtures("found_in")
def test_a_checkout_in_the_current_folder_is_passed_on(before: str | None, after: str) -> None:
    environ = {} if before is None else {"PYTHONPATH": before}
    pass_on_own_folder(environ)
    assert environ == {"PYTHONPATH": after}


@pytest.mark.usefixtures("found_in")
def test_nothing_else_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a console script was started, whose own folder comes first, in somebody's folder of models."""
    for path in (["/venv/bin", "/checkout"], []):
        monkeypatch.setattr(sys, "path", path)
        environ: dict[str, str] = {}
        pass_on_own_folder(environ)
        assert environ == {}
