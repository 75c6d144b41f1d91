"""Tests that code in the cache folder is run only if nobody else could have written it."""

import os
from pathlib import Path

import pytest

from ftsys.cache import check_private, executable_cache
from ftsys.errors import ConfigError

AS_ROOT = pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file to another user")
NOBODY = 65534


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder that every user may write to, as on a shared disk."""
    tmp_path.chmod(0o777)
    monkeypatch.setenv("FTSYS_CACHE", str(tmp_path))
    return tmp_path


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
