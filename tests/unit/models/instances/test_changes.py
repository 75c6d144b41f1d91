"""Tests that exactly what an installer has changed on a model is taken off again."""

import torch
from torch import nn

from ftsys.models.instances.changes import Changes, recorded


def installed(model: nn.Module) -> Changes:
    """Mark every module, as the number of a dropout's place does."""
    with recorded(model) as changes:
        for module in model.modules():
            module._mark = 1
    changes.users = 1
    return changes


def test_a_class_that_another_library_has_put_on_since_stays() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout())
    changes = installed(model)
    nn.utils.parametrizations.weight_norm(model[0])
    expected = model[0](torch.ones(1, 2))
    assert changes.leave()
    assert torch.equal(model[0](torch.ones(1, 2)), expected)
    assert not any(hasattr(module, "_mark") for module in model.modules())


def test_a_class_that_another_library_has_taken_off_since_stays_off() -> None:
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(2, 2)))
    changes = installed(model)
    nn.utils.parametrize.remove_parametrizations(model[0], "weight")
    assert changes.leave()
    assert type(model[0]) is nn.Linear
    assert model[0](torch.ones(1, 2)).shape == (1, 2)
