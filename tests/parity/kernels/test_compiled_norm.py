"""Tests that a compiled region has the masks, values and gradients of the eager one."""

import os
import shutil
import tempfile
from functools import partial
from itertools import product
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import BertConfig, BertForSequenceClassification

from ftsys.errors import ConfigError
from ftsys.kernels import compiled_norm
from ftsys.kernels.dropout import Windows, keyed_dropout, site_offset, token_keys, windows
from ftsys.models.packed import PackedView

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")

Found = list[torch.Tensor]


def keys(count: int) -> torch.Tensor:
    return token_keys(3, 4, torch.zeros(count, dtype=torch.int64), torch.arange(count))


def starts(row_keys: torch.Tensor | None, site: int) -> Windows | None:
    return None if row_keys is None else windows(row_keys + site_offset(site))


def with_gradients(y: torch.Tensor, *leaves: torch.Tensor) -> Found:
    return [y.detach(), *torch.autograd.grad(y.sin().sum(), leaves)]


@pytest.mark.parametrize("rows", [1, 2, 37, 64])
@pytest.mark.parametrize("dropped", [True, False])
def test_a_compiled_region_is_the_float64_one(rows: int, dropped: bool) -> None:
    torch.manual_seed(rows)
    x, residual = (torch.randn(1, rows, 48, dtype=torch.float64, requires_grad=True) for _ in range(2))
    norm, row_keys = nn.LayerNorm(48).double(), keys(rows)[None] if dropped else None
    compiled = compiled_norm.add_norm(x, residual, norm, starts(row_keys, 7), 0.3)
    slow = norm(residual + (x if row_keys is None else keyed_dropout(x, row_keys, 7, 0.3)))
    leaves = (x, residual, norm.weight, norm.bias)
    for actual, expected in zip(with_gradients(compiled, *leaves), with_gradients(slow, *leaves), strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9)


def test_one_compiled_function_serves_all_numbers_of_rows() -> None:
    norm = nn.LayerNorm(24)
    compiled_norm.add_norm(torch.randn(1, 8, 24), torch.randn(1, 8, 24), norm, starts(keys(8)[None], 1), 0.25)
    before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    for rows in (9, 2, 500):
        x = torch.randn(1, rows, 24)
        compiled_norm.add_norm(x, x, norm, starts(keys(rows)[None], rows), 0.25)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == before


def test_a_cache_that_others_could_replace_is_not_given_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse it before torch, which opens the folder by its name and runs the libraries and pickles in it, has it."""
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    with tempfile.TemporaryDirectory() as shared:
        monkeypatch.setenv("FTSYS_CACHE", shared)
        Path(shared).chmod(0o777)
        with pytest.raises(ConfigError, match=f"{shared}/inductor-.*others could replace it"):
            compiled_norm._compiled.__wrapped__(0.0, 1e-5, ("a variant",))
        assert "TORCHINDUCTOR_CACHE_DIR" not in os.environ
        Path(shared).chmod(0o1777)
        compiled_norm._compiled.__wrapped__(0.0, 1e-5, ("a variant",))
        assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == f"{shared}/inductor-{os.getuid()}"


def test_a_whole_model_computes_as_eagerly() -> None:
    shape = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96}
    config = BertConfig(vocab_size=50, max_position_embeddings=40, **shape)
    model = BertForSequenceClassification(config).double().train()
    ids, places = torch.randint(5, 50, (60,)), torch.cat([torch.arange(25), torch.arange(35)])
    bounds, found = torch.tensor([0, 25, 60], dtype=torch.int32), []
    for compiled in (False, True):
        view = PackedView(model, "grouped", compiled)
        logits = model(**view.inputs(ids, places, None, bounds, 35, keys(60))).logits
        found.append([logits, *torch.autograd.grad(logits.square().sum(), list(model.parameters()))])
    for actual, expected in zip(found[1], found[0], strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9)


def test_no_compiler_is_a_reason_to_go_without(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert compiled_norm.why_not_compiled("cpu") is None
    monkeypatch.setenv("CXX", str(tmp_path / "no-compiler"))
    assert "there is no C++ compiler" in str(compiled_norm.why_not_compiled("cpu"))


def test_more_variants_than_torch_would_compile_of_one_function(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    compiled_norm._compiled.cache_clear()
    try:
        for width, rate, dtype, grad in product((64, 128, 256), (0.1, 0.2), (torch.float32, torch.bfloat16), (1, 0)):
            norm = torch.nn.LayerNorm(width).to(dtype)
            for rows in (40, 37):
                x, residual = torch.randn(rows, width, dtype=dtype), torch.randn(rows, width, dtype=dtype)
                dropped = windows(keys(rows)) if grad else None
                with torch.set_grad_enabled(bool(grad)):
                    found = compiled_norm.add_norm(x.requires_grad_(bool(grad)), residual, norm, dropped, rate)
                assert found.shape == x.shape
    finally:
        compiled_norm._compiled.cache_clear()
