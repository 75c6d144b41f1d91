"""Tests the arguments of other libraries' flash attention against the slow reference, with fakes for the libraries.

The fakes take the real functions' arguments and compute their documented result in float64, one sequence after another.
tests/gpu runs the real functions.
"""

import inspect
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import varlen

from ftsys.errors import ConfigError
from ftsys.kernels import library_attention, select
from ftsys.kernels.attention import reference_attention
from ftsys.kernels.dropout import NO_DROPOUT, AttentionDropout
from ftsys.kernels.layout import PackedLayout
from ftsys.kernels.pattern import PLAIN, Pattern, RelativeTerms
from ftsys.kernels.select import KERNELS, choose_kernel

LENGTHS = [5, 1, 24, 7]
PATTERNS = [PLAIN, Pattern(causal=True), Pattern(window=3), Pattern(causal=True, window=3), Pattern(window=1)]
REAL_VARLEN = inspect.signature(varlen.varlen_attn)


def attention_by_window(
    query: Tensor, key: Tensor, value: Tensor, bounds: Tensor, scale: float, window: tuple[int, int], causal: bool
) -> Tensor:
    """Key j is seen by query i where i - left <= j <= i + right; -1 is no bound; `causal` hides later keys too."""
    left, right = (10**9 if side == -1 else side for side in window)
    group, outputs = query.shape[1] // key.shape[1], []
    for start, end in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        ahead = torch.arange(end - start) - torch.arange(end - start)[:, None]
        hidden = (ahead > (0 if causal else right)) | (ahead < -left)
        keys, values = (rows[start:end].repeat_interleave(group, 1) for rows in (key, value))
        scores = torch.einsum("qhk,lhk->hql", query[start:end], keys) * scale
        outputs.append(torch.einsum("hql,lhk->qhk", scores.masked_fill(hidden, -torch.inf).softmax(-1), values))
    return torch.cat(outputs)


def varlen_double(*given: Any, **named: Any) -> Tensor:
    told = REAL_VARLEN.bind(*given, **named).arguments
    assert told.get("enable_gqa", False) == (told["query"].shape[1] != told["key"].shape[1])
    states = (told["query"], told["key"], told["value"])
    assert all(states.is_contiguous() for states in states)
    return attention_by_window(*states, told["cu_seq_q"], told["scale"], told["window_size"], causal=False)


