"""What is known of a model without loading it: its parameters, one by one, and what its activations depend on."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal


@dataclass(frozen=True)
class Tensor:
    """A parameter. `embedding`: it is looked up by token, position or type, and takes part in no matrix product."""

    name: str
    shape: tuple[int, ...]
    embedding: bool = False
    uses: int = 1
    """Layers that share it."""

    @cached_property
    def elements(self) -> int:
        """Numbers in it."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Layer:
    """One encoder or decoder layer, as its activations see it; sizes in elements, dropouts as probabilities."""

    hidden: int
    inner: int
    heads: int
    head_size: int
    key_heads: int
    """Heads of keys and values: fewer than `heads` where several queries share one."""
    attention: Literal["dense", "rotary", "relative", "disentangled"] = "dense"
    """What is added to plain attention: rotated positions, a learned bias, or DeBERTa's two position products."""
    projections: int = 3
    """Matrix products that make queries, keys and values: 3, or 1 where one makes them all."""
    head_norms: bool = False
    """Whether queries and keys are normed head by head (Qwen3)."""
    pre_norm: bool = False
    """Whether a block's norm stands before it (ModernBERT, Llama) rather than behind the residual sum (BERT)."""
    rms_norm: bool = False
    gated: bool = False
    """Whether the inner activation is multiplied by a second projection."""
    activation: str = "gelu"
    attention_dropout: float = 0.0
    position_products: int = 0
    """Disentangled attention: how many of the two position products there are."""
    positions: int = 0
    """Disentangled attention: rows of the table of relative positions."""


@dataclass(frozen=True, eq=False)  # known by identity: what is derived from one is kept for it
class ModelShape:
    """Everything of a model that memory, traffic and arithmetic depend on."""

    family: str
    tensors: tuple[Tensor, ...]
    """In the order of `model.parameters()`."""
    layer: Layer
    layers: int
    """How often a layer is computed (ALBERT computes one many times)."""
    embedding_size: int
    outputs: int
    longest: int | None
    """Tokens of the longest sequence that the positions allow; None where they have no table."""
    recomputable: bool = True
    """Whether transformers can compute its layers' activations again in the backward pass."""

    @cached_property
    def spared(self) -> int:
        """Last layers that compute, behind attention, one token a sequence (`ftsys.models.last_layer`): 1 or 0."""
        return int(self.family in _SPARED)

    @cached_property
    def parameters(self) -> int:
        """Elements of all parameters."""
        return sum(tensor.elements for tensor in self.tensors)

    @cached_property
    def matrix_parameters(self) -> int:
        """Parameters outside the embeddings."""
        return sum(tensor.elements for tensor in self.tensors if not tensor.embedding)

    @cached_property
    def computed_parameters(self) -> int:
        """Parameters outside the embeddings, each as often as a token meets it."""
        return sum(tensor.elements * tensor.uses for tensor in self.tensors if not tensor.embedding)

    @cached_property
    def groups(self) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """The Trainer's two groups of parameters: with weight decay, and without (biases and norms)."""
        decayed = tuple(tensor for tensor in self.tensors if not _is_bias_or_norm(tensor))
        return decayed, tuple(tensor for tensor in self.tensors if _is_bias_or_norm(tensor))


# The planner loads no model to ask; tests/parity/models/test_memory_model.py holds these against real ones.
_SPARED = ("bert", "roberta", "xlm-roberta", "camembert", "electra", "deberta-v2")


def _is_bias_or_norm(tensor: Tensor) -> bool:
    """As transformers' `get_decay_parameter_names`: every bias, every norm's weight."""
    return len(tensor.shape) < 2 or "bias" in tensor.name
