"""A bundle: what is in it, whose it is, what is refused, and that a damaged one is found."""

import hashlib
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

import pytest

from ftsys.cli import main
from ftsys.config import RunConfig, build_run, load_run, resolve_task, run_identity
from ftsys.data.bundle import Bundle, model_folder_of, verify_bundle
from ftsys.data.hub_offline import OFFLINE_VARIABLES, switch_hub_off
from ftsys.data.prepare import ensure_store
from ftsys.errors import ConfigError, DataError
from ftsys.files.untrusted import FileEntry
from ftsys.model_files.folder import model_files
from ftsys.offline.make_bundle import make_bundle
from tests.unit.offline.conftest import bundled, run_tree


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test switches off is as before afterwards."""
    for name in OFFLINE_VARIABLES:
        monkeypatch.setenv(name, "1")


def test_it_holds_all_and_goes_where_it_is_moved(run: RunConfig, tmp_path: Path) -> None:
    tokens = ensure_store(run, resolve_task(run)).splits["train"].gather([0, 5]).tokens.tolist()
    bundled(run, tmp_path / "deep/bundle")
    for gone in ("my-model", "stores"):
        shutil.rmtree(tmp_path / gone)
    (tmp_path / "train.csv").unlink()
    moved = (tmp_path / "deep/bundle").rename(tmp_path / "elsewhere")
    theirs = load_run(moved / "run.toml")
    store = ensure_store(theirs, resolve_task(theirs))
    assert store.splits["train"].gather([0, 5]).tokens.tolist() == tokens
    assert store.path.parent.parent == moved
    folder = model_folder_of(theirs)
    assert (folder, sorted(path.name for path in folder.iterdir())) == (moved / "model", sorted(model_files(folder)))
    assert not any(path.is_symlink() for path in moved.rglob("*"))
    assert verify_bundle(moved) == []


def test_the_run_from_a_bundle_is_the_same_run(run: RunConfig, tmp_path: Path) -> None:
    bundled(run, tmp_path / "bundle")
    theirs = load_run(tmp_path / "bundle/run.toml")
    assert run_identity(theirs) == run_identity(run)
    assert theirs.output_dir == run.output_dir
    assert theirs.data.store == "auto", "the login node's place means nothing elsewhere"
    assert theirs.bundle == str(tmp_path / "bundle")


def test_a_second_call_verifies_and_changes_nothing(run: RunConfig, tmp_path: Path) -> None:
    bundled(run, tmp_path / "bundle")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "bundle").rglob("*")}
    _, made = make_bundle(run, resolve_task(run), tmp_path / "bundle")
    assert not made
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "bundle").rglob("*")} == before
    weights = tmp_path / "bundle/model/model.safetensors"
    flip_a_byte(weights)
    with pytest.raises(DataError, match=r"model\.safetensors is damaged"):
        make_bundle(run, resolve_task(run), tmp_path / "bundle")


def test_it_needs_no_recipe_and_one_that_names_it_stays_valid(run: RunConfig, tmp_path: Path) -> None:
    recipe = tmp_path / "mine.toml"
    recipe.write_text("[train]\nepochs = 5\n")
    run = build_run(run_tree(tmp_path, recipe=str(recipe)))
    bundle = bundled(run, tmp_path / "bundle")
    as_earlier_versions_made_it(bundle, lambda text: f'recipe = "{recipe}"\n{text}')
    assert load_run(tmp_path / "bundle/run.toml").recipe
    assert not make_bundle(run, resolve_task(run), tmp_path / "bundle")[1]
    shutil.rmtree(tmp_path / "bundle")
    bundled(run, tmp_path / "bundle")
    recipe.unlink()
    assert load_run(tmp_path / "bundle/run.toml").train.epochs == 5.0


def test_a_bundle_made_with_the_old_word_stays_valid(tmp_path: Path, minilm_folder: Path) -> None:
    tree = run_tree(tmp_path, task={"name": "paraphrase"}, model={"name": "bundled"})
    tree["data"] = {"source": "synthetic", "store": str(tmp_path / "stores"), "first_rows": {"train": 8}}
    run = build_run(tree)
    embedded = {"model.name": "embedded", "data.source": "embedded"}
    bundle = as_earlier_versions_made_it(bundled(run, tmp_path / "bundle"), in_old_words, embedded)
    theirs = load_run(tmp_path / "bundle/run.toml")
    assert theirs.model.name == "bundled"
    assert ensure_store(theirs, resolve_task(theirs)).fingerprint == bundle.store
    found, made = make_bundle(run, resolve_task(run), tmp_path / "bundle")
    assert (found, made) == (bundle, False)
    other = build_run(tree | {"train": {"seed": 7}})
    with pytest.raises(ConfigError, match=r"bundle of something else \(run\.toml differ\)"):
        make_bundle(other, resolve_task(other), tmp_path / "bundle")


def in_old_words(text: str) -> str:
    return text.replace('"synthetic"', '"embedded"').replace('"bundled"', '"embedded"')


def as_earlier_versions_made_it(
    bundle: Bundle, change: Callable[[str], str], asked: Mapping[str, str] = MappingProxyType({})
) -> Bundle:
    """The same bundle with a changed run.toml, and with some other values in bundle.json."""
    path = bundle.path / "run.toml"
    text = change(path.read_text())
    path.write_text(text)
    entry = FileEntry(bytes=path.stat().st_size, sha256=hashlib.sha256(text.encode()).hexdigest())
    old = replace(bundle, asked={**bundle.asked, **asked}, files={**bundle.files, "run.toml": entry})
    (bundle.path / "bundle.json").write_bytes(old.to_bytes())
    return old


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_the_current_folder_is_no_place_for_a_bundle(
    run: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(ConfigError, match="name a folder that does not exist yet"):
        make_bundle(run, resolve_task(run), Path())


def test_something_else_is_not_overwritten(run: RunConfig, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match="is there and is not a bundle"):
        make_bundle(run, resolve_task(run), mine)
    bundled(run, tmp_path / "bundle")
    other = build_run(run_tree(tmp_path, train={"seed": 7}))
    with pytest.raises(ConfigError, match=r"bundle of something else \(run\.toml differ\)"):
        make_bundle(other, resolve_task(other), tmp_path / "bundle")
    theirs = load_run(tmp_path / "bundle/run.toml")
    with pytest.raises(ConfigError, match="copy that folder instead"):
        make_bundle(theirs, resolve_task(theirs), tmp_path / "another")
    assert (mine / "thesis.txt").read_text() == "years of work"
    assert not (tmp_path / "another").exists()


def test_a_link_out_of_the_model_folder_is_not_copied(run: RunConfig, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("key")
    vocab = tmp_path / "my-model/vocab.txt"
    vocab.rename(tmp_path / "my-model/own-vocab.txt")
    vocab.symlink_to("own-vocab.txt")
    bundled(run, tmp_path / "bundle")
    (tmp_path / "my-model/added_tokens.json").symlink_to(secret)
    with pytest.raises(ConfigError, match=r"added_tokens.json' is a link to '.*secret', outside the model folder"):
        make_bundle(run, resolve_task(run), tmp_path / "another")
    assert not (tmp_path / "another").exists()


def test_what_a_killed_maker_left_is_removed(run: RunConfig, tmp_path: Path) -> None:
    left = tmp_path / "bundle.tmp-123"
    left.mkdir()
    bundled(run, tmp_path / "bundle")
    assert [path.name for path in tmp_path.glob("bundle*")] == ["bundle"]


def test_a_failure_leaves_nothing(run: RunConfig, tmp_path: Path) -> None:
    broken = run.model_copy(update={"engine": run.engine.model_copy(update={"deepspeed": str(tmp_path / "no.json")})})
    with pytest.raises(ConfigError, match=r"no\.json', which the run needs, cannot be read"):
        make_bundle(broken, resolve_task(broken), tmp_path / "bundle")
    assert list(tmp_path.glob("bundle*")) == []


def test_a_store_damaged_on_the_way_is_not_passed_on(
    run: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ensure_store(run, resolve_task(run))
    monkeypatch.setattr(
        "ftsys.offline.make_bundle.ensure_store", lambda *_: store
    )  # too large a store to be read at opening
    flip_a_byte(store.path / "train.arrow")
    with pytest.raises(DataError, match=r"train\.arrow: is damaged"):
        make_bundle(run, resolve_task(run), tmp_path / "bundle")
    assert list(tmp_path.glob("bundle*")) == []


def test_the_users_own_deepspeed_file_goes_along(run: RunConfig, tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text('{"gradient_clipping": 1.0}')
    tree = run_tree(tmp_path, engine={"deepspeed": str(tmp_path / "mine.json")})
    bundled(build_run(tree), tmp_path / "bundle")
    moved = (tmp_path / "bundle").rename(tmp_path / "moved")
    assert load_run(moved / "run.toml").engine.deepspeed == str(moved / "deepspeed.json")
    assert (moved / "deepspeed.json").read_text() == '{"gradient_clipping": 1.0}'


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("--data.max_length=32", r"data\.max_length=32 is not what the bundle .* was made for, which is 64"),
        ("--model.name=bert-base-uncased", r"model\.name='bert-base-uncased' is not what the bundle"),
        ("--task.labels=['up', 'down']", r"task\.labels=\['up', 'down'\] is not what .* which is \['down', 'up'\]"),
    ],
)
def test_a_run_that_asks_for_something_else_is_told_both_values(
    run: RunConfig, tmp_path: Path, override: str, said: str
) -> None:
    bundled(run, tmp_path / "bundle")
    theirs = load_run(tmp_path / "bundle/run.toml", [override])
    with pytest.raises(ConfigError, match=said):
        ensure_store(theirs, resolve_task(theirs))


def test_an_edited_run_file_trains(run: RunConfig, tmp_path: Path) -> None:
    bundled(run, tmp_path / "bundle")
    path = tmp_path / "bundle/run.toml"
    path.write_text(path.read_text().replace("epochs = 3.0", "epochs = 12.5"))
    theirs = load_run(path)
    assert ensure_store(theirs, resolve_task(theirs)).splits["train"].rows == 8
    assert len(verify_bundle(tmp_path / "bundle")) == 1


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda folder: (folder / "model/vocab.txt").unlink(), r"vocab\.txt cannot be read"),
        (lambda folder: (folder / "model/vocab.txt").write_text("short"), r"vocab\.txt has 5 bytes instead of"),
        (lambda folder: flip_a_byte(folder / "model/model.safetensors"), r"model\.safetensors is damaged: its sha256"),
        (lambda folder: (folder / "model/more.bin").touch(), r"more\.bin is not in bundle\.json"),
        (lambda folder: (folder / "bundle.json").unlink(), "is not a bundle"),
        (lambda folder: (folder / "bundle.json").write_text("[]"), "holds no bundle's list"),
        (
            lambda folder: flip_in(folder / "bundle.json", '"data.max_length": 64', '"data.max_length": 65'),
            "is damaged",
        ),
        (lambda folder: flip_in(folder / "bundle.json", '"format": 1', '"format": 2'), "bundle format 2, this"),
    ],
)
def test_a_damaged_bundle_is_refused(run: RunConfig, tmp_path: Path, harm: Any, said: str) -> None:
    bundled(run, tmp_path / "bundle")
    theirs = load_run(tmp_path / "bundle/run.toml")
    harm(tmp_path / "bundle")
    with pytest.raises(DataError, match=said):
        ensure_store(theirs, resolve_task(theirs))


def flip_in(path: Path, text: str, other: str) -> None:
    before = path.read_text()
    assert text in before
    path.write_text(before.replace(text, other))


def test_another_tokenizer_of_the_same_size_is_found(
    run: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")  # rank 0 would have found it by the hash
    bundled(run, tmp_path / "bundle")
    vocabulary = tmp_path / "bundle/model/vocab.txt"
    vocabulary.write_bytes(vocabulary.read_bytes().replace(b"[unused9]", b"[unused_]", 1))
    theirs = load_run(tmp_path / "bundle/run.toml")
    with pytest.raises(DataError, match="made with another tokenizer"):
        ensure_store(theirs, resolve_task(theirs))


def test_a_data_set_in_memory_does_not_go_with_a_bundle(run: RunConfig, tmp_path: Path) -> None:
    with_bundle = run.model_copy(update={"bundle": str(tmp_path)})
    with pytest.raises(ConfigError, match="has its own store"):
        ensure_store(with_bundle, resolve_task(run), source=object())


def test_the_hub_is_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in OFFLINE_VARIABLES:
        monkeypatch.setenv(name, "0")
    imported = ModuleType("huggingface_hub.constants")
    monkeypatch.setitem(sys.modules, "huggingface_hub.constants", imported)
    monkeypatch.setitem(sys.modules, "datasets.config", imported)
    imported.HF_HUB_OFFLINE = True  # type: ignore[attr-defined]
    switch_hub_off()
    assert [os.environ[name] for name in OFFLINE_VARIABLES] == ["1", "1", "1"]
    imported.HF_HUB_OFFLINE = False  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="was imported with HF_HUB_OFFLINE=False"):
        switch_hub_off()


def test_verify_and_the_commands_words(
    run: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    bundled(run, tmp_path / "bundle")
    assert main(["verify", "bundle"]) == 0
    assert capsys.readouterr().out == "bundle: whole\n"
    flip_a_byte(tmp_path / "bundle/run.toml")
    assert main(["verify", "bundle"]) == 2
    assert "bundle: bundle/run.toml is damaged: its sha256" in capsys.readouterr().out
