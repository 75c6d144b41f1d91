"""Predicts the bytes that torch and DeepSpeed hold in a step besides activations, moment by moment. Pure.

The formulas come from the sources of DeepSpeed 0.19.8 and torch 2.13 and are checked against measurements. DeepSpeed's
configuration is the one that `launcher.planner.deepspeed_config` writes. `weight` is the bytes of one weight in the
forward pass; `several` means that a step has more than one micro-batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import accumulate
from typing import Literal

from launcher.planner.model_shape import ModelShape, Tensor

BUCKET_ELEMENTS = 50_000_000
"""Elements of DeepSpeed's buckets; its default of 500 million is more than all gradients of an encoder."""
PERSISTENT_ELEMENTS = 100_000
"""Elements below which ZeRO 3 does not partition a parameter."""
_ALL_REDUCED_AT_ONCE = 500_000_000
"""Elements of gradients that DeepSpeed without ZeRO all-reduces in one flat copy."""
ALL_GATHERED_AT_MOST = 500_000_000
"""Elements up to which ZeRO 3 keeps weights gathered until the backward pass: it frees weights whose next use is more
than 10^9 elements away, and the way there and back counts every element twice."""
WIDENED_ELEMENTS = 1 << 27
"""Elements whose gradients the update of master weights copies to float32 at once, on a GPU."""
_NORM_BYTES = 8
"""Bytes of a number in DeepSpeed's gradient norm: float64, on a copy of one parameter at a time."""

Moment = Literal["forward", "backward", "step"]


@dataclass(frozen=True)
class Parts:
    """Bytes of one rank by part; all except `host` are on the device."""

    weights: int = 0
    gradients: int = 0
    optimizer: int = 0
    activations: int = 0
    buffers: int = 0
    host: int = 0

    def __add__(self, other: "Parts") -> "Parts":
        return Parts(
            self.weights + other.weights,
            self.gradients + other.gradients,
            self.optimizer + other.optimizer,
            self.activations + other.activations,
            self.buffers + other.buffers,
            self.host + other.host,
        )

    @property
    def total(self) -> int:
        """Return the bytes on the device."""
        return self.weights + self.gradients + self.optimizer + self.activations + self.buffers


@dataclass(frozen=True)
class EngineStep:
    """The bytes that an engine holds throughout a step, and those it adds at the moments that may be the peak."""

    held: Parts
    forward: Parts
    """Added at the end of the forward pass."""
    backward: Parts
    """Added at the start of the backward pass, when all activations are still allocated."""
    last_layer: Parts
    """Added in the backward pass of the layer next to the embeddings, with one layer's activations allocated."""
    later: tuple[tuple[Moment, Parts], ...]
    """Added later, when activations are freed."""


@dataclass(frozen=True)
class Sizes:
    """Numbers of elements of a model's trained parameters that an engine's memory depends on."""

    elements: int
    largest: int
    """In the largest parameter."""
    embeddings: int
    layer: int
    """In one layer."""
    part: int
    """In one rank's shard."""
    touched: int
    """In all parameters that overlap one rank's shard, at most (shards of ZeRO 1 and 2 cut through parameters)."""
    piece: int
    """In the largest piece of a parameter within a rank's shard."""
    gathered_last: int
    """In the parameters of ZeRO 3's last prefetch before the end of the forward pass."""


