"""Tests that no library runs compiled code from a folder to which another user could write, for each variable."""

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ftsys.errors import ConfigError
from ftsys.kernels import compiled_norm, library_caches
from ftsys.kernels.library_caches import check_extensions, check_inductor, check_triton, settle_inductor
from ftsys.train.deepspeed_setup import prepare_deepspeed

AS_ROOT = pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file to another user")
NOBODY = 65534
SET = {
    "TORCH_EXTENSIONS_DIR": (check_extensions, ""),
    "TORCHINDUCTOR_CACHE_DIR": (check_inductor, ""),
    "TRITON_CACHE_DIR": (check_triton, ""),
    "TRITON_HOME": (check_triton, ".triton/cache"),
    "XDG_CACHE_HOME": (check_extensions, "torch_extensions"),
}
"""Each variable that a user may set, with what checks it, and the folder in it that holds code."""
each_variable = pytest.mark.parametrize(("name", "check", "inside"), [(name, *row) for name, row in SET.items()])
Check = Callable[[], None]


@pytest.fixture(autouse=True)
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that every user may enter, as on a shared disk, with a home; pytest's own folder lets nobody else in."""
    with tempfile.TemporaryDirectory() as made:
        Path(made).chmod(0o755)
        (Path(made) / "home").mkdir(0o755)
        for name in SET:
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HOME", f"{made}/home")
        monkeypatch.setenv("FTSYS_CACHE", f"{made}/ftsys")
        yield Path(made)


def made(place: Path, inside: str, mode: int = 0o755) -> tuple[Path, Path]:
    """The folder that a variable names, and the one in it that holds code."""
    folder = place / "set"
    (folder / inside).mkdir(parents=True, exist_ok=True)
    (folder / inside).chmod(mode)
    return folder, folder / inside


@each_variable
def test_a_folder_of_the_users_own_is_used(
    place: Path, monkeypatch: pytest.MonkeyPatch, name: str, check: Check, inside: str
) -> None:
    folder, code = made(place, inside)
    monkeypatch.setenv(name, str(folder))
    (code / "op").mkdir(0o755)
    (code / "op/op.so").touch(0o755)
    check()
    assert os.environ[name] == str(folder)


@each_variable
@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o757])
def test_one_that_others_may_write_to_is_refused(
    place: Path, monkeypatch: pytest.MonkeyPatch, name: str, check: Check, inside: str, mode: int
) -> None:
    folder, code = made(place, inside, mode)
    monkeypatch.setenv(name, str(folder))
    remedy = "TORCH_EXTENSIONS_DIR" if name == "XDG_CACHE_HOME" else name
    text = f"'{code}' holds code that would be run, but other users may write to it .mode {mode:o}.*set {remedy} to a"
    with pytest.raises(ConfigError, match=text):
        check()
    assert os.environ[name] == str(folder)


@each_variable
@pytest.mark.parametrize("reason", ["mode", pytest.param("owner", marks=AS_ROOT)])
def test_what_lies_in_it_is_looked_at(
    place: Path, monkeypatch: pytest.MonkeyPatch, name: str, check: Check, inside: str, reason: str
) -> None:
    folder, code = made(place, inside)
    monkeypatch.setenv(name, str(folder))
    planted = code / "0123abcd"
    planted.mkdir()
    if reason == "mode":
        planted.chmod(0o777)
    else:
        os.chown(planted, NOBODY, NOBODY)
    with pytest.raises(ConfigError, match=f"'{planted}' holds code that would be run"):
        check()


@each_variable
def test_a_folder_above_it_in_which_others_can_rename_is_refused(
    place: Path, monkeypatch: pytest.MonkeyPatch, name: str, check: Check, inside: str
) -> None:
    folder, _ = made(place, inside)
    monkeypatch.setenv(name, str(folder))
    place.chmod(0o777)
    with pytest.raises(ConfigError, match=f"others could replace it: '{place}' may be written to by other users"):
        check()
    place.chmod(0o1777)
    check()


