"""Tests what the doctor says about NCCL's environment variables."""

import pytest

from tests.unit.launcher.doctor.made_up_facts import bad, cluster, put


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        (
            {"NCCL_P2P_DISABLE": "1"},
            "NCCL_P2P_DISABLE=1 on node2: GPUs of a machine send to each other through the host",
        ),
        ({"NCCL_IB_DISABLE": "1"}, "NCCL_IB_DISABLE=1 on node2: machines send over TCP"),
        ({"CUDA_LAUNCH_BLOCKING": "1"}, "CUDA_LAUNCH_BLOCKING=1 on node2: the host waits for every kernel"),
        ({"TORCH_DISTRIBUTED_DEBUG": "DETAIL"}, "every collective is compared between the ranks"),
        ({"NCCL_SOCKET_IFNAME": "=lo"}, "NCCL_SOCKET_IFNAME names the loopback interface on node2"),
    ],
)
def test_a_setting_that_makes_runs_slow(variables: dict[str, str], said: str) -> None:
    (finding,) = bad(cluster(put("node2", "device/variables", variables), gpus=2))
    assert finding.severity == "warning"
    assert said in finding.value


@pytest.mark.parametrize(
    ("variables", "gpus"),
    [
        ({"NCCL_P2P_DISABLE": "0", "NCCL_SOCKET_IFNAME": "=eth0"}, 2),
        ({"NCCL_IB_DISABLE": "1"}, 0),
    ],
)
def test_settings_that_harm_nothing(variables: dict[str, str], gpus: int) -> None:
    assert bad(cluster(put("node2", "device/variables", variables), gpus=gpus)) == []
