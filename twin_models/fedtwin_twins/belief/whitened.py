"""The objective in the prior's own units, with its exact derivatives, for many patients at once.

With Omega = L L', effects eta = L z: the prior of z is standard normal, so that every effect has
the same scale, and the second derivatives of a patient without data are 2 times the identity.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from fedtwin_twins.belief.likelihood import Evidence


@dataclass(frozen=True, kw_only=True, slots=True)
class Whitened:
    """Evidence as a function of whitened effects z, (patients, effects).

    Attributes:
        evidence: patients and their measurements.
        factor: L, (effects, effects), lower triangular.
    """

    evidence: Evidence
    factor: Tensor

    def where(self, chosen: Tensor) -> "Whitened":
        """Some of the patients, by place or mark."""
        return Whitened(evidence=self.evidence.where(chosen), factor=self.factor)

    def repeated(self, times: int) -> "Whitened":
        """Every patient `times` times in a row."""
        return Whitened(evidence=self.evidence.repeated(times), factor=self.factor)

    def effects(self, points: Tensor) -> Tensor:
        """Effects in their own units, (…, effects)."""
        found: Tensor = points @ self.factor.mT
        return found

    def points(self, effects: Tensor) -> Tensor:
        """What `effects` undoes, for (patients, effects)."""
        columns: Tensor = torch.linalg.solve_triangular(self.factor, effects.mT, upper=False)
        return columns.mT

    def objective(self, points: Tensor) -> Tensor:
        """See `likelihood`, (patients,)."""
        terms = self.evidence.terms(self.effects(points)).sum(dim=1)
        return terms + self.evidence.flattening * (points**2).sum(dim=1)

    def with_gradient(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """The objective, (patients,), and its gradient, (patients, effects).

        No patient enters another's objective, so that the sum's gradient holds them all.
        """
        points = points.detach().requires_grad_(True)
        value = self.objective(points)
        (gradient,) = torch.autograd.grad(value.sum(), points)
        return value.detach(), gradient

    def hessian(self, points: Tensor) -> Tensor:
        """Exact second derivatives, (patients, effects, effects)."""
        points = points.detach().requires_grad_(True)
        (gradient,) = torch.autograd.grad(self.objective(points).sum(), points, create_graph=True)
        size = points.shape[1]
        along = torch.eye(size, dtype=points.dtype)[:, None, :].expand(size, *points.shape)
        (rows,) = torch.autograd.grad(gradient, points, along, is_grads_batched=True)
        found = rows.transpose(0, 1)
        return (found + found.mT) / 2.0


def whitened(evidence: Evidence) -> Whitened:
    """The same question in the prior's units."""
    return Whitened(evidence=evidence, factor=torch.linalg.cholesky(evidence.covariance))
