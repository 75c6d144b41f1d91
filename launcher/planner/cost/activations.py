"""Bytes that a forward pass keeps for its backward pass, layer by layer, and what the backward pass adds. Pure.

Each term is a tensor that autograd saves: the inputs of matrix products, of norms and of activations, and attention's
probabilities for all pairs of a sequence. Dropout keeps nothing: packed batches make its masks again from their keys.
The rules for autocast are those of torch's lists of operations for each device.
"""

from dataclasses import dataclass
from typing import Literal

from launcher.planner.model_shape import Layer, ModelShape

_KEY = 8
"""Bytes of the key from which a dropout mask's row is made."""
_LOG = 4
"""Bytes of what is kept of a row of scores where the scores are not."""
_HEAD_SIZES = {"native": range(16, 1 << 14, 16), "triton": (16, 32, 64, 128)}
"""What the kernels take that form scores in blocks and keep none."""
_DROPOUT_TABLES = 4 * ((1 << 20) + (1 << 14))
"""Bytes of the two tables that masks are made from."""

Device = Literal["cpu", "cuda"]
Precision = Literal["bf16", "fp16", "fp32"]

_SAVED_BY_ACTIVATION = {"gelu": 1, "relu": 0, "silu": 1, "swish": 1, "gelu_pytorch_tanh": 1, "tanh": 0, "gelu_new": 4}
"""Tensors of the inner width that an activation keeps besides its output; transformers' gelu_new is five operations."""


