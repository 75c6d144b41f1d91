"""Provides virtual hosts and SLURM clusters to the tests of this folder, or skips the tests with the reason."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.hosts import Network, why_not
from tests.cluster.slurm import Cluster
from tests.cluster.slurm import why_not as why_no_slurm
from tests.cluster.slurm_runs import make_tiny_model, undisturbed


@pytest.fixture(scope="session")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """Start node1, node2 and node3; node3 refuses ssh."""
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    network = Network(tmp_path_factory.mktemp("network"))
    try:
        network.up(["node1", "node2", "node3"], without_sshd=["node3"])
        yield network
    finally:
        network.down()


@pytest.fixture
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Start a SLURM cluster for one test, ready in about a second: no test finds what another one broke."""
    reason = why_no_slurm()
    if reason is not None:
        pytest.skip(reason)
    cluster = Cluster(tmp_path_factory.mktemp("slurm"))
    try:
        cluster.up()
        yield cluster
    finally:
        cluster.down()


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory, minilm_folder: Path) -> Path:
    """Make a folder with a tiny model, which trains in seconds."""
    return make_tiny_model(tmp_path_factory.mktemp("model") / "tiny", minilm_folder)


@pytest.fixture(scope="session")
def expected(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> str:
    """Return a hash of the weights that the tiny run ends with, undisturbed on two local ranks."""
    return undisturbed(tmp_path_factory.mktemp("undisturbed"), tiny_model)
