"""Tests the doctor's checks on made-up facts: every bad node, and its finding."""

import json
import shlex

import pytest

from launcher.doctor.checks import run_checks
from launcher.doctor.findings import Finding, as_text, exit_status, to_json
from tests.unit.launcher.doctor.made_up_facts import Groups, Harm, bad, cluster, put, run_of


def test_good_nodes_have_only_good_findings() -> None:
    found = run_checks(cluster())
    assert [each.what for each in found] == [
        *("node", "python", "packages", "device", "cpus", "plan", "names", "rendezvous", "all-reduce", "clocks"),
        *("output_dir", "data.store", "disk", "model", "data", "locks"),
    ]
    assert {each.severity for each in found} == {"ok"}
    assert exit_status(found) == 0


def silence(nodes: dict[str, Groups]) -> None:
    nodes["node2"].clear()
    absent = {"error": "wait timeout", "seconds": 10.0, "absent": [1]}
    nodes["node1"] |= {"rendezvous": absent, "tokens": {"output_dir": [0], "data.store": [0]}}
    del nodes["node1"]["all_reduce"], nodes["node1"]["clock"]


@pytest.mark.parametrize(
    ("harm", "what", "value", "advice"),
    [
        (put("node2", "machine/packages/transformers", "5.22.0"), "transformers", "differs: 5.23.0 on node1; 5.22.0 on "
         "node2", "transformers==5.23.0' on node2"),
        (put("node2", "machine/packages/transformers", "4.57.1"), "transformers", "4.57.1 on node2, ftsys needs "
         "<5.24,>=5.17", "pip install 'transformers==5.23.0' on node2"),
        (put("node1", "machine/packages/torch", None), "torch", "not installed on node1, ftsys needs >=2.11", "2.13.0"),
        (put("node2", "machine/python", "3.12.1"), "python", "3.11.7 on node1; 3.12.1 on node2", "same environment"),
        (put("node2", "machine/sources", "def456"), "ftsys", "its sources differ: abc123 on node1; def456 on node2",
         "same commit"),
        (put("node2", "names/forward/node1", {"error": "Name or service not known", "seconds": 0.1}), "names",
         "'node1' cannot be looked up on node2: Name or service not known", "/etc/hosts"),
        (put("node2", "all_reduce/error", "Connection closed by peer"), "all-reduce",
         "Connection closed by peer on node2", "TORCH_DISTRIBUTED_DEBUG"),
        (put("node2", "clock", 1400.0), "clocks", "up to 400.0 s apart", "NTP"),
        (put("node2", "tokens", {"output_dir": [1], "data.store": [0, 1]}), "output_dir",
         "/shared/runs is not shared: node2 does not see what node1 wrote there", "all nodes mount"),
        (put("node2", "folders/output_dir/error", "Permission denied"), "output_dir",
         "cannot be written: /shared/runs: Permission denied on node2", "output_dir"),
        (put("node2", "folders/output_dir/free", 3e9), "disk", "3.0 GB free for output_dir on node2, 3.1 GB needed at "
         "least", "name another output_dir"),
        (put("node2", "inputs/model/parameters", 66_000_000), "model", "differ in their parameters", "shared folder"),
    ],
)  # fmt: skip
def test_what_a_run_would_fail_of(harm: Harm, what: str, value: str, advice: str) -> None:
    found = bad(cluster(harm))
    assert [(each.severity, each.what) for each in found] == [("error", what)]
    assert value in found[0].value
    assert advice in found[0].advice
    assert exit_status(found) == 2


LATE = {"error": "no answer within 5 s", "timed_out": True}


@pytest.mark.parametrize(
    ("harm", "what", "value"),
    [
        (put("node2", "machine/python", "3.11.9"), "python", "3.11.7 on node1; 3.11.9 on node2"),
        (put("node1", "names/reverse/10.0.0.2", LATE), "names", "10.0.0.2 gets no name in time on node1: each "
         "rendezvous connection may wait 10 s"),
        (put("node2", "names/forward/node2/seconds", 4.2), "names", "'node2' is looked up slowly on node2 (4.2 s)"),
        (put("node1", "rendezvous/connected", 10.3), "rendezvous", "but a connection takes 10.3 s"),
        (put("node2", "all_reduce/mb_per_s", 110.0), "all-reduce", "110 MB/s; the gradients of 110 million parameters "
         "take 8.0 s a step"),
        (put("node2", "clock", 1003.0), "clocks", "up to 3.0 s apart"),
        (put("node2", "tokens", {"output_dir": [0, 1], "data.store": [1]}), "data.store", "is not shared"),
        (put("node2", "folders/output_dir/free", 4e9), "disk", "4.0 GB free for output_dir on node2, 5.7 GB needed: 4 "
         "checkpoint(s) of 1.3 GB at most, and the model"),
        (lambda nodes: nodes["node2"].pop("end"), "node", "node2 reported its facts up to 'store', then: "
         "exit status 0"),
    ],
)  # fmt: skip
def test_what_a_run_can_live_with(harm: Harm, what: str, value: str) -> None:
    found = bad(cluster(harm))
    assert [(each.severity, each.what) for each in found] == [("warning", what)]
    assert value in found[0].value
    assert found[0].advice
    assert exit_status(found) == 0


