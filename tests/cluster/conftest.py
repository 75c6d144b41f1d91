"""Hosts that the tests of this folder share; the tests are skipped, with the reason, where there can be none."""

from collections.abc import Iterator

import pytest

from tests.cluster.hosts import Network, why_not


@pytest.fixture(scope="session")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """node1, node2 and node3; node3 refuses ssh."""
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    network = Network(tmp_path_factory.mktemp("network"))
    try:
        network.up(["node1", "node2", "node3"], without_sshd=["node3"])
        yield network
    finally:
        network.down()
