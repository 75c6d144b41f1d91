"""Tests which messages are hidden, and that all others are still shown."""

import io
import logging
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator

import pytest

from ftsys.console.printer import plain
from ftsys.report import log_filters
from ftsys.report.log_filters import quiet_libraries


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def _restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Loggers' filters and the process's hooks as before; pytest itself restores the filters of warnings."""
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    for name in log_filters._LOG_MESSAGES:
        monkeypatch.setattr(logging.getLogger(name), "filters", [])
    for name in log_filters._CHATTY_LOGGERS:
        monkeypatch.setattr(logging.getLogger(name), "level", logging.NOTSET)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    factory = logging.getLogRecordFactory()
    logging.setLogRecordFactory(logging.LogRecord)
    yield
    logging.setLogRecordFactory(factory)


REPORT = "\x1b[1mBertForSequenceClassification LOAD REPORT\x1b[0m from: x\nKey | Status\nclassifier.bias | {}"


@pytest.mark.usefixtures("_restored")
@pytest.mark.parametrize(
    ("logger", "message", "heard"),
    [
        ("transformers.modeling_utils", REPORT.format("MISSING"), False),
        ("transformers.modeling_utils", REPORT.format("MISMATCH"), True),
        ("transformers.modeling_utils", REPORT.format("CONVERSION"), True),
        ("transformers.modeling_utils", "Flash attention is not installed", True),
        (
            "DeepSpeed",
            "Setting accelerator to CPU. If you have GPU or other accelerator, we were unable to detect it.",
            False,
        ),
        ("DeepSpeed", "OVERFLOW! Rank 0 skipping step", True),
        (
            "transformers.trainer_utils",
            "The tokenizer has new PAD/BOS/EOS tokens that differ from the model config and",
            False,
        ),
    ],
)
def test_log_messages(caplog: pytest.LogCaptureFixture, logger: str, message: str, heard: bool) -> None:
    quiet_libraries()
    quiet_libraries()
    sender = logging.getLogger(logger)
    assert len(sender.filters) == 1, "once, however often it is called"
    sender.addHandler(caplog.handler)  # libraries turn propagation off
    try:
        with caplog.at_level(logging.WARNING, logger):  # a Trainer's log_level sets it for the whole process
            sender.warning(message)
    finally:
        sender.removeHandler(caplog.handler)
    assert (plain(message) in caplog.messages) == heard


@pytest.mark.usefixtures("_restored")
def test_names_out_of_files_move_no_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    quiet_libraries()
    name = "bert.\x1b]0;title\x07\x1b[31mred"
    handler = logging.StreamHandler(sys.stderr)
    logging.getLogger("a.library").addHandler(handler)
    try:
        logging.getLogger("a.library").warning("%s is unexpected", name)
    finally:
        logging.getLogger("a.library").removeHandler(handler)
    sys.stderr.write(warnings.formatwarning(f"{name} is new", UserWarning, "file.py", 1))
    said = capsys.readouterr().err
    assert "bert.red is unexpected" in said
    assert "bert.red is new" in said
    assert "\x1b" not in said


@pytest.mark.usefixtures("_restored")
@pytest.mark.parametrize(
    ("category", "message", "module", "heard"),
    [
        (
            FutureWarning,
            "`torch.distributed.all_gather_into_tensor` is deprecated. Please",
            "torch.distributed.c10d_logger",
            False,
        ),
        (FutureWarning, "`torch.distributed.all_gather_into_tensor` is deprecated. Please", "my_script", True),
        (FutureWarning, "something else will change", "torch.distributed.c10d_logger", True),
        (
            UserWarning,
            "'pin_memory' argument is set as true but no accelerator is found",
            "torch.utils.data.dataloader",
            False,
        ),
        (UserWarning, "a warning", "torch.nn.functional", True),
        (RuntimeWarning, "overflow", "numpy", True),
    ],
)
def test_warnings(category: type[Warning], message: str, module: str, heard: bool) -> None:
    with warnings.catch_warnings(record=True) as found:
        warnings.resetwarnings()
        warnings.simplefilter("always")
        quiet_libraries()
        warnings.warn_explicit(message, category, "file.py", 1, module=module)
    assert bool(found) == heard


@pytest.mark.usefixtures("_restored")
def test_a_users_own_setting_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    monkeypatch.delenv("TRANSFORMERS_NO_ADVISORY_WARNINGS", raising=False)
    monkeypatch.setattr(logging.getLogger("datasets"), "level", logging.INFO)
    quiet_libraries()
    assert os.environ["TOKENIZERS_PARALLELISM"] == "false"
    assert os.environ["TRANSFORMERS_NO_ADVISORY_WARNINGS"] == "1"
    assert logging.getLogger("datasets").level == logging.INFO
    assert logging.getLogger("httpx").level == logging.WARNING


@pytest.mark.usefixtures("_restored")
@pytest.mark.parametrize(("rank", "terminal", "bars"), [("0", True, True), ("0", False, False), ("1", True, False)])
def test_download_bars_stay_where_somebody_watches(
    monkeypatch: pytest.MonkeyPatch, rank: str, terminal: bool, bars: bool
) -> None:
    monkeypatch.delenv("HF_HUB_DISABLE_PROGRESS_BARS", raising=False)
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setattr(sys, "stderr", Terminal() if terminal else io.StringIO())
    quiet_libraries()
    assert ("HF_HUB_DISABLE_PROGRESS_BARS" not in os.environ) == bars


def test_transformers_own_bars_are_hidden(capfd: pytest.CaptureFixture[str]) -> None:
    transformers_logging = pytest.importorskip("transformers.utils.logging")
    try:
        quiet_libraries()
        assert list(transformers_logging.tqdm([1, 2, 3], desc="Loading weights")) == [1, 2, 3]
    finally:
        transformers_logging.set_tqdm_hook(None)
    assert "Loading weights" not in capfd.readouterr().err


def test_importing_the_reports_loads_no_library() -> None:
    code = (
        "import sys, ftsys.report.log_filters, ftsys.report.table, ftsys.metrics, ftsys.files\n"
        "ftsys.report.log_filters.quiet_libraries()\n"
        "heavy = {'torch', 'transformers', 'datasets', 'sklearn', 'scipy', 'pandas', 'deepspeed', 'numpy', 'rich'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
