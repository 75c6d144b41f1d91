"""The loss of each example against its formula in float64, and that fillers weigh nothing."""

import math

import torch

from ftsys.data.batching.collate import NO_EXAMPLE
from ftsys.train.trainer.loss import ClassWeights, loss_per_example


def test_cross_entropy_is_minus_the_log_of_the_softmax() -> None:
    logits = torch.tensor([[1.0, -2.0, 0.5], [0.0, 3.0, -1.0]], dtype=torch.float64)
    labels = torch.tensor([2, 0])
    found = loss_per_example(logits, labels, torch.tensor([7, 8]))
    for row, label, loss in zip(logits.tolist(), labels.tolist(), found.tolist(), strict=True):
        expected = math.log(sum(math.exp(value) for value in row)) - row[label]
        assert abs(loss - expected) < 1e-12


def test_a_floating_label_is_a_squared_error() -> None:
    found = loss_per_example(torch.tensor([[1.5], [-1.0]]), torch.tensor([2.0, 1.0]).double(), torch.tensor([0, 1]))
    assert found.tolist() == [0.25, 4.0]


def test_fillers_weigh_nothing_and_send_no_gradient() -> None:
    logits = torch.randn(3, 2, requires_grad=True)
    ids = torch.tensor([4, NO_EXAMPLE, 5])
    losses = loss_per_example(logits, torch.tensor([0, 0, 1]), ids)
    losses.sum().backward()
    assert losses[1] == 0
    assert logits.grad is not None
    assert not logits.grad[1].any()
    assert logits.grad[0].all()


def test_low_precision_logits_are_judged_in_float32() -> None:
    logits = torch.tensor([[0.1, 0.2]], dtype=torch.bfloat16)
    found = loss_per_example(logits, torch.tensor([0]), torch.tensor([0]))
    assert found.dtype == torch.float32
    assert loss_per_example(logits.double(), torch.tensor([0]), torch.tensor([0])).dtype == torch.float64


def test_smoothing_shares_a_label_among_the_classes() -> None:
    logits = torch.tensor([[1.0, -2.0, 0.5]], dtype=torch.float64)
    found = loss_per_example(logits, torch.tensor([2]), torch.tensor([0]), label_smoothing=0.3)
    logs = [value - math.log(sum(math.exp(other) for other in logits[0].tolist())) for value in logits[0].tolist()]
    assert abs(float(found) - (-0.7 * logs[2] - 0.3 * sum(logs) / 3)) < 1e-12


def test_several_labels_are_a_mean_of_binary_losses() -> None:
    logits = torch.tensor([[1.0, -2.0], [0.5, 40.0]], dtype=torch.float64)
    labels = torch.tensor([[1.0, 1.0], [0.0, 0.0]])
    found = loss_per_example(logits, labels, torch.tensor([7, 8]))
    expected = [(math.log1p(math.exp(-1)) + math.log1p(math.exp(2))) / 2, (math.log1p(math.exp(0.5)) + 40.0) / 2]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=0)


def test_weights_are_those_of_torchs_losses() -> None:
    """Sums of the examples' losses; `CrossEntropyLoss` divides its own by the sum of the weights."""
    torch.manual_seed(0)
    logits, ids, classes = torch.randn(5, 3).double(), torch.arange(5), torch.tensor([0, 2, 2, 1, 0])
    weights = torch.tensor([0.5, 2.0, 7.0]).double()
    for smoothing in (0.0, 0.2):
        mean = torch.nn.CrossEntropyLoss(weights, label_smoothing=smoothing)(logits, classes)
        found = loss_per_example(logits, classes, ids, smoothing, weights).sum() / weights[classes].sum()
        torch.testing.assert_close(found, mean, rtol=1e-12, atol=0)
    bits = torch.tensor([[1, 0, 0], [1, 1, 1], [0, 0, 0], [0, 1, 0], [0, 0, 1]]).float()
    several = torch.nn.BCEWithLogitsLoss(pos_weight=weights)(logits, bits.double())
    torch.testing.assert_close(loss_per_example(logits, bits, ids, 0.0, weights).mean(), several, rtol=1e-12, atol=0)


def test_class_weights_are_kept_on_a_device() -> None:
    weights, device = ClassWeights((1.0, 2.5)), torch.device("cpu")
    found = weights.on(device)
    assert found is weights.on(device)
    assert found is not None
    assert found.tolist() == [1.0, 2.5]
    assert ClassWeights(None).on(device) is None