@lru_cache(maxsize=64)
def sizes_of(shape: ModelShape, ranks: int) -> Sizes:
    """Count the trained elements of a model that is sharded over `ranks`."""
    tensors, elements = shape.trained, shape.trained_parameters
    embeddings = sum(tensor.elements for tensor in tensors if tensor.embedding)
    return Sizes(
        elements=elements,
        largest=max(tensor.elements for tensor in tensors),
        embeddings=embeddings,
        layer=(elements - embeddings) // max(1, shape.layers),
        part=-(-elements // ranks),
        touched=_touched(shape.groups, ranks),
        piece=max(_pieces(shape.groups[0], ranks), default=0),
        gathered_last=_gathered_last(tensors),
    )


def _touched(groups: Sequence[Sequence[Tensor]], ranks: int) -> int:
    """Count the elements of whole parameters that overlap one rank's shard, of the rank with most.

    DeepSpeed lays each group of parameters end to end and cuts it into one shard per rank.
    """
    sums = [0] * ranks
    for group in groups:
        share = -(-sum(tensor.elements for tensor in group) // ranks)
        ends = list(accumulate(tensor.elements for tensor in group))
        for tensor, end in zip(group, ends, strict=True):
            for rank in range((end - tensor.elements) // max(share, 1), min(ranks, -(-end // max(share, 1)))):
                sums[rank] += tensor.elements
    return max(sums)


def _pieces(group: Sequence[Tensor], ranks: int) -> list[int]:
    """Return, for each parameter, the elements of its largest piece in one rank's shard."""
    share = -(-sum(tensor.elements for tensor in group) // ranks)
    return [min(tensor.elements, share) for tensor in group]


def _gathered_last(tensors: Sequence[Tensor]) -> int:
    """Count the elements of the last prefetch: parameters are gathered in buckets that close once they are full."""
    bucket = 0
    for tensor in tensors:
        bucket = 0 if bucket >= BUCKET_ELEMENTS else bucket
        bucket += tensor.elements if tensor.elements > PERSISTENT_ELEMENTS else 0
    return bucket


def plain_step(sizes: Sizes, weight: int, reduced: bool, several: bool, widened: bool) -> EngineStep:
    """Predict torch without DeepSpeed; 16-bit weights have float32 master weights.

    `reduced`: DDP, whose buckets hold a second copy of all gradients. `widened`: the update copies 16-bit gradients to
    float32, bucket by bucket.
    """
    gradients = weight * sizes.elements
    copied = 4 * min(sizes.elements, max(WIDENED_ELEMENTS, sizes.largest)) if widened else 0
    collected = Parts(gradients=gradients if several else 0)
    return EngineStep(
        held=Parts(
            weights=gradients, optimizer=(12 if weight == 2 else 8) * sizes.elements, buffers=gradients * reduced
        ),
        forward=collected,
        backward=collected,
        last_layer=Parts(gradients=gradients if several else weight * _before_last_layer(sizes)),
        later=(
            # A new gradient is allocated next to the sum that it is added to; the largest is the embeddings'.
            ("backward", Parts(gradients=gradients, buffers=weight * sizes.largest if several else 0)),
            ("step", Parts(gradients=gradients, buffers=copied)),
        ),
    )


def zero0_step(sizes: Sizes, weight: int, several: bool) -> EngineStep:
    """Predict DeepSpeed without ZeRO: 16-bit weights with float32 masters, gradients all-reduced in one flat copy."""
    n, low = sizes.elements, weight == 2
    gradients = weight * n
    collected = Parts(gradients=gradients if several else 0)
    flat = weight * min(n, _ALL_REDUCED_AT_ONCE)
    return EngineStep(
        held=Parts(weights=weight * n, optimizer=(12 if low else 8) * n),
        forward=collected,
        backward=collected,
        last_layer=Parts(gradients=gradients if several else weight * _before_last_layer(sizes)),
        later=(
            ("backward", Parts(gradients=gradients, buffers=flat)),
            ("step", Parts(gradients=gradients, buffers=4 * n if low else 0)),
        ),
    )


def zero12_step(sizes: Sizes, stage: int, weight: int, several: bool, overlapped: bool, offloaded: bool) -> EngineStep:
    """Predict ZeRO 1 and 2. `overlapped`: gradients are reduced during the backward pass, through two buckets."""
    n, part = sizes.elements, sizes.part
    bucket = weight * BUCKET_ELEMENTS * (2 if overlapped else 1)
    flat = weight * max(min(n, BUCKET_ELEMENTS), sizes.largest if sizes.largest > BUCKET_ELEMENTS else 0)
    own = 0 if offloaded else weight * sizes.touched
    streamed = stage == 2 or (overlapped and not several)
    collected = (weight * n if stage == 1 else own) if several else 0
    filled = own if n > BUCKET_ELEMENTS else 0
    if streamed:
        reducing = Parts(gradients=collected + filled, buffers=bucket + flat)
    else:
        reducing = Parts(gradients=max(weight * n, weight * n - flat + filled), buffers=bucket)
    later: list[tuple[Moment, Parts]] = [("backward", reducing)]
    if offloaded:
        later.append(("backward", Parts(buffers=bucket + _NORM_BYTES * sizes.piece)))
    else:
        later.append(("step", Parts(gradients=own, buffers=_NORM_BYTES * sizes.piece)))
        later.append(("step", Parts(gradients=own, buffers=4 * part + (weight * part if weight == 2 else 0))))
    return EngineStep(
        held=_zero12_held(sizes, weight, several, offloaded),
        forward=Parts(gradients=collected),
        backward=Parts(gradients=collected, buffers=bucket),
        last_layer=Parts(
            gradients=max(collected, filled if streamed else weight * _before_last_layer(sizes)), buffers=bucket
        ),
        later=tuple(later),
    )


def _zero12_held(sizes: Sizes, weight: int, several: bool, offloaded: bool) -> Parts:
    weights, part = weight * sizes.elements, sizes.part
    if not offloaded:
        return Parts(weights=weights, optimizer=12 * part)
    # On the host: master weights, moments and float32 gradients; a copy of the updated weights on its way to the
    # device; the largest gradient on its way to the host; a copy of each gradient where micro-batches are accumulated.
    host = 16 * part + weight * (part + sizes.largest) + (weight * sizes.touched if several else 0)
    return Parts(weights=weights, buffers=weight * sizes.largest, host=host)


def zero3_step(sizes: Sizes, gathers: Sizes, weight: int, ranks: int, offload: str, scatter_copies: bool) -> EngineStep:
    """Predict ZeRO 3. `gathers`: the sizes with frozen parameters, which are gathered like the others.

    `scatter_copies`: gloo's reduce-scatter works on a copy of its input.
    """
    n, part = sizes.elements, sizes.part
    alone = ranks == 1
    gathered = 0 if alone else weight * min(gathers.elements, ALL_GATHERED_AT_MOST)
    flat = weight * max(min(n, BUCKET_ELEMENTS), sizes.largest if sizes.largest > BUCKET_ELEMENTS else 0)
    first = 0 if alone else weight * gathers.largest
    states_outside, weights_outside = offload != "none", offload not in ("none", "optimizer")
    inside = Parts(
        weights=0 if weights_outside else weight * part,
        gradients=0 if states_outside else weight * part,
        optimizer=0 if states_outside else 12 * part,
        buffers=weight * BUCKET_ELEMENTS,
        host=(16 + weight) * part * states_outside + weight * part * weights_outside,
    )
    update = 0 if states_outside else 4 * part + (weight * part if weight == 2 else 0)
    return EngineStep(
        held=inside,
        forward=Parts(buffers=gathered + (0 if alone else weight * gathers.gathered_last)),
        backward=Parts(buffers=gathered),
        last_layer=Parts(buffers=0 if alone else weight * (gathers.largest + gathers.layer)),
        later=(
            ("backward", Parts(buffers=first + flat * (2 if scatter_copies else 1))),
            ("step", Parts(buffers=0 if states_outside else _NORM_BYTES * -(-sizes.largest // ranks))),
            ("step", Parts(buffers=update)),
        ),
    )


def with_frozen(step: EngineStep, bytes_held: int) -> EngineStep:
    """Add the bytes of frozen weights, which have neither gradient nor optimizer state."""
    return replace(step, held=step.held + Parts(weights=bytes_held)) if bytes_held else step


def _before_last_layer(sizes: Sizes) -> int:
    """Count the elements whose gradients exist when the backward pass reaches the layer next to the embeddings."""
    return max(0, sizes.elements - sizes.embeddings - sizes.layer)
