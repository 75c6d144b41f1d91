"""Tests `ftsys export` around the conversion: what is left behind, what is replaced, and each refusal."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from ftsys.cli import main
from ftsys.errors import StorageError
from ftsys.export import command, targets
from ftsys.export.convert import copy_companions
from ftsys.export.parity import Parity

METRICS = {"accuracy": 0.8, "f1": 0.9}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a finished run of plain files; an export of it writes one file and differs by 0.01 of the logits."""
    folder = tmp_path / "run"
    (folder / "model").mkdir(parents=True)
    (folder / "model/config.json").write_text("{}")
    (folder / "config.toml").write_text('output_dir = "elsewhere"\n[task]\nname = "mrpc"\n')
    found = {"validation": METRICS | {"loss": 0.5, "examples": 8}, "test": {"examples": 9}}
    (folder / "results.json").write_text(json.dumps({"task": "mrpc", "metrics": found}))

    def export(_run: object, _target: str, _split: str, _rows: int, place: Path) -> Parity:
        (place / "model.onnx").write_text("graph")
        return Parity(8, 0.02, 2.0, 0, METRICS, METRICS)

    monkeypatch.setattr(command, "_export", export)
    monkeypatch.setattr(targets, "find_spec", lambda name: name)
    monkeypatch.setattr(targets, "EXPORTS_SINCE", "5")
    return folder


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_an_accepted_export_is_one_folder(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(run), "--to", "onnx", "--tolerance", "0.1"]) == 0
    assert files(run / "export") == {"onnx", "onnx/model.onnx", "onnx/parity.json"}
    assert json.loads((run / "export/onnx/parity.json").read_text())["largest"] == 0.02
    assert "largest difference of logits 0.02" in capsys.readouterr().out


def test_the_current_folder_is_not_replaced(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = ["export", str(run), "--to", "onnx", "--tolerance", "0.1"]
    assert main(wanted) == 0
    monkeypatch.chdir(run / "export/onnx")
    assert main([*wanted, "--output", ".", "--overwrite"]) == 2
    assert "--output '.' cannot be replaced" in capsys.readouterr().err
    assert files(run / "export") == {"onnx", "onnx/model.onnx", "onnx/parity.json"}


def test_a_refused_export_leaves_nothing(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(run)
    assert main(["export", str(run), "--to", "onnx"]) == 2
    assert "the tolerance is 0.01%" in capsys.readouterr().err
    assert files(run) == before


def test_a_former_export_is_replaced_on_request_only(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wanted = ["export", str(run), "--to", "onnx", "--tolerance", "0.1"]
    assert main(wanted) == 0
    (run / "export/onnx/old").touch()
    assert main(wanted) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main(["export", str(run), "--to", "onnx", "--overwrite"]) == 2
    assert (run / "export/onnx/old").exists(), "a refused export replaces nothing"
    assert main([*wanted, "--overwrite"]) == 0
    assert files(run / "export") == {"onnx", "onnx/model.onnx", "onnx/parity.json"}


def test_a_folder_of_somebody_else_is_never_removed(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(run), "--to", "onnx", "--output", str(run / "model"), "--overwrite"]) == 2
    assert "is no export of this command" in capsys.readouterr().err
    assert (run / "model/config.json").exists()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--to", "onnx", "--rows", "1"], "--rows 1"),
        (["--to", "onnx", "--split", "test"], "no labelled split 'test'"),
    ],
)
def test_wrong_arguments_are_refused(
    run: Path, arguments: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(run), *arguments]) == 2
    assert reason in capsys.readouterr().err


@pytest.mark.parametrize(("target", "extra"), [("onnx", "onnx"), ("int8", "onnx"), ("openvino", "openvino")])
def test_missing_packages_are_named_with_their_extra(
    run: Path, target: str, extra: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(targets, "find_spec", lambda name: None)
    assert main(["export", str(run), "--to", target]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"pip install 'ftsys[{extra}]'" in said


def test_a_transformers_that_saves_no_exports_is_named(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(targets, "EXPORTS_SINCE", "99.1")
    assert main(["export", str(run), "--to", "onnx"]) == 2
    assert "needs transformers 99.1 or newer, and this is" in capsys.readouterr().err


def test_an_unfinished_run_is_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "results.json").unlink()
    assert main(["export", str(run), "--to", "onnx"]) == 2
    assert "is not finished" in capsys.readouterr().err


def test_a_full_disk_leaves_nothing(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> Parity:
        raise StorageError("the disk is full")

    monkeypatch.setattr(command, "_export", full)
    before = files(run)
    assert main(["export", str(run), "--to", "onnx"]) == 1
    assert files(run) == before


def test_tokenizer_configuration_and_calibration_are_copied(tmp_path: Path) -> None:
    source, to = tmp_path / "model", tmp_path / "to"
    to.mkdir()
    source.mkdir()
    for name in ("config.json", "tokenizer.json", "calibration.json", "README.md", "model.safetensors"):
        (source / name).write_text(name)
    copy_companions(source, to)
    assert files(to) == {"config.json", "tokenizer.json", "calibration.json"}


def test_a_type_that_the_exporter_cannot_convert_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ftsys.errors import ConfigError
    from ftsys.export import convert

    class Exporter:
        def export(self, *_: object, **__: object) -> None:
            raise RuntimeError("no lowering of aten.strange")

    monkeypatch.setattr(convert, "import_module", lambda _: SimpleNamespace(OnnxExporter=Exporter))
    target = targets.Target((), "onnx", "OnnxExporter", dict, lambda _: None, 0.1)  # type: ignore[arg-type, return-value]
    monkeypatch.setattr(convert, "TARGETS", {"onnx": target})
    model = SimpleNamespace(config=SimpleNamespace(model_type="odd"))
    with pytest.raises(ConfigError, match=r"type 'odd' .*no lowering of aten.strange"):
        convert.convert("onnx", model, {}, tmp_path)
