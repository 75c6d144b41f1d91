"""Tests the C++ kernels against slow float64 code, and machines that cannot compile them."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import BertConfig, BertForSequenceClassification

from ftsys.errors import ConfigError
from ftsys.kernels.attention import Attention, reference_attention
from ftsys.kernels.dropout import AttentionDropout, keyed_dropout
from ftsys.kernels.layout import PackedLayout
from ftsys.kernels.native import layers, library
from ftsys.kernels.native.attention import native_first_tokens
from ftsys.kernels.native.library import NATIVE, native, why_not_native
from ftsys.kernels.select import KERNELS, choose_kernel, why_not_fast
from ftsys.models.fused import FusedAddNorm
from ftsys.models.last_layer import FirstTokensAttention
from ftsys.models.packed import PackedView

pytestmark = pytest.mark.skipif(native() is None, reason=f"no native kernels: {why_not_native()}")

NOBODY = 65534
X86 = {"x86_64", "AMD64"}
TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 6e-3}
LENGTHS = ([1], [7, 16, 1, 17, 64], [130, 15, 15], [33] * 4)


def distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Return the relative distance in the 2-norm."""
    found, expected = found.detach().double(), expected.detach().double()
    return float((found - expected).norm() / expected.norm().clamp_min(1e-9))


def keys(*shape: int) -> torch.Tensor:
    return torch.randint(-(2**62), 2**62, shape)


@pytest.mark.skipif(platform.machine() not in X86, reason="compiles for x86-64, which this compiler does not")
@pytest.mark.parametrize("processor", ["haswell", "x86-64-v4"])
def test_sums_of_a_tile_stay_in_registers(processor: str, tmp_path: Path) -> None:
    compiler, assembly = os.environ.get("CXX", "g++"), tmp_path / "attention.s"
    flags = [flag for flag in library.FLAGS if flag not in ("-march=native", "-shared")]
    source = Path(library.__file__).parent / "attention.cpp"
    command = [compiler, *flags, f"-march={processor}", "-S", "-x", "c++", str(source), "-o", str(assembly)]
    subprocess.run(command, check=True, capture_output=True)
    lines = assembly.read_text().splitlines()
    products = sum("vfmadd" in line for line in lines)
    on_the_stack = sum("mm" in line and "(%r" in line and ("(%rsp" in line or "(%rbp" in line) for line in lines)
    assert products > 50
    assert on_the_stack < 5 * products  # AVX2 with tiles for AVX-512: 11 times the products


@pytest.mark.parametrize("size", [16, 32, 64, 80])
@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("dtype", list(TOLERANCE))
def test_attention_equals_the_reference_with_the_same_masks(dtype: torch.dtype, rate: float, size: int) -> None:
    torch.manual_seed(0)
    for lengths in LENGTHS:
        bounds, tokens = torch.tensor([0, *lengths]).cumsum(0).int(), sum(lengths)
        layout, dropout = PackedLayout(bounds, max(lengths), "native"), AttentionDropout(rate, 7, keys(tokens))
        kernels: list[tuple[Attention, torch.dtype]] = [(reference_attention, torch.float64), (KERNELS[NATIVE], dtype)]
        states = [torch.randn(tokens, 3, size).to(dtype) for _ in range(3)]
        gradient, found = torch.randn(tokens, 3, size).to(dtype), []
        for kernel, precision in kernels:
            inputs = [state.detach().to(precision, copy=True).requires_grad_() for state in states]
            output = kernel(inputs[0], inputs[1], inputs[2], layout, 2.0 * size**-0.5, dropout)
            found.append([output, *torch.autograd.grad(output, inputs, gradient.to(precision))])
        assert "Native" in str(output.grad_fn)
        for actual, expected in zip(found[1], found[0], strict=True):
            # For a single token, the probability is 1, so the gradients of queries and keys are rounding errors.
            assert distance(actual, expected) < TOLERANCE[dtype] or expected.norm() < 1e-9


