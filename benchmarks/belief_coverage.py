"""How often 90 % intervals hold the truth: 1,000 patients drawn from the prior, each parameter.

The figure is the coverage that lies farthest from .90; beside it stands that of the normal
approximation around the mode, without draws.
"""

import argparse

import torch
from belief_models import drawn_patients
from figures import Figure
from torch import Tensor

from fedtwin_twins.belief.forecast import weighted_quantiles
from fedtwin_twins.belief.laplace import laplace
from fedtwin_twins.belief.mode import find_mode
from fedtwin_twins.belief.resampling import draw

PATIENTS = 1000
NOMINAL, ALLOWED = 0.90, 0.02
NORMAL_95 = 1.6448536269514722


def measure(options: argparse.Namespace) -> list[Figure]:
    """The figure of this module: how far the worst parameter's coverage is from .90."""
    del options
    evidence, truth = drawn_patients(PATIENTS, seed=1)
    mode = find_mode(evidence)
    around = laplace(evidence, mode)
    draws = draw(evidence, around, torch.Generator().manual_seed(2))
    bands = weighted_quantiles(draws.effects, draws.weights, (0.05, 0.95))
    drawn = _coverage(truth, bands[:, :, 0], bands[:, :, 1])
    half = NORMAL_95 * around.covariance.diagonal(dim1=1, dim2=2).sqrt()
    plain = _coverage(truth, mode.effects - half, mode.effects + half)
    print("drawn ", " ".join(f"{share:.3f}" for share in drawn))
    print("normal", " ".join(f"{share:.3f}" for share in plain))
    print(f"median effective sample size {float(draws.effective.median()):.0f}")
    return [
        Figure(
            id="interval-coverage",
            value=round(max(abs(share - NOMINAL) for share in drawn), 4),
            unit="coverage away from .90",
            baseline=round(max(abs(share - NOMINAL) for share in plain), 4),
            goal=ALLOWED,
        )
    ]


def _coverage(truth: Tensor, low: Tensor, high: Tensor) -> list[float]:
    inside = (truth > low) & (truth < high)
    shares: list[float] = inside.double().mean(dim=0).tolist()
    return shares
