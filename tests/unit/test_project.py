"""Tests properties of the repository as a whole."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from ftsys.config import build_run

LINES = 300
README_LINES = 150
SOURCES = ("ftsys", "launcher", "tests", "benchmarks", "tools")


def ours(repository: Path) -> list[Path]:
    """Every file that is or may be committed, as git sees it."""
    listed = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=repository,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode != 0:
        pytest.skip(f"not a git checkout: {listed.stderr.strip()}")
    paths = [repository / name for name in listed.stdout.split("\0") if name]
    return [path for path in paths if path.is_file()]


def spans(text: str) -> str:
    """What a Markdown text shows as code, blocks and spans."""
    return "\n".join(re.findall(r"```.*?```|`[^`\n]+`", text, flags=re.DOTALL))


def documents(repository: Path) -> dict[str, str]:
    """The code, blocks and spans, of README.md, CONTRIBUTING.md and every page of the site, by path."""
    paths = [repository / "README.md", repository / "CONTRIBUTING.md", *(repository / "docs").rglob("*.md")]
    assert len(paths) > 20
    return {str(path.relative_to(repository)): spans(path.read_text(encoding="utf-8")) for path in paths}


def calls_that_load_models(source: str) -> Iterator[ast.Call]:
    """Calls of what runs code that lies beside a model where a user answers yes."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            *_, owner, name = ("", "", *ast.unparse(node.func).split("."))
            if name in ("from_pretrained", "from_config") and owner.startswith("Auto"):
                yield node
            if (owner, name) == ("transformers", "pipeline") or name in ("CrossEncoder", "SentenceTransformer"):
                yield node


def test_each_load_of_a_model_says_whether_its_code_is_trusted(repository: Path) -> None:
    """Without the argument transformers asks at the terminal whether to run the code. `datasets` no longer runs any."""
    found = [
        (path, call)
        for path in ours(repository)
        if path.suffix == ".py"
        and path.relative_to(repository).parts[0] in ("ftsys", "launcher", "benchmarks", "tools")
        for call in calls_that_load_models(path.read_text(encoding="utf-8"))
    ]
    assert len(found) > 20
    silent = [
        f"{path.relative_to(repository)}:{call.lineno}"
        for path, call in found
        if "trust_remote_code" not in [keyword.arg for keyword in call.keywords]
    ]
    assert silent == []


PICKLING = {
    *("broadcast_object_list", "all_gather_object", "gather_object", "scatter_object_list"),
    *("send_object_list", "recv_object_list", "pickle", "cloudpickle", "dill"),
}
"""Functions of torch and accelerate that send objects as pickles, and modules that read and write pickles."""
MAY_PICKLE: list[str] = []


def names_in(source: str) -> Iterator[tuple[str, int]]:
    """Each name that the code mentions, attributes and imports included, with its line."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute):
            yield node.attr, node.lineno
        elif isinstance(node, ast.Name):
            yield node.id, node.lineno
        elif isinstance(node, ast.Import | ast.ImportFrom):
            of = (getattr(node, "module", None) or "").split(".")
            for name in (*of, *(part for alias in node.names for part in alias.name.split("."))):
                yield name, node.lineno


def test_no_message_between_ranks_is_a_pickle(repository: Path) -> None:
    """Whoever takes a rank's place could run code on the others: `ftsys.distributed` sends JSON."""
    assert {"gather_object", "pickle"} <= {name for name, _ in names_in("import pickle\nx.gather_object(y)")}
    assert "scatter_object_list" in dict(names_in("from torch.distributed import scatter_object_list as send"))
    found = [
        f"{path.relative_to(repository)}:{line}: {name}"
        for path in ours(repository)
        if path.suffix == ".py" and path.relative_to(repository).parts[0] in ("ftsys", "launcher")
        for name, line in names_in(path.read_text(encoding="utf-8"))
        if name in PICKLING
    ]
    assert [place for place in found if place.split(":")[0] not in MAY_PICKLE] == []


def test_every_file_has_one_job(repository: Path) -> None:
    files = [path for path in ours(repository) if path.suffix == ".py"]
    assert {repository / top for top in SOURCES} <= {parent for path in files for parent in path.parents}
    long = {str(path.relative_to(repository)): count for path in files if (count := len(lines(path))) > LINES}
    assert long == {}


def lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def test_no_file_names_the_place_it_was_written_in(repository: Path) -> None:
    # Built from parts, so that this file passes its own test.
    places = ["/" + "work" + "/", "/" + "opt" + "/ft", "/" + "opt" + "/wheels", "/" + "root" + "/", "/" + "tmp" + "/w/"]
    pattern = re.compile("|".join(re.escape(place) for place in places).encode())
    files = ours(repository)
    assert len(files) > 30
    named = {
        f"{path.relative_to(repository)}: {found.group().decode()}"
        for path in files
        if (found := pattern.search(path.read_bytes()))
    }
    assert named == set()


