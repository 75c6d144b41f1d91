"""Tests the command lines that the launcher builds, and that no foreign option or shell code gets into them."""

import base64
import json
import shlex
import subprocess
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftsys.errors import LaunchError
from launcher.command_lines import (
    LaunchSpec,
    forwarded_environment,
    launcher_command,
    remote_shell_line,
    smallest_cpu_count,
    srun_command,
    srun_prefix,
    ssh_command,
)

LAUNCH = LaunchSpec(
    launcher="torchrun",
    nodes=2,
    ranks_per_node=4,
    master="node1",
    port=17_000,
    run_id="abc",
    program=("train", "my run.toml", "--train.seed", "7"),
    logs="/runs/a/logs",
)


def test_torchrun() -> None:
    assert launcher_command("/venv/bin/python", LAUNCH, 1) == [
        "/venv/bin/python",
        "-P",
        "-m",
        "torch.distributed.run",
        "--nnodes=2",
        "--nproc-per-node=4",
        "--node-rank=1",
        "--master-addr=node1",
        "--master-port=17000",
        "--rdzv-id=abc",
        "--rdzv-conf=timeout=120",
        "--max-restarts=0",
        "--monitor-interval=0.1",
        "--signals-to-handle=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1",
        "--shutdown-timeout=300",
        "--module",
        "launcher.agent.rank",
        "train",
        "my run.toml",
        "--train.seed",
        "7",
    ]


def test_torchrun_knows_these_words() -> None:
    from torch.distributed.run import parse_args

    options = parse_args(launcher_command("python", LAUNCH, 1)[4:])
    assert (options.training_script, options.training_script_args) == ("launcher.agent.rank", list(LAUNCH.program))
    assert (options.nnodes, options.nproc_per_node, options.node_rank) == ("2", "4", 1)
    assert options.shutdown_timeout == 300
    assert options.module


@pytest.mark.parametrize(("devices", "slots"), [((), [0, 1, 2, 3]), (("4", "5", "6", "7"), ["4", "5", "6", "7"])])
def test_the_deepspeed_launcher(devices: tuple[str, ...], slots: list[object]) -> None:
    command = launcher_command("python", replace(LAUNCH, launcher="deepspeed", nodes=1, devices=devices), 0)
    assert command[:5] == ["python", "-P", "-u", "-m", "deepspeed.launcher.launch"]
    world = next(word.partition("=")[2] for word in command if word.startswith("--world_info="))
    assert json.loads(base64.urlsafe_b64decode(world)) == {"localhost": slots}
    assert command[-6:] == ["--module", "launcher.agent.rank", *LAUNCH.program]


def test_a_start_survives_the_way_to_a_node() -> None:
    assert LaunchSpec.from_fields(json.loads(json.dumps(LAUNCH.as_fields()))) == LAUNCH


def test_ssh() -> None:
    command = ssh_command(
        "node2", "/venv/bin/python", "/home/me/it's here", {"PYTHONPATH": "/src", "HF_TOKEN": "secret"}
    )
    assert command[:2] == ["ssh", "-T"]
    assert command[-3:-1] == ["--", "node2"]
    assert {"BatchMode=yes", "ConnectTimeout=10", "ServerAliveInterval=5"} <= set(command)
    assert shlex.split(command[-1]) == [
        *("cd", "/home/me/it's here", "&&", "exec", "env", "PYTHONPATH=/src"),
        *("/venv/bin/python", "-P", "-m", "launcher.agent"),
    ]
    assert "secret" not in " ".join(command)


@pytest.mark.parametrize("host", ["-oProxyCommand=touch x", "a;b", "$(x)", "a b", "", "a\n", "a'b", "user@host"])
def test_no_option_and_no_shell_comes_in_through_a_host_name(host: str) -> None:
    with pytest.raises(LaunchError, match="is not a host name"):
        ssh_command(host, "python", "/", {})


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"])), min_size=1, max_size=4))
def test_a_far_shell_gives_every_word_as_it_was(words: list[str]) -> None:
    line = remote_shell_line(["printf", "%s\\0", *words], "/", {"PYTHONPATH": "; exit 3"})
    done = subprocess.run(["sh", "-c", line], capture_output=True, check=True)
    assert done.stdout.decode().split("\0")[:-1] == words