@pytest.mark.parametrize("rate", [0.0, 0.1])
@pytest.mark.parametrize("dtype", list(TOLERANCE))
def test_asked_for_first_tokens_it_computes_their_rows(dtype: torch.dtype, rate: float) -> None:
    torch.manual_seed(0)
    for lengths in LENGTHS:
        bounds, tokens = torch.tensor([0, *lengths]).cumsum(0).int(), sum(lengths)
        layout, dropout = PackedLayout(bounds, max(lengths), "native"), AttentionDropout(rate, 7, keys(tokens))
        first = layout.first_tokens_S
        states = [torch.randn(tokens, 3, 32).to(dtype) for _ in range(3)]
        gradient = torch.randn(len(lengths), 3, 32).to(dtype)
        query, key, value = (state.clone().requires_grad_() for state in states)
        output = native_first_tokens(query[first], key, value, layout, 0.3, dropout)
        found = [output, *torch.autograd.grad(output, (query, key, value), gradient)]
        query, key, value = (state.double().requires_grad_() for state in states)
        exact = reference_attention(query, key, value, layout, 0.3, dropout)[first]
        wanted = [exact, *torch.autograd.grad(exact, (query, key, value), gradient.double())]
        for actual, expected in zip(found, wanted, strict=True):
            assert distance(actual, expected) < TOLERANCE[dtype] or expected.norm() < 1e-9


def test_scores_of_any_size_do_not_overflow() -> None:
    states = torch.randn(20, 2, 16) * 100
    layout = PackedLayout(torch.tensor([0, 20]).int(), 20, "native")
    wide = states.double()
    exact = reference_attention(wide, wide, wide, layout, 1.0)
    assert distance(KERNELS[NATIVE](states, states, states, layout, 1.0), exact) < 1e-5


@pytest.mark.parametrize("rate", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("width", [1, 16, 50, 768])
@pytest.mark.parametrize("dtype", list(TOLERANCE))
def test_add_norm_equals_its_definition(dtype: torch.dtype, width: int, rate: float) -> None:
    torch.manual_seed(1)
    library_, row_keys = native(), keys(1, 45)
    assert library_ is not None
    norm = nn.LayerNorm(width, eps=1e-5)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    norm.to(dtype)
    given = [torch.randn(1, 45, width).to(dtype) for _ in range(2)]
    gradient = torch.randn(1, 45, width).to(dtype)
    x, residual = (tensor.clone().requires_grad_() for tensor in given)
    fast = layers.add_norm(library_, x, residual, norm, row_keys if rate else None, 3, rate)
    found = [fast, *torch.autograd.grad(fast, [x, residual, norm.weight, norm.bias], gradient)]
    exact = nn.LayerNorm(width, eps=1e-5).double()
    exact.load_state_dict(norm.state_dict())
    x, residual = (tensor.double().requires_grad_() for tensor in given)
    slow = exact(residual + (keyed_dropout(x, row_keys, 3, rate) if rate else x))
    wanted = [slow, *torch.autograd.grad(slow, [x, residual, exact.weight, exact.bias], gradient.double())]
    for actual, expected in zip(found, wanted, strict=True):
        if width > 1 or (actual is not found[1] and actual is not found[2]):  # a norm of one number has no gradient
            assert distance(actual, expected) < (2 * TOLERANCE[dtype] if expected.norm() > 1e-9 else 1e-3)


@pytest.mark.parametrize("dtype", list(TOLERANCE))
def test_dropout_has_the_masks_of_the_slow_one(dtype: torch.dtype) -> None:
    library_, row_keys = native(), keys(31)
    assert library_ is not None
    x = torch.ones(31, 77, dtype=dtype, requires_grad=True)
    y = layers.keyed_dropout(library_, x, row_keys, 9, 0.3)
    mask = keyed_dropout(torch.ones(31, 77, dtype=torch.float64), row_keys, 9, 0.3)
    assert distance(y, mask) < TOLERANCE[dtype]
    assert distance(torch.autograd.grad(y.sum(), x)[0], mask) < TOLERANCE[dtype]


def test_a_whole_model_computes_as_without_them() -> None:
    """Use float32 with dropout: the masks are the same, so losses and gradients are equal up to rounding."""
    shape = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96}
    model = BertForSequenceClassification(BertConfig(vocab_size=50, max_position_embeddings=40, **shape)).train()
    ids, places = torch.randint(5, 50, (60,)), torch.cat([torch.arange(25), torch.arange(35)])
    bounds, row_keys = torch.tensor([0, 25, 60], dtype=torch.int32), keys(60)
    found = []
    for kernel in ("grouped", "native"):
        view = PackedView(model, kernel)
        logits = model(**view.inputs(ids, places, None, bounds, 35, row_keys)).logits
        found.append([logits, *torch.autograd.grad(logits.square().sum(), list(model.parameters()))])
    assert sum(isinstance(module, FusedAddNorm) for module in model.modules()) == 4
    assert sum(isinstance(module, FirstTokensAttention) for module in model.modules()) == 1
    for actual, expected in zip(found[1], found[0], strict=True):
        assert (
            distance(actual, expected) < 1e-4 or expected.norm() < 1e-9
        )  # the gradient of a key's bias is a rounding error


