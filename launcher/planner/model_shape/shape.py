"""Describes a model without loading it: its parameters one by one, and the sizes that its activations depend on."""

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal


@dataclass(frozen=True)
class Tensor:
    """A parameter. `embedding`: a table that is indexed by token, position or type, without a matrix product."""

    name: str
    shape: tuple[int, ...]
    embedding: bool = False
    uses: int = 1
    """Number of layers that share the parameter."""
    frozen: bool = False
    """True where the run does not train it: it has no gradient and no optimizer state."""

    @cached_property
    def elements(self) -> int:
        """Return the number of elements."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Layer:
    """The sizes of one layer that its activations depend on; in elements, dropout as a probability."""

    hidden: int
    inner: int
    heads: int
    head_size: int
    key_heads: int
    """Heads of keys and values: fewer than `heads` in grouped-query attention."""
    attention: Literal["dense", "rotary", "relative", "disentangled"] = "dense"
    """Positions in attention: none, rotary, a learned bias per distance, or DeBERTa's two position products."""
    projections: int = 3
    """Matrix products for queries, keys and values: 3, or 1 where they are fused."""
    head_norms: bool = False
    """True where queries and keys are normalized per head (Qwen3)."""
    pre_norm: bool = False
    """True where a block's norm comes before it (ModernBERT, Llama), not after the residual sum (BERT)."""
    rms_norm: bool = False
    gated: bool = False
    """True where the inner activation is multiplied by a second projection."""
    activation: str = "gelu"
    attention_dropout: float = 0.0
    hidden_dropout: float = 0.0
    """Dropout behind the attention and behind the inner block."""
    position_products: int = 0
    """Disentangled attention: number of position products, 0 to 2."""


@dataclass(frozen=True, eq=False)  # compared and hashed by identity, so that `sizes_of` can cache by it
class ModelShape:
    """The properties of a model that memory, communication and operations depend on."""

    family: str
    tensors: tuple[Tensor, ...]
    """In the order of `model.parameters()`."""
    layer: Layer
    layers: int
    """Number of layers that are computed (ALBERT computes the same layer many times)."""
    embedding_size: int
    outputs: int
    longest: int | None
    """Tokens of the longest sequence that the positions allow; None for a model without a position table."""
    recomputable: bool = True
    """True where transformers can recompute the layers' activations in the backward pass."""

    @cached_property
    def trimmed_layers(self) -> int:
        """Return 1 where the last layer computes only first tokens after attention, else 0.

        `ftsys.models.last_layer` does that.
        """
        return int(self.family in _TRIMMED)

    @cached_property
    def parameters(self) -> int:
        """Count the elements of all parameters."""
        return sum(tensor.elements for tensor in self.tensors)

    @cached_property
    def trained(self) -> tuple[Tensor, ...]:
        """Return the parameters that the run trains, in their order."""
        return tuple(tensor for tensor in self.tensors if not tensor.frozen)

    @cached_property
    def trained_parameters(self) -> int:
        """Count the elements that the run trains."""
        return sum(tensor.elements for tensor in self.trained)

    @cached_property
    def frozen_parameters(self) -> int:
        """Count the elements without gradient and optimizer state."""
        return self.parameters - self.trained_parameters

    @cached_property
    def unfrozen(self) -> "ModelShape":
        """Return the shape as if the run trained all parameters."""
        if not self.frozen_parameters:
            return self
        return replace(self, tensors=tuple(replace(tensor, frozen=False) for tensor in self.tensors))

    @cached_property
    def matrix_parameters(self) -> int:
        """Count the elements outside the embeddings."""
        return sum(tensor.elements for tensor in self.tensors if not tensor.embedding)

    @cached_property
    def computed_parameters(self) -> int:
        """Count the elements outside the embeddings, each as often as a token is multiplied by it."""
        return sum(tensor.elements * tensor.uses for tensor in self.tensors if not tensor.embedding)

    @cached_property
    def trained_products(self) -> int:
        """Count as `computed_parameters`, of those that are trained: a frozen weight has no gradient to compute."""
        return sum(tensor.elements * tensor.uses for tensor in self.trained if not tensor.embedding)

    @cached_property
    def groups(self) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Return the Trainer's two groups of trained parameters: with weight decay, and without (biases and norms)."""
        decayed = tuple(tensor for tensor in self.trained if not _is_bias_or_norm(tensor))
        return decayed, tuple(tensor for tensor in self.trained if _is_bias_or_norm(tensor))


# Listed here because the planner loads no model; tests/parity/models/test_memory_model.py compares with real models.
_TRIMMED = ("bert", "roberta", "xlm-roberta", "camembert", "electra", "deberta-v2")


def _is_bias_or_norm(tensor: Tensor) -> bool:
    """Decide as transformers' `get_decay_parameter_names`: True for every bias and every norm's weight."""
    return len(tensor.shape) < 2 or "bias" in tensor.name