@dataclass(frozen=True)
class MicroBatch:
    """What a device computes at once: packed tokens of sequences that are all `length` long."""

    tokens: int
    length: int

    @property
    def sequences(self) -> int:
        """Sequences in it, rounded up."""
        return -(-self.tokens // self.length)


@dataclass(frozen=True)
class Arithmetic:
    """Bytes of the numbers in a forward pass."""

    compute: int
    """Inputs and outputs of matrix products."""
    residual: int
    """The stream between blocks, and norms."""
    probabilities: int
    """Attention's softmax."""
    kernel: str
    """The attention kernel: "native" and "triton" keep no pairs, "grouped" one tensor of them, others one more where
    some are dropped."""
    casts: bool
    """Autocast: weights are float32 and cast for each forward pass."""

    @property
    def casts_inputs(self) -> bool:
        """Whether each matrix product makes a copy of its input in its own precision."""
        return self.compute != self.residual


def arithmetic(
    shape: ModelShape, precision: Precision, device: Device, low_precision_weights: bool, kernel: str = "auto"
) -> Arithmetic:
    """The numbers of a forward pass; without `low_precision_weights` less than float32 means autocast."""
    on_cuda = device == "cuda"
    if kernel == "auto":
        kernel = "triton" if on_cuda else "native"
    if precision == "fp32":
        return Arithmetic(4, 4, 4, kernel, casts=False)
    if low_precision_weights:
        return Arithmetic(2, 2, 2, kernel, casts=False)
    # CUDA's autocast computes norms and softmax in float32. The CPU's leaves them as they come: in float32, unless a
    # projection stands between embeddings and layers (ALBERT, ELECTRA).
    projected = shape.embedding_size != shape.layer.hidden
    return Arithmetic(2, 2 if projected and not on_cuda else 4, 4 if on_cuda else 2, kernel, casts=True)


@dataclass(frozen=True)
class Kept:
    """Bytes kept from forward to backward."""

    layer: int
    """By one layer."""
    inner: int
    """Of these, by its inner block, which the backward pass frees first."""
    spared: int
    """By a last layer of which, behind its attention, only rows of first tokens are computed."""
    scores: int
    """One tensor of attention scores."""
    boundary: int
    """A layer's input: all that is kept of it where activations are computed anew."""
    outside: int
    """By embeddings, final norm and head."""
    weight_casts: int
    """By autocast's copies of all weights."""


def kept(shape: ModelShape, batch: MicroBatch, numbers: Arithmetic) -> Kept:
    """What one micro-batch keeps."""
    layer, tokens = shape.layer, batch.tokens
    inner = _inner_block(layer, numbers) + _norm(layer, numbers)
    projected, norm = _attention(layer, numbers, batch.length), _norm(layer, numbers)
    context = 0 if _keeps_no_scores(layer, numbers) else layer.heads * layer.head_size * numbers.compute
    fixed = 0
    if layer.attention == "disentangled":
        fixed = (2 * batch.length - 1) * layer.hidden * numbers.compute * (2 + layer.position_products)
    casts = sum(t.elements for t in shape.tensors if not t.embedding) * 2 if numbers.casts else 0
    return Kept(
        layer=tokens * (inner + projected + norm) + fixed,
        inner=tokens * inner,
        spared=tokens * (projected - context) + fixed,
        scores=0 if _keeps_no_scores(layer, numbers) else tokens * batch.length * layer.heads * numbers.probabilities,
        boundary=tokens * layer.hidden * numbers.residual,
        outside=_outside(shape, batch, numbers),
        weight_casts=casts,
    )


def _attention(layer: Layer, numbers: Arithmetic, length: int) -> int:
    """Bytes a token: the projections' input, queries, keys and values, probabilities, the output projection's input."""
    queries, keys = layer.heads * layer.head_size, layer.key_heads * layer.head_size
    copies = layer.projections if numbers.casts_inputs else 1
    elements = layer.hidden * copies + queries + 2 * keys + queries
    if layer.attention == "disentangled":
        elements += layer.position_products * queries
    total = elements * numbers.compute + layer.heads * length * _pair(layer, numbers)
    if _keeps_no_scores(layer, numbers):
        total += layer.heads * _LOG
    elif layer.attention_dropout:
        total += layer.heads * _KEY
    if layer.head_norms:
        total += (queries + keys) * (4 + numbers.compute)
    return total


def _pair(layer: Layer, numbers: Arithmetic) -> int:
    """Bytes a pair of tokens and head: softmax, and where it is not what is multiplied by values, that too."""
    if _keeps_no_scores(layer, numbers):
        return 0
    grouped = numbers.kernel in ("grouped", "native") and layer.attention in ("dense", "rotary") and not layer.rms_norm
    again = layer.attention_dropout > 0 or numbers.compute != numbers.probabilities
    return numbers.probabilities + (numbers.compute if again and not grouped else 0)


def _keeps_no_scores(layer: Layer, numbers: Arithmetic) -> bool:
    """Whether a kernel takes it that keeps its scores nowhere; what it does not take goes to another one."""
    plain = layer.attention in ("dense", "rotary") and not layer.rms_norm and layer.heads == layer.key_heads
    return plain and layer.head_size in _HEAD_SIZES.get(numbers.kernel, ())


def _inner_block(layer: Layer, numbers: Arithmetic) -> int:
    """Bytes a token: the block's input, what its activation keeps, the second product's input."""
    separate = layer.gated and layer.projections > 1
    copies = 2 if separate and numbers.casts_inputs else 1
    saved = 4 if layer.gated else 1 + _SAVED_BY_ACTIVATION.get(layer.activation, 1)
    return (layer.hidden * copies + layer.inner * saved) * numbers.compute


def _norm(layer: Layer, numbers: Arithmetic) -> int:
    """Bytes a token: a norm's input; RMS norms compute in float32 and keep their result before the weight, too."""
    if layer.rms_norm:
        return layer.hidden * (4 + numbers.residual)
    return layer.hidden * numbers.residual


def _outside(shape: ModelShape, batch: MicroBatch, numbers: Arithmetic) -> int:
    """Ids and dropout's keys, the embeddings' norm, the final norm, and a few rows a sequence in the head."""
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
    """Bytes at the forward pass's fullest moment that nothing keeps, less what it keeps only later.

    Either at the end of the last layer: its input, its two sums, two products; or in its attention: two more tensors of
    pairs, before the inner block is there.
    """
    at_the_end = batch.tokens * shape.layer.hidden * (3 * numbers.residual + 2 * numbers.compute)
    return max(at_the_end, _in_attention(shape, batch, numbers))


def in_spared_attention(shape: ModelShape, batch: MicroBatch, numbers: Arithmetic) -> int:
    """Bytes of a spared last layer at the fullest moment of its attention; 0 where there is no such layer."""
    held = kept(shape, batch, numbers)
    return shape.spared * (held.spared + 2 * held.scores + 2 * held.boundary)


def backward_extra(shape: ModelShape, batch: MicroBatch, numbers: Arithmetic) -> int:
    """Bytes that the backward pass of a layer adds at its fullest moment, less what it has freed by then."""
    layer = shape.layer
    gradients = batch.tokens * layer.inner * numbers.compute * (2 if layer.gated else 1)
    matrix = layer.hidden * layer.inner * (6 if numbers.casts else numbers.compute)
    return max(gradients + matrix, _in_attention(shape, batch, numbers))


def _in_attention(shape: ModelShape, batch: MicroBatch, numbers: Arithmetic) -> int:
    held = kept(shape, batch, numbers)
    return 2 * held.scores + 2 * held.boundary - held.inner
