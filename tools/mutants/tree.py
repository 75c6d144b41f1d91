"""Copies the repository to a folder of its own, in which mutants are made: a checkout is never changed."""

import compileall
import contextlib
import py_compile
import shutil
from collections.abc import Iterator
from pathlib import Path

from tools.mutants.mutant import Mutant, mutants_of

LEFT_OUT = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist", "runs")


class Tree:
    """A copy of a repository."""

    def __init__(self, repository: Path, root: Path) -> None:
        """Copy `repository` to `root`, which must not exist, and compile it.

        The compiled files are valid by the hash of their source, not by its time, so that none outlives a mutant.
        """
        self.root = root
        shutil.copytree(repository, root, ignore=LEFT_OUT)
        checked = py_compile.PycInvalidationMode.CHECKED_HASH
        compileall.compile_dir(root, quiet=2, invalidation_mode=checked)

    def mutants(self, path: str) -> list[Mutant]:
        """Return all mutants of a module, named by its path from the root."""
        return mutants_of(path, (self.root / path).read_bytes())

    @contextlib.contextmanager
    def changed_by(self, mutant: Mutant) -> Iterator[None]:
        """Make the mutant for as long as the context is open."""
        path = self.root / mutant.path
        former = path.read_bytes()
        path.write_bytes(mutant.applied(former))
        try:
            yield
        finally:
            path.write_bytes(former)
