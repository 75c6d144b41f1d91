"""Defines the ctypes structures that the kernels take as arguments; each has the layout of its C++ structure."""

import ctypes

import torch

from ftsys.kernels.dropout import check_width, mask_tables, site_offset, threshold


class Dropout(ctypes.Structure):
    """Holds keys, tables and rate of a dropout; see `Dropout` in `common.h`."""

    _fields_ = (
        ("keys", ctypes.c_void_p),
        ("first", ctypes.c_void_p),
        ("second", ctypes.c_void_p),
        ("site", ctypes.c_int64),
        ("lowest_kept", ctypes.c_int32),
        ("scale", ctypes.c_float),
    )


def dropout_of(keys: torch.Tensor | None, site: int, rate: float, width: int) -> Dropout:
    """Return the dropout of rows of `width` elements; `keys` (one per row) None or `rate` 0 means no dropout.

    `keys` must be int64 and contiguous, and the caller must keep them alive during the call.
    """
    if keys is None or rate == 0:
        return Dropout()
    check_width(width)
    first, second = mask_tables(keys.device)
    return Dropout(keys.data_ptr(), first.data_ptr(), second.data_ptr(), site_offset(site), *threshold(rate))


class Shape(ctypes.Structure):
    """Holds sequences and heads of an attention; see `attention.cpp`. `bounds` are int32 (sequences + 1,)."""

    _fields_ = (
        ("bounds", ctypes.c_void_p),
        ("sequences", ctypes.c_int64),
        ("heads", ctypes.c_int64),
        ("size", ctypes.c_int64),
        ("scale", ctypes.c_float),
        ("first_only", ctypes.c_int32),
    )


class Norm(ctypes.Structure):
    """Holds the shape of a LayerNorm; see `Norm` in `elementwise.cpp`."""

    _fields_ = (("rows", ctypes.c_int64), ("width", ctypes.c_int64), ("epsilon", ctypes.c_float))


class AdamW(ctypes.Structure):
    """Holds the scalars of one AdamW step; see `AdamW` in `optimizer.cpp`."""

    _fields_ = tuple(
        (name, ctypes.c_float)
        for name in (
            "learning_rate",
            "beta2",
            "epsilon",
            "weight_decay",
            "rest1",
            "rest2",
            "correction1",
            "correction2",
            "gradient_scale",
        )
    )
