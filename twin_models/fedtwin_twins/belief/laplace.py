"""The posterior around its mode as a normal distribution: the exact second derivatives' inverse.

With H the second derivatives of the objective (-2 ln of the density), the covariance is 2 H^-1.
"""

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from fedtwin_twins.belief.likelihood import Evidence
from fedtwin_twins.belief.mode import Mode

WIDEST: Final = 10.0
"""Where the curvature is not positive, no direction is wider than so many of the prior's sd."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Laplace:
    """A normal distribution around each patient's mode.

    Attributes:
        mode: (patients, effects).
        covariance: (patients, effects, effects).
        spread: a square root of the covariance, so that `mode + spread @ standard normal` is
            distributed like it; (patients, effects, effects).
        log_determinant: of Omega^1/2 (H / 2) Omega^1/2, (patients,); 0 without data.
        sound: whether the curvature at the mode is that of a peak, (patients,).
    """

    mode: Tensor
    covariance: Tensor
    spread: Tensor
    log_determinant: Tensor
    sound: Tensor


def laplace(evidence: Evidence, mode: Mode) -> Laplace:
    """The normal approximation around the patients' modes.

    Where the curvature is not finite, the prior's stands; both that and a curvature that is not
    positive are marked as not `sound`.
    """
    factor, hessian = torch.linalg.cholesky(evidence.covariance), mode.hessian
    finite = hessian.isfinite().all(dim=2).all(dim=1)
    without_data = torch.eye(evidence.effects, dtype=hessian.dtype)
    precision = torch.where(finite[:, None, None], hessian / 2.0, without_data)
    curvatures, axes = torch.linalg.eigh(precision)
    least = WIDEST**-2
    bounded = curvatures.clamp(min=least)
    spread = factor @ (axes / bounded.sqrt()[:, None, :])
    return Laplace(
        mode=mode.effects,
        covariance=spread @ spread.mT,
        spread=spread,
        log_determinant=bounded.log().sum(dim=1),
        sound=finite & (curvatures > least).all(dim=1),
    )