@each_variable
def test_one_that_is_missing_is_made_before_somebody_else_makes_it(
    place: Path, monkeypatch: pytest.MonkeyPatch, name: str, check: Check, inside: str
) -> None:
    monkeypatch.setenv(name, str(place / "set"))
    before = os.umask(0)
    try:
        check()
    finally:
        os.umask(before)
    assert (place / "set" / inside).stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("name", ["TORCH_EXTENSIONS_DIR", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"])
def test_a_link_is_followed_once(place: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Whoever may change the link later changes nothing for the library."""
    folder, _ = made(place, "")
    (place / "link").symlink_to(folder)
    monkeypatch.setenv(name, str(place / "link"))
    SET[name][0]()
    assert os.environ[name] == str(folder)


def test_a_link_that_others_can_change_is_refused(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, _ = made(place, "")
    (place / "open").mkdir()
    (place / "open").chmod(0o777)
    (place / "open/link").symlink_to(folder)
    monkeypatch.setenv("TRITON_CACHE_DIR", str(place / "open/link"))
    with pytest.raises(ConfigError, match=f"others could replace it: '{place}/open'"):
        check_triton()


@pytest.mark.parametrize("name", SET)
def test_an_empty_variable_does_not_mean_the_current_folder(
    place: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "")
    SET[name][0]()
    assert os.environ.get(name) in (None, str(place / f"ftsys/inductor-{os.getuid()}"))


def test_torchs_extensions_stay_in_their_default_folder(place: Path) -> None:
    """In another one, everybody's ops would be compiled again."""
    folder = place / "home/.cache/torch_extensions"
    (folder / "py311_cpu/cpu_adam").mkdir(parents=True)
    check_extensions()
    assert "TORCH_EXTENSIONS_DIR" not in os.environ
    (folder / "py311_cpu/cpu_adam/cpu_adam.so").touch()
    (folder / "py311_cpu/cpu_adam/cpu_adam.so").chmod(0o777)
    with pytest.raises(ConfigError, match=r"cpu_adam\.so' holds code .*mode 777.*set TORCH_EXTENSIONS_DIR to a folder"):
        check_extensions()


def test_triton_stays_in_its_default_folder_where_that_is_the_users_own(place: Path) -> None:
    check_triton()
    assert not {"TRITON_CACHE_DIR", "TRITON_HOME"} & set(os.environ)
    (place / "home/.triton/cache").chmod(0o777)
    check_triton()
    assert os.environ["TRITON_CACHE_DIR"] == str(place / f"ftsys/triton-{os.getuid()}")


def test_torch_compile_has_a_folder_of_its_own(place: Path) -> None:
    check_inductor()
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(place / f"ftsys/inductor-{os.getuid()}")


@pytest.mark.parametrize("value", [None, ""])
def test_torch_is_given_a_folder_before_its_import(
    place: Path, monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    if value is not None:
        monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", value)
    settle_inductor()
    own = place / f"ftsys/inductor-{os.getuid()}"
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(own)
    assert own.stat().st_mode & 0o777 == 0o700
    check_inductor()
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(own)


def test_a_users_own_folder_stays_unlooked_at_until_something_is_compiled(shared: Path) -> None:
    settle_inductor()
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(shared)


def test_without_a_place_torchs_default_stays(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "ftsys").touch()
    settle_inductor()
    assert "TORCHINDUCTOR_CACHE_DIR" not in os.environ
    (place / "ftsys").unlink()
    place.chmod(0o777)
    settle_inductor()
    assert "TORCHINDUCTOR_CACHE_DIR" not in os.environ


def test_a_folder_that_cannot_be_made_is_left_to_the_library(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container without a home: DeepSpeed may need no op at all."""
    (place / "file").touch()
    monkeypatch.setenv("HOME", str(place / "file"))
    check_extensions()
    check_triton()


@each_variable
def test_below_a_folder_that_nobody_else_enters_others_change_nothing(
    place: Path, monkeypatch: pytest.MonkeyPatch, name: str, check: Check, inside: str
) -> None:
    """As in a private home of somebody whose umask lets a group write."""
    folder, code = made(place, inside, 0o777)
    monkeypatch.setenv(name, str(folder))
    (code / "op").mkdir()
    (code / "op").chmod(0o777)
    place.chmod(0o700)
    check()


def test_a_file_that_vanishes_meanwhile_is_no_error(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another rank compiles, and moves complete files into place."""
    folder, _ = made(place, "")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(folder))
    monkeypatch.setattr("ftsys.cache._below", lambda *_: [folder / "gone"])
    check_triton()


@pytest.fixture
def shared(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that all users share, which every variable names."""
    folder, _ = made(place, "", 0o1777)
    for name in ("TORCH_EXTENSIONS_DIR", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"):
        monkeypatch.setenv(name, str(folder))
    return folder


def test_deepspeed_is_not_started_with_a_shared_folder(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="set TORCH_EXTENSIONS_DIR to a folder of your own"):
        prepare_deepspeed()
    monkeypatch.delenv("TORCH_EXTENSIONS_DIR")
    monkeypatch.setattr("ftsys.train.deepspeed_setup.find_spec", lambda name: name)
    with pytest.raises(ConfigError, match="set TRITON_CACHE_DIR to a folder of your own"):
        prepare_deepspeed()


def test_nothing_is_compiled_in_a_shared_folder(shared: Path) -> None:
    with pytest.raises(ConfigError, match="set TORCHINDUCTOR_CACHE_DIR to a folder of your own"):
        compiled_norm._compiled.__wrapped__(0.0, 1e-5, ("a variant",))


def test_the_default_folders_are_those_of_torch(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.utils.cpp_extension import get_default_build_root

    for cache in (None, str(place / "cache")):
        if cache:
            monkeypatch.setenv("XDG_CACHE_HOME", cache)
        assert os.path.realpath(library_caches.extensions_folder()[0]) == get_default_build_root()
