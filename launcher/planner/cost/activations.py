"""Predicts the bytes that a forward pass saves for its backward pass, layer by layer, and what the latter adds. Pure.

Each term is a tensor that autograd saves: the inputs of matrix products, of norms and of activations, and attention's
probabilities for all pairs of tokens in a sequence. Dropout's masks take a byte per element; kernels that compute
scores in blocks, the grouped one, the native and the Triton ones regenerate theirs from a key and save none.
The rules for autocast are those of torch's lists of operations for each device.
"""

from dataclasses import dataclass
from typing import Literal

from launcher.planner.model_shape import Layer, ModelShape

_KEY = 8
"""Bytes of the key, or of the two windows, that generate one row of a dropout mask."""
_MASK = 1
"""Bytes of an element of a saved dropout mask."""
_LOG = 4
"""Bytes of a row's log-sum-exp, which kernels save in place of attention scores."""
HEAD_SIZES = {"native": range(16, 1 << 14, 16), "triton": range(1, 257)}
"""Head sizes of the kernels that compute scores in blocks and save none."""
_HASHES_AGAIN = ("native", "triton")
"""Kernels with which the mask of dropout behind a projection is hashed again in the backward pass, and not saved."""
LARGEST_FLOAT32_HEAD = 128
"""Largest head of the Triton kernel in float32."""
_DROPOUT_TABLES = 4 * ((1 << 20) + (1 << 14))
"""Bytes of the two lookup tables that dropout masks are generated from."""

Device = Literal["cpu", "cuda"]
Precision = Literal["bf16", "fp16", "fp32"]

_SAVED_BY_ACTIVATION = {"gelu": 1, "relu": 0, "silu": 1, "swish": 1, "gelu_pytorch_tanh": 1, "tanh": 0, "gelu_new": 4}
"""Tensors of the inner width that an activation saves besides its output; gelu_new is five separate operations."""


