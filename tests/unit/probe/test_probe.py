"""Tests a node's probe: host names, folders, ports, model and data, and the format of its report."""

import io
import json
import shutil
import socket
import threading
from pathlib import Path
from typing import Any

import psutil
import pytest

from ftsys.config import build_run, plain_tree, resolve_task
from ftsys.data.prepare import ensure_store
from ftsys.probe import collectives, host, inputs
from ftsys.probe.collectives import meet
from ftsys.probe.host import look_up_names, machine_facts, put_tokens, seen_tokens, take_tokens
from ftsys.probe.inputs import count_parameters, input_facts, lock_facts, store_facts
from ftsys.probe.protocol import Probe, Question
from launcher.doctor.network import _port_is_taken
from tests.ports import unused_port
from tests.remote_model import make_remote_model


def tree(folder: Path, **sections: Any) -> dict[str, Any]:
    """A run whose folders lie in `folder`."""
    base = {"output_dir": str(folder / "runs/x"), "data": {"source": "synthetic", "store": str(folder / "stores")}}
    return plain_tree(build_run({**base, "task": {"name": "paraphrase"}, **sections}))


def probe_of(number: int, folder: Path, hosts: tuple[str, ...] = ("localhost",), port: int = 0, **more: Any) -> Probe:
    question = Question(hosts, "127.0.0.1", port, 3.5, "t0ken", tree(folder), ("pytest", "no-such-thing"), True)
    return Probe(number, question, io.StringIO(), **more)


def reported(probe: Probe) -> dict[str, Any]:
    """Group -> facts that a probe has reported, the last ones of each."""
    out = probe._out
    assert isinstance(out, io.StringIO)
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert {line["probe"] for line in lines} <= {probe.number}
    return {line["group"]: line["facts"] for line in lines}


@pytest.fixture
def port() -> int:
    return unused_port()


def test_versions_and_sources() -> None:
    facts = machine_facts(["pytest", "no-such-thing"])
    assert facts["packages"] == {"pytest": pytest.__version__, "no-such-thing": None}
    assert facts["sources"] == machine_facts([])["sources"]
    assert len(facts["sources"]) == 12


def test_a_token_is_seen_where_the_folder_is_shared_and_not_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "TOKEN_SECONDS", 0.2)
    shared, own = tmp_path / "shared", tmp_path / "own"
    shared.mkdir()
    own.mkdir()
    probes = [probe_of(number, folder, ("a", "b", "c")) for number, folder in enumerate((shared, shared, own))]
    written = [put_tokens(probe) for probe in probes]
    assert reported(probes[0])["folders"]["output_dir"]["folder"] == str(shared)
    assert reported(probes[0])["folders"]["output_dir"]["free"] > 0
    assert [seen_tokens(probe)["output_dir"] for probe in probes] == [[0, 1], [0, 1], [2]]
    for each in written:
        take_tokens(each)
    assert list(shared.iterdir()) + list(own.iterdir()) == []


def test_a_token_that_comes_late_is_waited_for(tmp_path: Path) -> None:
    first, second = (probe_of(number, tmp_path, ("a", "b")) for number in (0, 1))
    put_tokens(first)
    late = threading.Timer(0.3, put_tokens, [second])
    late.start()
    assert seen_tokens(first)["output_dir"] == [0, 1]
    late.join()


def test_a_folder_that_cannot_be_written_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, *_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "write_text", refuse)
    probe = probe_of(0, tmp_path)
    assert put_tokens(probe) == []
    assert reported(probe)["folders"]["output_dir"]["error"] == "Permission denied"


