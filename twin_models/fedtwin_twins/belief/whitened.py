"""The objective in the prior's own units, with its exact derivatives, for many patients at once.

With Omega = L L', effects eta = L z: the prior of z is standard normal, so that every effect has
the same scale, and the second derivatives of a patient without data are 2 times the identity.
"""

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from fedtwin_twins.belief.likelihood import Evidence

FEW: Final = 1024
"""Patients times effects."""


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

    def covariance(self, effects: Tensor) -> Tensor:
        """Of whitened effects, from that of the effects, (patients, effects, effects)."""
        half = torch.linalg.solve_triangular(self.factor, effects, upper=False)
        found: Tensor = torch.linalg.solve_triangular(self.factor, half.mT, upper=False)
        return found

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
        """Exact second derivatives, (patients, effects, effects).

        Of a few patients each row is computed by a copy of its own, of many by torch's vmap: the
        one is quicker where operations cost more than numbers, and needs no long import.
        """
        size = points.shape[1]
        if points.numel() <= FEW:
            many = self.repeated(size)
            copies = points.detach().repeat_interleave(size, dim=0).requires_grad_(True)
            gradient = many._slope(copies).view(-1, size, size)
            (found,) = torch.autograd.grad(gradient.diagonal(dim1=1, dim2=2).sum(), copies)
            rows = found.view(-1, size, size)
        else:
            points = points.detach().requires_grad_(True)
            along = torch.eye(size, dtype=points.dtype)[:, None, :].expand(size, *points.shape)
            (found,) = torch.autograd.grad(
                self._slope(points), points, along, is_grads_batched=True
            )
            rows = found.transpose(0, 1)
        return (rows + rows.mT) / 2.0

    def _slope(self, points: Tensor) -> Tensor:
        """The gradient, itself differentiable."""
        value = self.objective(points).sum()
        (gradient,) = torch.autograd.grad(value, points, create_graph=True)
        return gradient


def whitened(evidence: Evidence) -> Whitened:
    """The same question in the prior's units."""
    return Whitened(evidence=evidence, factor=torch.linalg.cholesky(evidence.covariance))
