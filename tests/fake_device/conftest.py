"""The fixture of the distributed tests, for ranks on fake GPUs."""

from tests.distributed.conftest import world as world