def test_the_number_of_threads_changes_nothing() -> None:
    states, row_keys = torch.randn(300, 4, 32, requires_grad=True), keys(300)
    layout = PackedLayout(torch.tensor([0, 100, 130, 300]).int(), 170, "native")
    norm, library_, threads, found = nn.LayerNorm(128), native(), torch.get_num_threads(), []
    assert library_ is not None
    for count in (1, 3):
        torch.set_num_threads(count)
        y = KERNELS[NATIVE](states, states, states, layout, 0.2, AttentionDropout(0.1, 1, row_keys))
        z = layers.add_norm(library_, y.flatten(1), states.flatten(1), norm, row_keys, 2, 0.1)
        found.append(torch.autograd.grad(z.square().sum(), [states, norm.weight, norm.bias]))
    torch.set_num_threads(threads)
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_heads_that_it_is_not_made_for_are_refused_where_it_is_demanded() -> None:
    assert choose_kernel("auto", head_size=24) == "native"  # its other kernels support any size
    with pytest.raises(ConfigError, match="heads have 24 elements, and it takes multiples of 16"):
        choose_kernel("native", head_size=24)


def test_a_machine_without_a_compiler_says_so_and_goes_without(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CXX", str(tmp_path / "no-compiler"))
    library._load.cache_clear()
    try:
        assert choose_kernel("auto") == "grouped"
        assert "there is no C++ compiler" in str(why_not_fast("cpu"))
        with pytest.raises(
            ConfigError, match=r"engine.kernels='native' is not available here: there is no C\+\+ compiler"
        ):
            choose_kernel("native")
    finally:
        library._load.cache_clear()
    with pytest.raises(ConfigError, match="it runs on a CPU, not on cuda"):
        choose_kernel("native", "cuda")
    with pytest.raises(ConfigError, match=r"engine.kernels='triton' is not available here: it runs on a GPU"):
        choose_kernel("triton")


@pytest.mark.parametrize("wrong", ["compiler", "cache"])
def test_what_cannot_be_compiled_or_kept_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wrong: str) -> None:
    (tmp_path / "file").write_text("#!/bin/sh\n[ $1 = --version ] || { echo no such flag >&2; exit 1; }\n")
    (tmp_path / "file").chmod(0o755)
    monkeypatch.setenv("FTSYS_CACHE", str(tmp_path / ("file" if wrong == "cache" else "new")))
    if wrong == "compiler":
        monkeypatch.setenv("CXX", str(tmp_path / "file"))
    library._load.cache_clear()
    try:
        expected = {"compiler": f"{tmp_path}/file failed: no such flag", "cache": f"{tmp_path}/file/native"}[wrong]
        assert expected in str(why_not_native())
        assert not list((tmp_path / "new").rglob("*.tmp"))
    finally:
        library._load.cache_clear()


def test_processes_that_compile_at_once_leave_one_whole_library(tmp_path: Path) -> None:
    program = "from ftsys.kernels.native.library import native, why_not_native; assert native(), why_not_native()"
    environment = {**os.environ, "FTSYS_CACHE": str(tmp_path)}
    ranks = [subprocess.Popen([sys.executable, "-c", program], env=environment) for _ in range(2)]
    assert [rank.wait() for rank in ranks] == [0, 0]
    assert [path.suffix for path in (tmp_path / f"native-{os.getuid()}").iterdir()] == [".so"]


@pytest.fixture
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache without the library, which is compiled there without optimization: in less time."""
    monkeypatch.setenv("FTSYS_CACHE", str(tmp_path))
    monkeypatch.setattr(library, "FLAGS", tuple("-O0" if flag == "-O3" else flag for flag in library.FLAGS))


@pytest.mark.usefixtures("own_folder")
@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file to another user")
def test_a_planted_library_is_not_loaded() -> None:
    planted = library._compiled("g++")
    os.chown(planted, NOBODY, NOBODY)
    with pytest.raises(ConfigError, match=f"holds code that would be run, but it belongs to user {NOBODY}"):
        library._load.__wrapped__()


@pytest.mark.usefixtures("own_folder")
@pytest.mark.parametrize("umask", [0o000, 0o002, 0o077])
def test_the_umask_does_not_open_the_library_to_others(umask: int) -> None:
    before = os.umask(umask)
    try:
        assert isinstance(library._load.__wrapped__(), library.Library)
    finally:
        os.umask(before)