@dataclass(frozen=True)
class MicroBatch:
    """The tokens of one forward pass: packed sequences that are all `length` long."""

    tokens: int
    length: int

    @property
    def sequences(self) -> int:
        """Return the number of sequences, rounded up."""
        return -(-self.tokens // self.length)


@dataclass(frozen=True)
class Arithmetic:
    """Bytes of one number in each kind of tensor of a forward pass."""

    compute: int
    """In inputs and outputs of matrix products."""
    residual: int
    """In the residual stream, and in norms."""
    probabilities: int
    """In attention's softmax."""
    kernel: str
    """The attention kernel: "native" and "triton" save no scores, "grouped" one tensor of them, others a second one
    where attention has dropout."""
    casts: bool
    """True for autocast: weights are float32 and cast in each forward pass."""

    @property
    def casts_inputs(self) -> bool:
        """Return True where each matrix product copies its input to its own precision."""
        return self.compute != self.residual


def arithmetic(
    shape: ModelShape, precision: Precision, device: Device, low_precision_weights: bool, kernel: str = "auto"
) -> Arithmetic:
    """Return the bytes per number; a precision below float32 without `low_precision_weights` means autocast."""
    on_cuda = device == "cuda"
    if kernel == "auto":
        kernel = "triton" if on_cuda else "native"
    if precision == "fp32":
        return Arithmetic(4, 4, 4, kernel, casts=False)
    if low_precision_weights:
        return Arithmetic(2, 2, 2, kernel, casts=False)
    # CUDA's autocast computes norms and softmax in float32. The CPU's keeps their input's type: float32, unless a
    # projection between embeddings and layers (ALBERT, ELECTRA) has produced bf16.
    projected = shape.embedding_size != shape.layer.hidden
    return Arithmetic(2, 2 if projected and not on_cuda else 4, 4 if on_cuda else 2, kernel, casts=True)


@dataclass(frozen=True)
class SavedBytes:
    """Bytes saved from the forward pass to the backward pass."""

    layer: int
    """Saved by one layer."""
    inner: int
    """Part of `layer` that its inner block saves; the backward pass frees it first."""
    trimmed: int
    """Saved by a last layer that computes only first tokens after its attention."""
    scores: int
    """Bytes of one tensor of attention scores."""
    boundary: int
    """A layer's input: all that is saved of the layer where activations are recomputed."""
    outside: int
    """Saved by embeddings, final norm and head."""
    weight_casts: int
    """Bytes of autocast's copies of all weights."""


def saved_bytes(shape: ModelShape, batch: MicroBatch, numbers: Arithmetic) -> SavedBytes:
    """Predict the bytes that the forward pass of one micro-batch saves."""
    layer, tokens = shape.layer, batch.tokens
    inner = _inner_block(layer, numbers) + _norm(layer, numbers)
    projected, norm = _attention(layer, numbers, batch.length), _norm(layer, numbers)
    context = 0 if _keeps_no_scores(layer, numbers) else layer.heads * layer.head_size * numbers.compute
    fixed = 0
    if layer.attention == "disentangled":
        fixed = (2 * batch.length - 1) * layer.hidden * numbers.compute * (2 + layer.position_products)
    casts = sum(t.elements for t in shape.tensors if not t.embedding) * 2 if numbers.casts else 0
    return SavedBytes(
        layer=tokens * (inner + projected + norm) + fixed,
        inner=tokens * inner,
        trimmed=tokens * (projected - context) + fixed,
        scores=0 if _keeps_no_scores(layer, numbers) else tokens * batch.length * layer.heads * numbers.probabilities,
        boundary=tokens * layer.hidden * numbers.residual,
        outside=_outside(shape, batch, numbers),
        weight_casts=casts,
    )


def _attention(layer: Layer, numbers: Arithmetic, length: int) -> int:
    """Count bytes per token: inputs of both projections, queries, keys, values, and probabilities."""
    queries, keys = layer.heads * layer.head_size, layer.key_heads * layer.head_size
    copies = layer.projections if numbers.casts_inputs else 1
    elements = layer.hidden * copies + queries + 2 * keys + queries
    if layer.attention == "disentangled":
        elements += layer.position_products * queries
    total = elements * numbers.compute + layer.heads * length * _pair(layer, numbers) + _hidden_mask(layer, numbers)
    if _keeps_no_scores(layer, numbers):
        total += layer.heads * _LOG
    if layer.attention_dropout and numbers.kernel != "native":
        total += layer.heads * _KEY
    if layer.attention_dropout and numbers.kernel == "triton" and _keeps_no_scores(layer, numbers):
        total += layer.heads * 4 * -(-length // 32)  # one bit for each probability, in words of 32
    if layer.head_norms:
        total += (queries + keys) * (4 + numbers.compute)
    return total


def _pair(layer: Layer, numbers: Arithmetic) -> int:
    """Count bytes per pair of tokens and head: the softmax, and its copy after dropout or a cast where there is one."""
    if _keeps_no_scores(layer, numbers):
        return 0
    grouped = numbers.kernel in ("grouped", "native") and layer.attention in ("dense", "rotary") and not layer.rms_norm
    again = layer.attention_dropout > 0 or numbers.compute != numbers.probabilities
    mask = _MASK if layer.attention_dropout > 0 and not grouped else 0
    return numbers.probabilities + mask + (numbers.compute if again and not grouped else 0)


def _keeps_no_scores(layer: Layer, numbers: Arithmetic) -> bool:
    """Return True where the kernel saves no scores; layers that it does not support go to another kernel.

    Triton's takes shared key heads and causal patterns too, which decoders have; here RMS norms stand for those.
    """
    plain = numbers.kernel == "triton" or (not layer.rms_norm and layer.heads == layer.key_heads)
    if numbers.kernel == "triton" and numbers.compute == 4 and layer.head_size > LARGEST_FLOAT32_HEAD:
        return False
    supported = layer.attention in ("dense", "rotary") and layer.head_size in HEAD_SIZES.get(numbers.kernel, ())
    return plain and supported


def _inner_block(layer: Layer, numbers: Arithmetic) -> int:
    """Count bytes per token: the block's input, the tensors its activation saves, and the second product's input."""
    separate = layer.gated and layer.projections > 1
    copies = 2 if separate and numbers.casts_inputs else 1
    saved = 4 if layer.gated else 1 + _SAVED_BY_ACTIVATION.get(layer.activation, 1)
    return (layer.hidden * copies + layer.inner * saved) * numbers.compute + _hidden_mask(layer, numbers)


def _hidden_mask(layer: Layer, numbers: Arithmetic) -> int:
    """Bytes per token of the mask of dropout behind a projection."""
    return 0 if layer.hidden_dropout == 0 or numbers.kernel in _HASHES_AGAIN else layer.hidden * _MASK


def _norm(layer: Layer, numbers: Arithmetic) -> int:
    """Count bytes per token: the input; RMS norms, but in Triton, also save their float32 result before the weight."""
    if layer.rms_norm and numbers.kernel != "triton":
        return layer.hidden * (4 + numbers.residual)
    return layer.hidden * numbers.residual


def _outside(shape: ModelShape, batch: MicroBatch, numbers: Arithmetic) -> int:
    """Count bytes of ids, dropout keys, the embeddings' norm, the final norm, and the head's few rows per sequence."""
    layer, residual = shape.layer, numbers.residual
    total = batch.tokens * 4 * _KEY + (_DROPOUT_TABLES if layer.attention_dropout else 0)
    if not layer.rms_norm:
        total += batch.tokens * shape.embedding_size * residual
    if shape.embedding_size != layer.hidden:
        total += batch.tokens * shape.embedding_size * numbers.compute
    if layer.pre_norm:
        total += batch.tokens * _norm(layer, numbers)
    return total + batch.sequences * (4 * layer.hidden * numbers.compute + 3 * shape.outputs * 4)


def forward_extra(shape: ModelShape, batch: MicroBatch, numbers: Arithmetic) -> int:
    """Predict the temporary bytes at the forward pass's peak, less the bytes that it saves only later.

    The peak is either at the end of the last layer (its input, its two residual sums, two products), or in its
    attention (two more tensors of scores, while the inner block has saved nothing yet).
    """
    at_the_end = batch.tokens * shape.layer.hidden * (3 * numbers.residual + 2 * numbers.compute)
    return max(at_the_end, _in_attention(shape, batch, numbers))


def in_trimmed_attention(shape: ModelShape, batch: MicroBatch, numbers: Arithmetic) -> int:
    """Predict the bytes of a trimmed last layer at the peak of its attention; 0 where the layer is not trimmed."""
    held = saved_bytes(shape, batch, numbers)
    return shape.trimmed_layers * (held.trimmed + 2 * held.scores + 2 * held.boundary)


def backward_extra(shape: ModelShape, batch: MicroBatch, numbers: Arithmetic) -> int:
    """Predict the bytes that a layer's backward pass adds at its peak, less the bytes that it has freed by then."""
    layer = shape.layer
    gradients = batch.tokens * layer.inner * numbers.compute * (2 if layer.gated else 1)
    matrix = layer.hidden * layer.inner * (6 if numbers.casts else numbers.compute)
    return max(gradients + matrix, _in_attention(shape, batch, numbers))


def _in_attention(shape: ModelShape, batch: MicroBatch, numbers: Arithmetic) -> int:
    held = saved_bytes(shape, batch, numbers)
    return 2 * held.scores + 2 * held.boundary - held.inner