def test_a_name_that_is_never_looked_up_in_time_is_an_error() -> None:
    found = bad(cluster(put("node2", "names/forward/node1", LATE)))
    assert [(each.severity, each.value) for each in found] == [
        ("error", "'node1' cannot be looked up on node2: no answer within 5 s")
    ]
    found = bad(cluster(put("node2", "names/forward/nickname", LATE)))
    assert [each.severity for each in found] == ["warning"], "nobody reaches a node by that name"


def test_look_ups_that_fail_everywhere_are_told_once() -> None:
    def harm(nodes: dict[str, Groups]) -> None:
        for facts in nodes.values():
            facts["names"]["reverse"]["10.0.0.1"] = LATE

    (found,) = bad(cluster(harm))
    assert found.value.startswith("10.0.0.1 gets no name in time on node1, node2: ")


def test_a_dead_node_is_a_finding_of_its_own_and_the_reason_of_the_others() -> None:
    found = bad(cluster(silence))
    dead, lonely = [each for each in found if each.what in ("node", "rendezvous")]
    assert dead.value == "node2 does not answer: ssh: connect to host: Connection refused (exit status 255)"
    assert dead.advice.startswith("`ssh node2 true` must work")
    assert lonely.value == "node2 did not take part"
    assert {each.what for each in found} == {"node", "rendezvous"}


def test_a_firewall_between_nodes_that_answer() -> None:
    error = {"error": "The client socket has timed out after 10000ms", "seconds": 10.0, "absent": []}
    absent = {"error": "wait timeout", "seconds": 10.0, "absent": [1]}

    def harm(nodes: dict[str, Groups]) -> None:
        nodes["node2"]["rendezvous"], nodes["node1"]["rendezvous"] = error, absent

    (found,) = bad(cluster(harm))
    assert found.value.startswith("node2 did not reach node1, port 12345: ")
    assert "open TCP port 12345" in found.advice


@pytest.mark.parametrize(("named", "severity"), [(True, "error"), (False, "warning")])
def test_a_port_in_use(named: bool, severity: str) -> None:
    text = "The server socket has failed to listen on any local network address. code: -98, name: EADDRINUSE"
    harm = put("node1", "rendezvous", {"error": text, "seconds": 0.0, "absent": []})
    (found,) = bad(cluster(harm, port_is_named=named))
    assert (found.severity, found.what) == (severity, "port")
    assert found.value.startswith("12345 is in use on node1")


def test_the_own_name_on_the_loopback_explains_a_failed_sum() -> None:
    def harm(nodes: dict[str, Groups]) -> None:
        nodes["node2"]["all_reduce"]["error"] = "connectFullMesh failed"
        nodes["node2"]["names"]["forward"]["node2"]["answer"] = ["127.0.1.1"]

    (found,) = bad(cluster(harm))
    assert found.advice.startswith("the host name of node2 has a loopback address")


def missing(part: str, hub: bool) -> Harm:
    def harm(nodes: dict[str, Groups]) -> None:
        nodes["node2"]["inputs"][part] = {"error": "not in the Hub's cache"}
        nodes["node2"]["inputs"]["hub"] = hub

    return harm


def test_a_model_that_is_not_there() -> None:
    (found,) = bad(cluster(missing("model", hub=False)))
    assert (found.severity, found.value) == ("error", "not in the Hub's cache on node2")
    assert "ftlaunch bundle" in found.advice
    (found,) = bad(cluster(missing("model", hub=True)))
    assert (found.severity, found.value) == ("warning", "not here yet: not in the Hub's cache on node2")


@pytest.mark.parametrize("hub", [False, True])
def test_a_model_that_is_there_and_would_be_refused_is_an_error(hub: bool) -> None:
    def harm(nodes: dict[str, Groups]) -> None:
        nodes["node2"]["inputs"] |= {"model": {"error": "needs Python code", "folder": "/m"}, "hub": hub}

    (found,) = bad(cluster(harm))
    assert (found.severity, found.value) == ("error", "needs Python code on node2")
    assert "model.name: a start would refuse it" in found.advice


def test_own_files_that_are_not_there_no_hub_can_help() -> None:
    task = {"name": "mood", "columns": ["text"], "labels": ["a", "b"]}
    run = run_of(task=task, data={"source": {"train": "train.csv"}})
    assert [each.severity for each in bad(cluster(missing("data", hub=True), run=run))] == ["error"]


STALE = {"path": "/cache/cpu_adam/lock", "op": "cpu_adam", "holder": None, "file": [7, 1]}


