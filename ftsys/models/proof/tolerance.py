"""Says how far two results may be apart that are computed in another order of sums."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Tolerance:
    """The largest difference of `values` and of `gradients`, relative to the largest number among them."""

    values: float
    gradients: float

    @classmethod
    def of(cls, model: nn.Module) -> "Tolerance":
        """Return the tolerance for the type and device of a model's weights.

        A GPU may round products of float32 to TF32, and accelerate may have put the model under autocast already.
        """
        weight = next(model.parameters())
        autocast = "_original_forward" in vars(model)
        if weight.dtype == torch.float64 and not autocast:
            return cls(1e-9, 1e-7)
        if weight.dtype == torch.float32 and not autocast:
            return cls(2e-4, 2e-3) if weight.device.type == "cpu" else cls(1e-2, 5e-2)
        return cls(5e-2, 2e-1)


def differ(one: Tensor, other: Tensor, tolerance: float, floor: float = 0.0) -> bool:
    """Return True where two tensors of one shape are further apart than `tolerance` times their largest number.

    A difference of `floor`, or of what the type cannot represent next to 1, is none.
    """
    one, other = one.detach().float() if one.dtype.itemsize < 4 else one.detach(), other.detach().to(one.device)
    largest = float(one.abs().max())
    allowed = max(largest * tolerance, floor, 16 * torch.finfo(one.dtype).eps)
    return not float((one - other).abs().max()) <= allowed