def test_names_that_answer_that_do_not_and_that_are_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def addresses(name: str) -> list[str]:
        if name == "slow":
            threading.Event().wait(5)
        if name == "nowhere":
            raise socket.gaierror(-2, "Name or service not known")
        return ["127.0.0.1"]

    monkeypatch.setattr(host, "LOOK_UP_SECONDS", 0.3)
    monkeypatch.setattr(host, "_addresses", addresses)
    found = look_up_names(probe_of(0, tmp_path, ("localhost", "slow", "nowhere")))
    assert found["forward"]["localhost"]["answer"] == ["127.0.0.1"]
    assert found["forward"]["slow"] == {"error": "no answer within 0.3 s", "timed_out": True}
    assert found["forward"]["nowhere"]["error"] == "Name or service not known"
    assert set(found["reverse"]) == {"127.0.0.1"}
    # Only probe 0 looks up all nodes: all connect to it.
    assert "nowhere" not in look_up_names(probe_of(1, tmp_path, ("localhost", "slow", "nowhere")))["forward"]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collectives, "MEGABYTES", {"gloo": 1})


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests in which somebody does not come."""
    monkeypatch.setattr(Probe, "patience", 0.5)


def listening_at(port: int) -> list[str]:
    """The addresses at which this process listens on a port."""
    found = psutil.Process().net_connections(kind="tcp")
    return [each.laddr.ip for each in found if each.status == psutil.CONN_LISTEN and each.laddr.port == port]


@pytest.mark.usefixtures("quick")
def test_one_alone_meets_itself(tmp_path: Path, port: int) -> None:
    probe, between = probe_of(0, tmp_path, port=port), list[str]()
    assert meet(probe, lambda: between.extend(listening_at(port)))
    facts = reported(probe)
    assert facts["rendezvous"]["error"] is None
    assert (facts["all_reduce"]["backend"], facts["all_reduce"]["error"]) == ("gloo", None)
    assert between == ["127.0.0.1"]


@pytest.mark.usefixtures("quick", "impatient")
def test_who_does_not_come_is_reported(tmp_path: Path, port: int) -> None:
    probe = probe_of(0, tmp_path, ("localhost", "localhost", "localhost"), port=port)
    assert not meet(probe)
    assert reported(probe)["rendezvous"]["absent"] == [1, 2]
    assert reported(probe)["rendezvous"]["error"]
    assert "all_reduce" not in reported(probe)


@pytest.mark.usefixtures("quick", "impatient")
def test_a_port_in_use_is_told_as_such(tmp_path: Path) -> None:
    with socket.socket() as holder:
        holder.bind(("0.0.0.0", 0))
        holder.listen()
        probe = probe_of(0, tmp_path, port=holder.getsockname()[1])
        assert not meet(probe)
    assert _port_is_taken(reported(probe)["rendezvous"]["error"])


def test_model_and_data_that_are_there(tmp_path: Path, minilm_folder: Path) -> None:
    run = build_run(tree(tmp_path))
    assert input_facts(tree(tmp_path))["model"] == {
        "error": None,
        "folder": str(minilm_folder),
        "parameters": 22_713_728,
        "frozen": 0,
    }
    assert input_facts(tree(tmp_path))["data"] == {"error": None}
    assert store_facts(tree(tmp_path)) is None
    store = ensure_store(run, resolve_task(run))
    assert store_facts(tree(tmp_path)) == str(store.path)


def test_the_weights_that_a_run_does_not_train(tmp_path: Path, minilm_folder: Path) -> None:
    for sections, some in (({"lora": {"r": 4}}, True), ({"train": {"freeze": ["layers.99"]}}, False)):
        facts = input_facts(tree(tmp_path, **sections))["model"]
        assert (facts["error"], 20_000_000 < facts["frozen"] <= facts["parameters"]) == (None, some)


@pytest.mark.parametrize("tokenizer", [False, True])
def test_a_model_whose_code_a_start_refuses_and_runs(tokenizer: bool, tmp_path: Path, minilm_folder: Path) -> None:
    folder = make_remote_model(tmp_path / "odd", minilm_folder, tokenizer)
    facts = input_facts(tree(tmp_path, model={"name": str(folder)}))["model"]
    assert "needs Python code from its own folder (auto_map)" in facts["error"]
    assert facts["folder"] == str(folder)
    trusted = input_facts(tree(tmp_path, model={"name": str(folder), "trust_remote_code": True}))["model"]
    assert trusted["error"] is None


@pytest.mark.parametrize(("model_type", "refused"), [("smollm3", True), ("bert", False)])
def test_a_tokenizer_whose_code_a_start_refuses(
    model_type: str, refused: bool, tmp_path: Path, minilm_folder: Path
) -> None:
    """For BERT, transformers has a tokenizer of its own, which is taken in the place of the code."""
    folder = make_remote_model(tmp_path / "odd", minilm_folder, tokenizer=True)
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    facts = input_facts(tree(tmp_path, model={"name": str(folder)}))["model"]
    said = facts["error"] or ""
    assert ("the tokenizer in" in said and "needs Python code from its own folder" in said) == refused
    assert (facts["error"] is None) != refused


def test_a_model_without_a_classifier_is_what_a_start_says(tmp_path: Path, tiny_model: Path) -> None:
    shutil.copytree(tiny_model, tmp_path / "model")
    (tmp_path / "model/config.json").write_text('{"model_type": "vit"}')
    facts = input_facts(tree(tmp_path, model={"name": str(tmp_path / "model")}))["model"]
    assert "model type 'vit' has no sequence classifier" in facts["error"]


def test_model_and_data_that_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "_hub_answers", lambda: False)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    task = {"name": "mood", "columns": ["text"], "labels": ["a", "b"]}
    source = {"train": str(tmp_path / "gone.csv")}
    facts = input_facts(tree(tmp_path, task=task, data={"source": source}, model={"name": "nobody/never-heard-of"}))
    assert facts["model"]["error"] == (
        "model.name='nobody/never-heard-of' is not a folder here and not in the Hub's cache"
    )
    assert "gone.csv" in facts["data"]["error"]
    assert facts["hub"] is False
    assert list(tmp_path.iterdir()) == []


def test_parameters_of_weights_in_two_files_and_of_a_pickle(tmp_path: Path) -> None:
    import numpy as np
    from safetensors.numpy import save_file

    save_file({"a": np.zeros((3, 4), np.float32)}, tmp_path / "model-00001-of-00002.safetensors")
    save_file({"b": np.zeros(5, np.float16)}, tmp_path / "model-00002-of-00002.safetensors", {"format": "pt"})
    assert count_parameters(tmp_path) == 17
    other = tmp_path / "other"
    other.mkdir()
    (other / "pytorch_model.bin").write_bytes(b"x" * 400)
    assert count_parameters(other) == 100


def test_locks_are_told_with_what_identifies_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    lock = tmp_path / "cpu_adam/lock"
    lock.parent.mkdir()
    lock.touch()
    (found,) = lock_facts()
    assert (found["op"], found["holder"], found["file"][0]) == ("cpu_adam", None, lock.stat().st_ino)
    lock.unlink()
    assert lock_facts() == []


def test_a_question_with_more_fields_is_read(tmp_path: Path) -> None:
    fields = {
        "hosts": ["a", "b"],
        "master": "a",
        "port": 1,
        "seconds": 2.0,
        "token": "t",
        "run": {},
        "cpu": False,
        "packages": ["torch"],
        "environ": {"X": "1"},
    }
    question = Question.read(json.dumps(fields))
    assert (question.hosts, question.packages) == (("a", "b"), ("torch",))
    assert Probe(1, question, io.StringIO()).local_number == 0


SMI = """#!/bin/sh
case "$1" in
  --query-gpu=*) echo "0, GPU-a, NVIDIA H100 80GB HBM3, 81559, 30000, Default"
                 echo "1, GPU-b, NVIDIA H100 80GB HBM3, 81559, [N/A], Exclusive_Process" ;;
  --query-compute-apps=*) echo "GPU-a, 77, python, 29000" ;;
esac
"""


def test_what_the_driver_says_of_the_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(SMI)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    found = collectives._driver_facts()
    assert found is not None
    assert [(gpu["index"], gpu["memory.used"], gpu["processes"]) for gpu in found] == [
        ("0", "30000", "python (process 77)"),
        ("1", "[N/A]", ""),
    ]
    program.write_text("#!/bin/sh\nexit 9\n")
    assert collectives._driver_facts() is None
    program.unlink()
    assert collectives._driver_facts() is None