def test_a_lock_of_a_dead_compiler() -> None:
    (found,) = bad(cluster(put("node2", "locks", [STALE])))
    assert found.severity == "warning"
    assert found.value.startswith(
        "/cache/cpu_adam/lock on node2: left by a dead process; every process that needs 'cpu_adam'"
    )
    assert found.advice.endswith("rm /cache/cpu_adam/lock")
    (found,) = bad(cluster(put("node2", "locks", [STALE | {"path": "/it's/a lock"}])))
    assert shlex.split(found.advice.rpartition("right now: ")[2]) == ["rm", "/it's/a lock"]
    run = run_of(engine={"offload": "optimizer"})
    assert [each.severity for each in bad(cluster(put("node2", "locks", [STALE]), run=run, gpus=1))] == ["error"]


def test_a_lock_on_a_shared_folder_that_another_node_holds_is_not_stale() -> None:
    def shared(nodes: dict[str, Groups]) -> None:
        nodes["node1"]["locks"], nodes["node2"]["locks"] = [STALE], [{**STALE, "holder": 31}]

    (found,) = bad(cluster(shared))
    assert "process 31 on node2 is compiling 'cpu_adam'" in found.value

    def two_disks(nodes: dict[str, Groups]) -> None:
        nodes["node1"]["locks"], nodes["node2"]["locks"] = [STALE], [{**STALE, "holder": 31, "file": [8, 1]}]

    assert len(bad(cluster(two_disks))) == 2


def test_versions_that_will_do_but_were_not_tested() -> None:
    (found,) = bad(cluster(tested={"torch": "2.13.0", "transformers": "5.22.1"}))
    assert (found.severity, found.what) == ("warning", "versions")
    assert found.value == "not those that were tested: transformers 5.23.0 (tested: 5.22.1)"


def test_a_nightly_build_is_within_its_range() -> None:
    def nightly(nodes: dict[str, Groups]) -> None:
        for facts in nodes.values():
            facts["machine"]["packages"]["torch"] = "2.14.0.dev20260901+cu130"

    assert bad(cluster(nightly)) == []


def test_what_lies_on_the_disk_at_most() -> None:
    for train, said in (
        ({"save_keep": 5}, "7 checkpoint(s)"),
        ({"save_keep": 5, "eval_every": "never"}, "6 checkpoint(s)"),
        ({"save_every": "never"}, "0.4 GB needed: 0 checkpoint(s)"),
    ):
        (found,) = [each for each in run_checks(cluster(run=run_of(train=train))) if each.what == "disk"]
        assert said in found.value


def test_frozen_weights_take_no_moments_on_the_disk_and_no_gradients_on_the_network() -> None:
    def harm(nodes: dict[str, Groups]) -> None:
        for facts in nodes.values():
            facts["folders"]["output_dir"]["free"] = 3e9
            facts["inputs"]["model"]["frozen"] = 109_000_000
            facts["all_reduce"]["mb_per_s"] = 110.0

    found = run_checks(cluster(harm))
    assert {each.severity for each in found} == {"ok"}
    (value,) = [each.value for each in found if each.what == "disk"]
    assert value.endswith("2.2 GB needed: 4 checkpoint(s) of 0.4 GB at most, and the model")


def test_folders_whose_nodes_did_not_meet_are_not_called_shared() -> None:
    def harm(nodes: dict[str, Groups]) -> None:
        for facts in nodes.values():
            del facts["tokens"]

    found = bad(cluster(harm))
    assert [(each.severity, each.what) for each in found] == [("warning", "output_dir"), ("warning", "data.store")]
    assert found[0].value == "/shared/runs can be written on 2 nodes; whether they share it was not tested"


def test_nodes_that_told_nothing_at_all_are_all_that_is_said() -> None:
    def harm(nodes: dict[str, Groups]) -> None:
        nodes["node1"].clear()
        nodes["node2"].clear()

    assert [each.what for each in run_checks(cluster(harm))] == ["node", "node"]


def test_the_text_and_the_json() -> None:
    found = [
        Finding("error", "disk", "1.0 GB free", "make room."),
        Finding("ok", "python", "3.11.7 on node1"),
        Finding("warning", "clocks", "3 s apart", "NTP."),
    ]
    assert as_text(found, 3.21).splitlines() == [
        "ok       python  3.11.7 on node1",
        "warning  clocks  3 s apart",
        "                 do: NTP.",
        "error    disk    1.0 GB free",
        "                 do: make room.",
        "1 error, 1 warning, 1 ok, in 3.2 s",
    ]
    read = json.loads(to_json(found, ["node1"], 3.21))
    assert (read["exit"], read["nodes"], len(read["findings"])) == (2, ["node1"], 3)
    assert read["findings"][0] == {"severity": "error", "what": "disk", "value": "1.0 GB free", "advice": "make room."}
