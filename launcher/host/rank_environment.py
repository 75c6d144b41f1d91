"""Sets environment variables of ranks and probes that depend on the host."""

from collections.abc import Mapping, Sequence

from ftsys.ranks import loopback_interface
from launcher.host.network_interface import interface_towards

CPU_ENVIRONMENT: Mapping[str, str] = {"CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu"}
"""Variables that make torch and DeepSpeed compute on CPUs."""


def interface_environment(hosts: Sequence[str], number: int, environ: Mapping[str, str]) -> dict[str, str]:
    """Return gloo's and NCCL's network interface for host `number` of `hosts`; for one host, gloo's is the loopback.

    A variable that the user has set is left out. It is the interface towards the first host, which all others connect
    to; on the first host, towards the next one. NCCL connects over it, and then finds InfiniBand by itself; on one host
    its choice is left to NCCL.
    """
    others = [host for host in hosts if host != hosts[number]]
    if others:
        name = interface_towards(others[0] if number == 0 else hosts[0])
        # NCCL takes a name for the start of a name, unless "=" comes before it.
        wanted = {"GLOO_SOCKET_IFNAME": name, "NCCL_SOCKET_IFNAME": f"={name}"} if name else {}
    else:
        name = loopback_interface()
        wanted = {"GLOO_SOCKET_IFNAME": name} if name else {}
    return {key: value for key, value in wanted.items() if key not in environ}