def test_the_make_commands_that_are_documented_exist(repository: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (repository / "Makefile").read_text(), flags=re.MULTILINE))
    code = [(repository / ".ci/run").read_text(), *documents(repository).values()]
    named = {word for text in code for word in re.findall(r"^`?(?:\w+=\S+ )*make ([a-z-]+)\b", text, re.MULTILINE)}
    assert {"demo", "test", "check", "docs"} <= named
    assert named <= targets


def test_the_ftsys_commands_that_are_documented_exist(repository: Path) -> None:
    for program, module, some in (("ftsys", "ftsys", {"train", "prepare"}), ("ftlaunch", "launcher", {"run", "plan"})):
        called = rf"(?:^|`|[$:&] |-m |--module ){program} ([a-z][a-z-]*)\b"
        named = {word for text in documents(repository).values() for word in re.findall(called, text, re.MULTILINE)}
        shown = subprocess.run(
            [sys.executable, "-m", module, "--help"], cwd=repository, capture_output=True, text=True, check=False
        )
        assert shown.returncode == 0, shown.stderr
        assert some <= named <= set(re.findall(r"[a-z-]+", shown.stdout))


def test_files_that_are_documented_exist(repository: Path) -> None:
    pattern = r"\b((?:ftsys|launcher|tests|configs|slurm|tools)/[\w/.-]+)"
    named = {name for text in documents(repository).values() for name in re.findall(pattern, text)}
    assert len(named) > 10
    assert [name for name in sorted(named) if not (repository / name).exists()] == []


def test_the_readme_is_short_and_its_links_lead_to_files(repository: Path) -> None:
    """mkdocs checks the links of the site's pages: README.md is none of them."""
    text = (repository / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= README_LINES, "the README is an entrance; docs/ has room for the rest"
    links = re.findall(r"\]\(([^)#]+)|(?:src|srcset)=\"([^\"]+)", text)
    named = {link or picture for link, picture in links}
    assert len(named) > 20
    assert [name for name in sorted(named) if not (repository / name).is_file()] == []


def test_run_files_that_are_documented_load(repository: Path) -> None:
    texts = [text for name, text in documents(repository).items() if name != "CONTRIBUTING.md"]
    blocks = [block for text in texts for block in re.findall(r"```toml\n(.*?)```", text, flags=re.DOTALL)]
    assert len(blocks) >= 2
    for block in blocks:  # some are the part of a run file, or of a table, that a page is about
        build_run({"output_dir": "runs/documented", "task": {"name": "mrpc"}} | tomllib.loads(block))


def pinned(path: Path) -> dict[str, str]:
    """Package -> version in a file of constraints."""
    pins = [line.partition("==") for line in lines(path) if not line.startswith("#")]
    return {str(canonicalize_name(name)): version for name, _, version in pins}


def requirements(repository: Path, without: tuple[str, ...] = ()) -> list[Requirement]:
    """What pyproject.toml asks for, with all extras but some."""
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    extras = [asked for name, asked in project["optional-dependencies"].items() if name not in without]
    return [Requirement(text) for texts in (project["dependencies"], *extras) for text in texts]


def test_the_tested_versions_are_within_what_is_asked_for(repository: Path) -> None:
    tested, asked = pinned(repository / "constraints.txt"), requirements(repository)
    assert len(asked) > 20
    wrong = [each for each in asked if tested.get(canonicalize_name(each.name), "") not in each.specifier]
    assert wrong == []
    assert "+" not in "".join(tested.values()), "a local version would tie the build of torch to one kind of machine"


@pytest.mark.parametrize("name", ["oldest", "newest"])
def test_other_sets_of_versions_are_within_what_is_asked_for(name: str, repository: Path) -> None:
    pins = pinned(repository / f"constraints/{name}.txt")
    assert len(pins) > 5
    asked = [each for each in requirements(repository) if canonicalize_name(each.name) in pins]
    assert [str(each) for each in asked if pins[canonicalize_name(each.name)] not in each.specifier] == []


def test_the_oldest_set_is_the_lower_end_of_every_range(repository: Path) -> None:
    """But for developers' tools, which are the tested ones in every set."""
    pins = pinned(repository / "constraints.txt") | pinned(repository / "constraints/oldest.txt")
    for each in requirements(repository, without=("bench", "dev", "docs")):
        for bound in each.specifier:
            if bound.operator == ">=":
                assert Version(pins[canonicalize_name(each.name)]) == Version(bound.version), each.name


def test_ci_can_be_started(repository: Path) -> None:
    script = repository / ".ci/run"
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", str(script)], check=True)