class Package:
    """A fake of flash-attn that records the dropout rate."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rates: list[float] = []
        module = ModuleType("flash_attn")
        vars(module)["flash_attn_varlen_func"] = self
        monkeypatch.setitem(sys.modules, "flash_attn", module)

    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, cu_seqlens_q: Tensor, cu_seqlens_k: Tensor, max_seqlen_q: int,
        max_seqlen_k: int, dropout_p: float = 0.0, softmax_scale: float | None = None, causal: bool = False,
        window_size: tuple[int, int] = (-1, -1), softcap: float = 0.0, alibi_slopes: Any = None,
        deterministic: bool = False,
    ) -> Tensor:  # fmt: skip
        self.rates.append(dropout_p)
        assert deterministic
        assert softmax_scale is not None
        return attention_by_window(q, k, v, cu_seqlens_q, softmax_scale, window_size, causal)


def states_of(heads: int, groups: int) -> tuple[Tensor, Tensor, Tensor]:
    query, key, value = (torch.randn(sum(LENGTHS), count, 8, dtype=torch.float64) for count in (heads, groups, groups))
    return query, key, value


def layout() -> PackedLayout:
    return PackedLayout(torch.tensor([0, *LENGTHS]).cumsum(0).int(), max(LENGTHS))


@pytest.mark.parametrize("groups", [2, 4])
@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda pattern: f"causal={pattern.causal}, window={pattern.window}")
@pytest.mark.parametrize("library", ["varlen", "flash_attn"])
def test_a_library_is_told_what_the_reference_computes(
    monkeypatch: pytest.MonkeyPatch, library: str, pattern: Pattern, groups: int
) -> None:
    monkeypatch.setattr(varlen, "varlen_attn", varlen_double)
    Package(monkeypatch)
    kernels = {"varlen": library_attention.varlen_attention, "flash_attn": library_attention.package_attention}
    states = states_of(4, groups)
    found = kernels[library](*states, layout(), 0.3, NO_DROPOUT, pattern)
    expected = reference_attention(*states, layout(), 0.3, NO_DROPOUT, pattern)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("groups", [2, 4])
def test_torchs_own_takes_what_it_is_told(groups: int) -> None:
    """Call the real function with fake tensors, which have a shape and a device but no data."""
    if groups == 2 and not library_attention.varlen_shares_keys():
        pytest.skip(f"torch {torch.__version__} has no shared keys there")
    with FakeTensorMode(), torch.device("meta"):
        shapes = [(37, count, 64) for count in (4, groups, groups)]
        query, key, value = (torch.empty(shape, dtype=torch.bfloat16, requires_grad=True) for shape in shapes)
        laid = PackedLayout(torch.empty(5, dtype=torch.int32), 24)
        output = library_attention.varlen_attention(
            query, key, value, laid, 0.1, NO_DROPOUT, Pattern(causal=True, window=5)
        )
        gradients = torch.autograd.grad(output.sum(), (query, key, value))
    assert output.shape == query.shape
    assert [gradient.shape for gradient in gradients] == shapes


def test_torchs_own_never_drops() -> None:
    with pytest.raises(ValueError, match="drops nothing"):
        library_attention.varlen_attention(*states_of(4, 4), layout(), 0.3, AttentionDropout(0.1), PLAIN)


def test_only_half_precision_on_a_gpu_is_theirs() -> None:
    def takes(device: str, dtype: torch.dtype, size: int, pattern: Pattern = PLAIN) -> bool:
        with FakeTensorMode():
            states = torch.empty(3, 2, size, dtype=dtype, device=device)
        return library_attention.takes(states, states, states, pattern)

    assert takes("cuda", torch.bfloat16, 64)
    assert takes("cuda", torch.float16, 256)
    assert not takes("cuda", torch.float32, 64)
    assert not takes("cpu", torch.bfloat16, 64)
    assert not takes("cuda", torch.bfloat16, 12)
    assert not takes("cuda", torch.bfloat16, 264)
    assert not takes("cuda", torch.bfloat16, 64, Pattern(relative=RelativeTerms(torch.zeros(2, 5))))


def on_a_gpu(monkeypatch: pytest.MonkeyPatch, found: list[str]) -> None:
    """Simulate a machine that has all three kernels; `found` gets the name of each kernel that is called."""

    def note(name: str) -> Any:
        def computes(*told: Any) -> Tensor:
            found.append(name)
            return reference_attention(*told)

        return computes

    monkeypatch.setattr(select, "_why_not", lambda name, device: None)
    monkeypatch.setattr(library_attention, "takes", lambda query, key, value, pattern: pattern.relative is None)
    monkeypatch.setattr(select, "_triton_takes_states", lambda states: states[0].shape[-1] <= 128)
    for name in ("varlen", "triton", "flash_attn"):
        monkeypatch.setitem(select.COMPUTED_BY, name, note(name))


@pytest.mark.parametrize(
    ("kernel", "dropout", "size", "computed"),
    [
        ("triton", "none", 8, "triton"),
        ("triton", "keyed", 8, "triton"),
        ("triton", "none", 256, "varlen"),
        ("varlen", "none", 8, "varlen"),
        ("varlen", "keyed", 8, "triton"),
        ("flash_attn", "none", 8, "flash_attn"),
        ("flash_attn", "keyed", 8, "flash_attn"),
    ],
)
def test_masks_that_depend_on_the_layout_are_drawn_by_name_alone(
    monkeypatch: pytest.MonkeyPatch, kernel: str, dropout: str, size: int, computed: str
) -> None:
    found: list[str] = []
    on_a_gpu(monkeypatch, found)
    keys = torch.arange(sum(LENGTHS))
    drops = AttentionDropout(0.1, 1, keys) if dropout == "keyed" else NO_DROPOUT
    states = torch.randn(sum(LENGTHS), 2, size)
    KERNELS[kernel](states, states, states, layout(), 0.3, drops)
    assert found == [computed]


def test_auto_takes_what_knows_the_example(monkeypatch: pytest.MonkeyPatch) -> None:
    lacking: set[str] = set()
    monkeypatch.setattr(select, "_why_not", lambda name, device: "no" if name in lacking else None)
    found = []
    for name in ("triton", "varlen"):
        found.append(choose_kernel("auto", "cuda"))
        lacking.add(name)
    assert [*found, choose_kernel("auto", "cuda")] == ["triton", "varlen", "padded"]


@pytest.mark.parametrize("name", ["varlen", "flash_attn", "triton"])
def test_a_gpus_kernel_is_refused_on_a_cpu(name: str) -> None:
    with pytest.raises(ConfigError, match=f"engine.kernels='{name}' is not available here: it runs on a GPU"):
        choose_kernel(name)


def test_a_package_that_was_built_for_another_torch_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "flash_attn.py").write_text("raise ImportError('undefined symbol: _ZN3c10')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "flash_attn", raising=False)
    library_attention.why_not_package.cache_clear()
    with pytest.raises(ConfigError, match=r"flash-attn cannot be imported \(undefined symbol: _ZN3c10\)"):
        choose_kernel("flash_attn", "cuda")
    library_attention.why_not_package.cache_clear()


def test_what_a_gpu_lacks_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for asked in (library_attention.why_not_varlen, library_attention.why_not_package):
        asked.cache_clear()
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 5))
    monkeypatch.setattr(torch.backends.cuda, "is_flash_attention_available", lambda: True)
    monkeypatch.setitem(sys.modules, "flash_attn", None)
    with pytest.raises(ConfigError, match=r"the GPU has compute capability 7\.5, below 8\.0"):
        choose_kernel("varlen", "cuda")
    with pytest.raises(ConfigError, match="'flash_attn' is not available here: flash-attn is not installed"):
        choose_kernel("flash_attn", "cuda")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    library_attention.why_not_varlen.cache_clear()
    with pytest.raises(ConfigError, match="heads have 12 elements, and it takes multiples of 8 up to 256"):
        choose_kernel("varlen", "cuda", head_size=12)
    library_attention.why_not_varlen.cache_clear()
