"""Tests the bound on oneDNN's kernels: what the user has set stays."""

import pytest

from ftsys.cpus.onednn import KEPT, VARIABLES, bound_kernel_caches


@pytest.mark.parametrize("name", [name for names in VARIABLES.values() for name in names])
def test_what_the_user_has_set_stays(name: str) -> None:
    environ = {name: "7"}
    bound_kernel_caches(environ)
    others = [ours for ours, names in VARIABLES.items() if name not in names]
    assert environ == {name: "7"} | dict.fromkeys(others, str(KEPT))
