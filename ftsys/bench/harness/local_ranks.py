"""Prepares ranks of one process group on this machine: a launcher's environment variables."""


def rank_variables(rank: int, ranks: int, port: int) -> dict[str, str]:
    """Return torchrun's variables for a rank; empty for a single rank, which has no process group."""
    if ranks == 1:
        return {}
    counts = {"WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks, "RANK": rank, "LOCAL_RANK": rank, "MASTER_PORT": port}
    return {**{name: str(value) for name, value in counts.items()}, "MASTER_ADDR": "127.0.0.1"}
