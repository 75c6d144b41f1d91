"""Reads and sets the numbers of an optimizer's parameter groups: learning rate, betas, epsilon, decay."""

from typing import Any

from torch import Tensor

from ftsys.train.checkpoint.optimizer_layout import Layout


def read_groups(layout: Layout) -> list[dict[str, Any]]:
    """Return each group's numbers and the names of the parameters that it updates, as JSON values."""
    if not layout.optimizers:
        return []
    names = _names_by_group(layout)
    return [
        {
            **{key: _plain(value) for key, value in group.items() if key != "params" and _is_numeric(value)},
            "parameters": names.get(index, []),
        }
        for index, group in enumerate(layout.optimizers[0].param_groups)
    ]


def write_groups(layout: Layout, saved: list[dict[str, Any]]) -> None:
    """Set the numbers of each group from the saved ones that hold its parameters. Flags (fused, foreach) stay."""
    names = _names_by_group(layout)
    for optimizer in layout.optimizers:
        for index, group in enumerate(optimizer.param_groups):
            for values in _matching(saved, names.get(index, [])):
                for key, value in values.items():
                    if key in group and key not in ("params", "parameters"):
                        group[key] = _like(group[key], value)
                    elif key == "initial_lr":
                        group[key] = value


def group_mismatches(layout: Layout, saved: list[dict[str, Any]]) -> list[str]:
    """Return a line for each group that joins parameters from saved groups with different numbers, and for each saved
    value that is no number where the optimizer has one, as of a checkpoint that somebody wrote by hand."""
    found = _misfits(layout, saved)
    for index, names in _names_by_group(layout).items():
        matching = [{**group, "parameters": None} for group in _matching(saved, names)]
        if any(group != matching[0] for group in matching):
            keys = sorted(key for key in matching[0] if any(group.get(key) != matching[0][key] for group in matching))
            found.append(
                f"parameter group {index} joins parameters that were saved with different {', '.join(keys)}: "
                "build the optimizer with the saved run's groups"
            )
    return found


def _misfits(layout: Layout, saved: list[dict[str, Any]]) -> list[str]:
    names = _names_by_group(layout)
    return [
        f"parameter group {index} was saved with {key} = {value!r:.80}, where the optimizer has {group[key]!r}: "
        "go on from another checkpoint"
        for index, group in enumerate(layout.optimizers[0].param_groups if layout.optimizers else ())
        for values in _matching(saved, names.get(index, []))
        for key, value in values.items()
        if key in group and key != "params" and not _has_form(value, group[key])
    ]


def _has_form(value: Any, old: Any) -> bool:
    """Tell whether `value` is a number where `old` is one, and as many numbers where it is a pair, such as betas."""
    if isinstance(old, list | tuple):
        return isinstance(value, list) and len(value) == len(old) and all(map(_has_form, value, old))
    return not _is_numeric(old) or (_is_numeric(value) and not isinstance(value, list))


def _names_by_group(layout: Layout) -> dict[int, list[str]]:
    names: dict[int, list[str]] = {}
    for index, owner in enumerate(layout.owners):
        names.setdefault(owner.group, []).extend(layout.names_in(index))
    return names


def _matching(saved: list[dict[str, Any]], names: list[str]) -> list[dict[str, Any]]:
    wanted = set(names)
    return [group for group in saved if wanted & set(group["parameters"])]


def _is_numeric(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(_is_numeric(item) for item in value)
    if isinstance(value, Tensor):
        return value.numel() == 1
    return isinstance(value, int | float) and not isinstance(value, bool)


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value.item() if isinstance(value, Tensor) else value


def _like(old: Any, new: Any) -> Any:
    """Return `new` in the form of `old`: a tuple for betas, the same tensor for a rate that is kept in one."""
    if isinstance(old, tuple):
        return tuple(_like(*pair) for pair in zip(old, new, strict=True))
    if isinstance(old, Tensor):
        return old.fill_(new)
    return new
