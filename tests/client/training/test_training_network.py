"""Clipped sums of a network by hand, against a slow loop with autograd and against Opacus."""

import numpy as np
import pytest
import torch

from fedtwin_client.training.network import clipped_sums

SHAPES = [(7, 5), (7,), (4, 7), (4,), (1, 4), (1,)]


def network(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) * 0.5 for shape in SHAPES]


def batch(seed=1, count=40):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn((count, 5), generator=generator)
    return features, (torch.rand(count, generator=generator) < 0.5).float()


def slow(parameters, features, outcomes, clip):
    sums = [torch.zeros_like(part) for part in parameters]
    for row, outcome in zip(features, outcomes, strict=True):
        leaves = [part.clone().requires_grad_() for part in parameters]
        values = row
        for weight, bias in ((leaves[0], leaves[1]), (leaves[2], leaves[3])):
            values = torch.relu(weight @ values + bias)
        score = (leaves[4] @ values + leaves[5])[0]
        loss = torch.nn.functional.binary_cross_entropy_with_logits(score, outcome)
        gradients = torch.autograd.grad(loss, leaves)
        norm = torch.sqrt(sum((part**2).sum() for part in gradients))
        scale = min(1.0, clip / float(norm))
        sums = [total + scale * part for total, part in zip(sums, gradients, strict=True)]
    return sums


@pytest.mark.parametrize("clip", [0.05, 0.5, 1e6])
def test_sums_equal_the_slow_loop(clip):
    parameters, (features, outcomes) = network(), batch()
    found = clipped_sums(parameters, features, outcomes, clip)
    expected = slow(parameters, features, outcomes, clip)
    for left, right in zip(found, expected, strict=True):
        assert np.asarray(left) == pytest.approx(np.asarray(right), rel=1e-4, abs=1e-5)


def test_one_patient_moves_the_sum_by_no_more_than_the_clip_and_nobody_else():
    parameters, (features, outcomes) = network(2), batch(3)
    whole = clipped_sums(parameters, features * 30, outcomes, 0.7)
    without = clipped_sums(parameters, features[1:] * 30, outcomes[1:], 0.7)
    alone = clipped_sums(parameters, features[:1] * 30, outcomes[:1], 0.7)
    difference = torch.cat([(a - b).flatten() for a, b in zip(whole, without, strict=True)])
    own = torch.cat([part.flatten() for part in alone])
    assert float(own.norm()) <= 0.7 * (1 + 1e-5)
    assert np.asarray(difference) == pytest.approx(np.asarray(own), abs=2e-5)


def test_a_forgotten_clip_would_show():
    parameters, (features, outcomes) = network(2), batch(3)
    unclipped = clipped_sums(parameters, features[:1] * 30, outcomes[:1], 1e9)
    assert float(torch.cat([part.flatten() for part in unclipped]).norm()) > 1.4


@pytest.mark.filterwarnings("ignore:Full backward hook is firing:UserWarning")  # Opacus' own hooks
def test_sums_equal_opacus():
    opacus = pytest.importorskip("opacus", reason="Opacus is not installed")
    parameters, (features, outcomes) = network(), batch()
    layers = []
    for k in (0, 2, 4):
        layer = torch.nn.Linear(*reversed(parameters[k].shape))
        layer.weight.data, layer.bias.data = parameters[k].clone(), parameters[k + 1].clone()
        layers += [layer, torch.nn.ReLU()]
    model = opacus.GradSampleModule(torch.nn.Sequential(*layers[:-1]))
    loss = torch.nn.functional.binary_cross_entropy_with_logits(
        model(features)[:, 0], outcomes, reduction="sum"
    )
    loss.backward()
    each = [part.grad_sample for part in model.parameters()]
    norms = torch.sqrt(sum((part.flatten(1) ** 2).sum(dim=1) for part in each))
    scale = torch.clamp(0.3 / norms, max=1.0)
    expected = [torch.tensordot(scale, part, dims=1) for part in each]
    for left, right in zip(
        clipped_sums(parameters, features, outcomes, 0.3), expected, strict=True
    ):
        assert np.asarray(left) == pytest.approx(np.asarray(right.detach()), rel=1e-4, abs=1e-5)
