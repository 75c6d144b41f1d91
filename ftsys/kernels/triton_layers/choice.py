"""Decides where Triton's kernels compute a batch; imports no Triton, which may be missing."""

import torch

from ftsys.kernels import gpu_needs

TRITON = "triton"
"""The name of the attention kernel in Triton. Batches that it computes have their dropouts and norms in Triton, too."""
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def why_not_triton(device: str) -> str | None:
    """Return the reason why Triton's kernels cannot run on `device` ("cpu" or "cuda"), or None."""
    if device == "cpu":
        return "it runs on a GPU"
    return gpu_needs.why_not_triton()


def in_triton(kernel: str, *tensors: torch.Tensor, device: str | None = None) -> bool:
    """Return True if Triton computes the layers of a batch with this attention kernel, and supports all `tensors`.

    `device` is that of the tensors; given where there are none.
    """
    if kernel != TRITON or any(tensor.dtype not in DTYPES for tensor in tensors):
        return False
    return why_not_triton(device or tensors[0].device.type) is None