def test_what_of_the_environment_goes_along() -> None:
    here = {
        "PATH": "/bin",
        "HF_TOKEN": "secret",
        "HF_HUB_OFFLINE": "1",
        "FTSYS_CACHE": "/cache",
        "NCCL_SOCKET_IFNAME": "ib0",
        "OMP_NUM_THREADS": "4",
        "CUDA_VISIBLE_DEVICES": "0",
        "SLURM_JOB_ID": "3",
        "HOME": "/home/me",
        "SSH_AUTH_SOCK": "/tmp/agent",
        "MASTER_PORT": "1",
        "RANK": "3",
    }
    gone = {"CUDA_VISIBLE_DEVICES", "SLURM_JOB_ID", "HOME", "SSH_AUTH_SOCK", "MASTER_PORT", "RANK"}
    assert set(here) - set(forwarded_environment(here)) == gone


IN_A_JOB = {"SLURM_JOB_ID": "3", "SLURM_JOB_CPUS_PER_NODE": "64(x2),32"}


def test_srun() -> None:
    command = srun_command("python", ("node1", "node3"), IN_A_JOB)
    assert command[0] == "srun"
    expected = "--nodes=2 --nodelist=node1,node3 --ntasks=2 --ntasks-per-node=1 --cpus-per-task=32 --kill-on-bad-exit=1"
    assert set(expected.split()) <= set(command)
    assert command[-4:] == ["python", "-P", "-m", "launcher.agent"]
    assert not any(word.startswith("--cpus") for word in srun_command("python", ("node1",), {}))
    assert not any(word.startswith("--gpus") for word in command)


def test_a_run_of_one_node_takes_any_that_is_free() -> None:
    """Several runs then share an allocation, each on a node of its own."""
    assert not any(word.startswith("--nodelist") for word in srun_command("python", ("node1",), IN_A_JOB))


@pytest.mark.parametrize(("tasks", "option"), [(1, "--cpus-per-task=3"), (2, "--cpus-per-task=1"), (4, "--overcommit")])
def test_tasks_share_the_cpus_of_a_node(tasks: int, option: str) -> None:
    command = srun_prefix(("node1",), {"SLURM_JOB_CPUS_PER_NODE": "3"}, tasks_per_node=tasks)
    assert {option, f"--ntasks={tasks}", f"--ntasks-per-node={tasks}"} <= set(command)


@pytest.mark.parametrize(
    ("name", "value", "by_task"),
    [
        ("SLURM_GPUS_PER_TASK", "1", True),
        ("SLURM_NTASKS_PER_GPU", "1", True),
        ("SLURM_NTASKS_PER_TRES", "1", True),
        ("SLURM_TRES_PER_TASK", "cpu=8,gres/gpu=1", True),
        ("SLURM_TRES_PER_TASK", "cpu=8", False),
        ("SLURM_GPU_BIND", "single:1", False),
        ("SLURM_CPUS_PER_GPU", "8", False),
    ],
)
def test_what_a_job_asks_for_its_own_tasks_is_not_asked_for_ours(name: str, value: str, by_task: bool) -> None:
    command = srun_command("python", ("node1", "node2"), {**IN_A_JOB, name: value, "SLURM_GPUS_ON_NODE": "4"})
    assert command[:4] == ["env", "-u", name, "srun"]
    assert ("--gpus-per-node=4" in command) is by_task
    if by_task:
        with pytest.raises(LaunchError, match="asks for GPUs by task, and SLURM_GPUS_ON_NODE='' does not tell"):
            srun_command("python", ("node1",), {**IN_A_JOB, name: value})


@pytest.mark.parametrize(("text", "count"), [("64(x2),32", 32), ("2", 2), ("8(x3)", 8), ("", None)])
def test_cpus_of_an_allocation(text: str, count: int | None) -> None:
    assert smallest_cpu_count(text) == count


def test_cpus_that_slurm_did_not_write() -> None:
    with pytest.raises(LaunchError, match="SLURM_JOB_CPUS_PER_NODE='many'"):
        smallest_cpu_count("many")
