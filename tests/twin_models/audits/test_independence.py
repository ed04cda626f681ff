"""Whoever lets patients mix is found, and a sum of single contributions passes."""

import numpy as np
import pytest
import torch

from fedtwin_twins.audits.independence import (
    TOLERANCE,
    ExactSum,
    Rows,
    measure_mixing,
    mixing_finding,
)

CLIP, COLUMNS = 0.7, 6


def rows(count: int = 40) -> Rows:
    generator = np.random.default_rng(2)
    return {
        "features": generator.normal(size=(count, COLUMNS)),
        "outcomes": (generator.random(count) < 0.5).astype(float),
        "length": generator.integers(1, COLUMNS + 1, count),
    }


def gradients(features: np.ndarray, outcomes: np.ndarray) -> np.ndarray:
    design = np.c_[features, np.ones(len(features))]
    risk = 1 / (1 + np.exp(-design @ np.linspace(-1, 1, design.shape[1])))
    return (risk - outcomes)[:, None] * design


def summed(each: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(each, axis=1, keepdims=True)
    return (each * np.minimum(1, CLIP / np.maximum(norms, 1e-12))).sum(axis=0)


def honest(given: Rows) -> np.ndarray:
    return summed(gradients(given["features"], given["outcomes"]))


def centred(given: Rows) -> np.ndarray:
    features = given["features"]
    return summed(gradients(features - features.mean(axis=0), given["outcomes"]))


def scaled_to_the_largest(given: Rows) -> np.ndarray:
    features = given["features"]
    return summed(gradients(features / np.abs(features).max(), given["outcomes"]))


def padded_to_the_longest(given: Rows) -> np.ndarray:
    """The mean over a record runs over the longest of the batch."""
    longest = given["length"].max()
    own = np.arange(COLUMNS) < given["length"][:, None]
    means = (given["features"] * own).sum(axis=1, keepdims=True) / longest
    return summed(gradients(np.repeat(means, COLUMNS, axis=1), given["outcomes"]))


def masked_to_its_own_length(given: Rows) -> np.ndarray:
    own = np.arange(COLUMNS) < given["length"][:, None]
    means = (given["features"] * own).sum(axis=1, keepdims=True) / given["length"][:, None]
    return summed(gradients(np.repeat(means, COLUMNS, axis=1), given["outcomes"]))


def clip_shared_by_all(given: Rows) -> np.ndarray:
    """The whole sum is clipped in place of each patient's part."""
    each = gradients(given["features"], given["outcomes"]).sum(axis=0)
    return each * min(1, CLIP * len(given["outcomes"]) ** 0.5 / np.linalg.norm(each))


def by_place(given: Rows) -> np.ndarray:
    """The weight of a patient depends on the place in the table."""
    weights = 1 / (1 + np.arange(len(given["outcomes"])))
    return (gradients(given["features"], given["outcomes"]) * weights[:, None]).sum(axis=0)


def network_sum(norm: torch.nn.Module) -> ExactSum:
    """Per-patient gradients by autograd through a network with a normalising layer."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(COLUMNS, 5), norm, torch.nn.ReLU(), torch.nn.Linear(5, 1)
    ).double()

    def exact_sum(given: Rows) -> np.ndarray:
        scores = model(torch.tensor(given["features"]))[:, 0]
        losses = torch.nn.functional.binary_cross_entropy_with_logits(
            scores, torch.tensor(given["outcomes"]), reduction="none"
        )
        leaves = list(model.parameters())
        each = []
        for loss in losses:
            parts = torch.autograd.grad(loss, leaves, retain_graph=True)
            each.append(torch.cat([part.flatten() for part in parts]))
        return summed(torch.stack(each).numpy())

    return exact_sum


class OfOne(torch.nn.Module):
    """BatchNorm cannot normalise a single patient while training; it then uses what it knows."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = torch.nn.BatchNorm1d(5)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        self.inner.train(len(values) > 1)
        return self.inner(values)


@pytest.mark.parametrize("exact_sum", [honest, masked_to_its_own_length])
def test_contributions_of_single_patients_pass(exact_sum: ExactSum) -> None:
    assert measure_mixing(exact_sum, rows(), CLIP, seed=1) < 1e-12


def test_layer_normalisation_passes() -> None:
    assert measure_mixing(network_sum(torch.nn.LayerNorm(5)), rows(), CLIP, seed=1) < 1e-12


@pytest.mark.parametrize(
    "exact_sum",
    [centred, scaled_to_the_largest, padded_to_the_longest, clip_shared_by_all, by_place],
)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_mixing_of_patients_is_found(exact_sum: ExactSum, seed: int) -> None:
    mixing = measure_mixing(exact_sum, rows(), CLIP, seed)
    assert mixing > 50 * TOLERANCE
    assert not mixing_finding("independence", mixing).passed


def test_batch_normalisation_is_found() -> None:
    assert measure_mixing(network_sum(OfOne()), rows(), CLIP, seed=1) > 50 * TOLERANCE


def test_too_few_patients_are_refused() -> None:
    with pytest.raises(ValueError, match="8 patients"):
        measure_mixing(honest, rows(7), CLIP, seed=1)
