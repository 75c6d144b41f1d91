"""Sets environment variables of ranks and probes that depend on the host."""

from collections.abc import Mapping, Sequence

from launcher.host.network_interface import interface_towards

CPU_ENVIRONMENT: Mapping[str, str] = {"CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu"}
"""Variables that make torch and DeepSpeed compute on CPUs."""


def gloo_environment(hosts: Sequence[str], number: int, environ: Mapping[str, str]) -> dict[str, str]:
    """Return gloo's network interface for host `number` of `hosts`; nothing for one host, or if the user has set it.

    It is the interface towards the first host, which all others connect to; on the first host, towards the next one.
    """
    others = [host for host in hosts if host != hosts[number]]
    if not others or "GLOO_SOCKET_IFNAME" in environ:
        return {}
    name = interface_towards(others[0] if number == 0 else hosts[0])
    return {"GLOO_SOCKET_IFNAME": name} if name else {}
