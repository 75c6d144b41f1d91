"""Tests that code in the cache folder is run only if nobody else could have written it."""

import os
import pwd
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from ftsys.cache import check_private, executable_cache
from ftsys.errors import ConfigError

AS_ROOT = pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file to another user")
NOBODY = 65534


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache folder that every user may write to, as on a shared disk. pytest's own folder lets nobody else in."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o1777)
        monkeypatch.setenv("FTSYS_CACHE", name)
        yield Path(name)


def test_the_folder_is_the_users_own(cache: Path) -> None:
    folder = executable_cache("native")
    assert folder.parent == cache
    assert folder.stat().st_mode & 0o777 == 0o700
    assert executable_cache("native") == folder


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777])
def test_a_folder_that_others_may_write_to_is_refused(mode: int) -> None:
    executable_cache("native").chmod(mode)
    with pytest.raises(ConfigError, match=f"other users may write to it .mode {mode:o}.*FTSYS_CACHE"):
        executable_cache("native")


def test_a_link_is_refused(cache: Path) -> None:
    folder = executable_cache("native")
    folder.rename(cache / "elsewhere")
    folder.symlink_to("elsewhere")
    with pytest.raises(ConfigError, match="it is a symbolic link"):
        executable_cache("native")


@AS_ROOT
def test_a_folder_or_file_of_another_user_is_refused(cache: Path) -> None:
    planted = cache / "planted.so"
    planted.touch(0o755)
    for path in (executable_cache("native"), planted):
        os.chown(path, NOBODY, NOBODY)
        with pytest.raises(ConfigError, match=f"belongs to user {NOBODY}"):
            check_private(path, path.lstat())


@pytest.mark.parametrize(
    ("user", "group", "mode", "reason"),
    [
        (-1, -1, 0o777, "may be written to by other users .mode 777..*chmod .t.*FTSYS_CACHE"),
        pytest.param(-1, NOBODY, 0o775, "may be written to by other users .mode 775", marks=AS_ROOT),
        pytest.param(NOBODY, -1, 0o755, f"belongs to user {NOBODY}", marks=AS_ROOT),
        pytest.param(NOBODY, -1, 0o1777, f"belongs to user {NOBODY}", marks=AS_ROOT),
    ],
)
@pytest.mark.parametrize("below", ["", "team/caches"])
def test_a_parent_in_which_others_can_rename_is_refused(
    cache: Path, monkeypatch: pytest.MonkeyPatch, user: int, group: int, mode: int, reason: str, below: str
) -> None:
    shared = cache / "shared"
    (shared / below).mkdir(parents=True)
    monkeypatch.setenv("FTSYS_CACHE", str(shared / below))
    executable_cache("native")
    os.chown(shared, user, group)
    shared.chmod(mode)
    with pytest.raises(ConfigError, match=f"others could replace it: '{shared}' {reason}"):
        executable_cache("native")


def test_below_a_folder_that_nobody_else_enters_others_change_nothing(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (cache / "own/shared").mkdir(parents=True)
    (cache / "own/shared").chmod(0o777)
    (cache / "own").chmod(0o700)
    monkeypatch.setenv("FTSYS_CACHE", str(cache / "own/shared"))
    assert executable_cache("native").is_dir()


def test_a_link_above_is_followed_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever may change the link later changes nothing for the name that was returned."""
    (cache / "place").mkdir(0o755)
    (cache / "link").symlink_to("place")
    monkeypatch.setenv("FTSYS_CACHE", str(cache / "link"))
    assert executable_cache("native").parent == cache / "place"


@pytest.mark.parametrize("umask", [0o000, 0o002])
def test_the_umask_does_not_open_folders_above(cache: Path, monkeypatch: pytest.MonkeyPatch, umask: int) -> None:
    monkeypatch.setenv("FTSYS_CACHE", str(cache / "new/cache"))
    before = os.umask(umask)
    try:
        assert executable_cache("native").is_dir()
    finally:
        os.umask(before)


ASK_AS_ANOTHER = """
import ctypes, os, sys
from pathlib import Path
from ftsys.cache import executable_cache
user, group, container = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "container"
os.setgroups([])
os.setgid(group)
os.setuid(user)
if container:
    libc, new_user, dumpable = ctypes.CDLL(None), 0x10000000, 4
    libc.prctl(dumpable, 1)
    if libc.unshare(new_user):
        sys.exit("no containers")
    for name, text in {"setgroups": "deny", "uid_map": f"{user} {user} 1", "gid_map": f"{group} {group} 1"}.items():
        Path("/proc/self", name).write_text(text)
print(executable_cache("native"))
"""


@AS_ROOT
@pytest.mark.parametrize("place", ["host", "container"])
def test_what_another_user_may_have_above(cache: Path, place: str) -> None:
    """A group of the user alone may write, as where the umask is 002; a container may show no root."""
    user, theirs = pwd.getpwnam("daemon"), cache / "theirs"
    theirs.mkdir()
    theirs.chmod(0o775)
    command = [sys.executable, "-c", ASK_AS_ANOTHER, str(user.pw_uid), str(user.pw_gid), place]
    environment = {**os.environ, "FTSYS_CACHE": str(theirs)}
    run = partial(subprocess.run, command, env=environment, text=True, capture_output=True, check=False)
    os.chown(theirs, user.pw_uid, user.pw_gid)
    done = run()
    if done.stderr == "no containers\n":
        pytest.skip("this machine lets no user make a container")
    assert done.stdout.strip() == f"{theirs}/native-{user.pw_uid}", done.stderr
    os.chown(theirs, user.pw_uid, NOBODY - 1)
    assert "may be written to by other users (mode 775)" in run().stderr
