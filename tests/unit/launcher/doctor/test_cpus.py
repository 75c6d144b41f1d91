"""Tests what the doctor says of cores, CPU quotas and threads."""

from launcher.doctor.checks import run_checks
from tests.unit.launcher.doctor.made_up_facts import bad, cluster, put


def test_cores_and_quotas_are_reported() -> None:
    found = {each.what: each for each in run_checks(cluster(put("node2", "machine/cpus/quota", 1.5)))}
    assert found["cpus"].severity == "ok"
    assert found["cpus"].value == "8 core(s) on node1; 8 core(s), of which the cgroup gives 1.5 on node2"


def test_more_threads_than_a_container_may_run_are_found() -> None:
    def harm(nodes: dict[str, dict[str, object]]) -> None:
        put("node1", "machine/cpus/threads", 8)(nodes)
        put("node2", "machine/cpus/threads", 8)(nodes)
        put("node2", "machine/cpus/quota", 4.0)(nodes)

    (found,) = bad(cluster(harm, ranks_per_node=1))
    assert (found.severity, found.what) == ("warning", "threads")
    assert found.value == "OMP_NUM_THREADS=8 on node2 for each of 1 rank(s), more than node2 can run at a time"
    assert bad(cluster(put("node2", "machine/cpus/threads", 8), ranks_per_node=2)) == []
    assert [each.what for each in bad(cluster(put("node2", "machine/cpus/threads", 8), ranks_per_node=3))] == [
        "threads"
    ]
