"""Exact per-patient gradients from one backward pass, for any model made of tapped maps.

The loss of the patients together is a sum in which each has a term of their own, and no patient
touches another's term. So the derivative d of the sum by a map's output, in patient i's rows, is
that of i's own loss, and with the map's inputs a, over the patient's records (and over time, where
a map is used again and again)

- a linear map y = W a + b has the gradient sum_r d_r a_r^T and sum_r d_r,
- a normalisation y = w n + b the gradients sum_r d_r n_r and sum_r d_r,
- an embedding of code c the gradient d_r in column c_r, summed over the records.

Each patient's are scaled by min(1, C / norm) over all maps together, and summed: what torch's
`vmap(grad)` and Opacus' hooks give, without keeping a copy of the weights for each patient (for a
head with one output, and embeddings, not even the gradients). A patient whose norm is not finite
counts as zero.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch.nn import functional

Tensor = torch.Tensor
Parameters = Mapping[str, Tensor]


@dataclass(kw_only=True)
class _Tap:
    """Uses of one map: inputs (patients, records, in), outputs, and their derivatives."""

    kind: str
    inputs: list[Tensor] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)
    derivatives: list[Tensor] = field(default_factory=list)

    def stacked(self) -> tuple[Tensor, Tensor]:
        """Inputs and derivatives of all uses, (patients, records, ·)."""
        joined = []
        for parts in (self.inputs, self.derivatives):
            rows = [
                part[:, None] if self.kind == "linear" and part.dim() == 2 else part
                for part in parts
            ]
            joined.append(torch.cat(rows, dim=1) if len(rows) > 1 else rows[0])
        return joined[0], joined[1]


class Taps:
    """Keeps what passes the maps of one forward pass."""

    def __init__(self) -> None:
        self._taps: dict[str, _Tap] = {}

    def linear(self, parameters: Parameters, name: str, values: Tensor) -> Tensor:
        """W values + b, (patients, ..., out)."""
        out = functional.linear(values, parameters[f"{name}.weight"], parameters[f"{name}.bias"])
        return self._kept(name, "linear", values, out)

    def norm(self, parameters: Parameters, name: str, values: Tensor, epsilon: float) -> Tensor:
        """Normalised over the last axis, scaled and shifted."""
        plain = functional.layer_norm(values, values.shape[-1:], eps=epsilon)
        out = torch.addcmul(parameters[f"{name}.bias"], plain, parameters[f"{name}.weight"])
        return self._kept(name, "norm", plain, out)

    def embedding(self, parameters: Parameters, name: str, codes: Tensor) -> Tensor:
        """Column code - 1 of the weight, zeros for code 0; (patients, records, width)."""
        table = functional.pad(parameters[f"{name}.weight"].T, (0, 0, 1, 0))
        return self._kept(name, "embedding", codes, functional.embedding(codes, table))

    def _kept(self, name: str, kind: str, values: Tensor, out: Tensor) -> Tensor:
        if not out.requires_grad:
            out = out.requires_grad_()
        tap = self._taps.setdefault(name, _Tap(kind=kind))
        tap.inputs.append(values.detach())
        tap.outputs.append(out)
        return out

    def clipped_sums(
        self, losses: Tensor, parameters: Parameters, clipping_norm: float
    ) -> dict[str, Tensor]:
        """Sums over patients of clipped gradients, by parameter name.

        Args:
            losses: (patients,), each of its own patient alone.
            parameters: by name; all are of tapped maps.
            clipping_norm: largest norm of a patient's contribution, over all maps together.
        """
        outputs = [out for tap in self._taps.values() for out in tap.outputs]
        found = iter(torch.autograd.grad(losses.sum(), outputs))
        for tap in self._taps.values():
            tap.derivatives = [next(found) for _ in tap.outputs]
        with torch.no_grad():
            return self._sums(losses, parameters, clipping_norm)

    def _sums(
        self, losses: Tensor, parameters: Parameters, clipping_norm: float
    ) -> dict[str, Tensor]:
        pieces = {name: _gradients(tap) for name, tap in self._taps.items()}
        squared = torch.zeros_like(losses)
        for name, (weight, bias) in pieces.items():
            if weight is None:
                squared += _embedding_squares(*self._taps[name].stacked())
            else:
                squared += _squares(weight)
            if bias is not None:
                squared += _squares(bias)
        scale = torch.clamp(clipping_norm / torch.sqrt(squared).clamp_min(1e-30), max=1.0)
        sound = torch.isfinite(squared)
        scale = torch.where(sound, scale, 0.0)
        sums: dict[str, Tensor] = {}
        for name, (weight, bias) in pieces.items():
            if weight is None:
                like = parameters[f"{name}.weight"]
                sums[f"{name}.weight"] = _embedding_sum(*self._taps[name].stacked(), scale, like)
            else:
                sums[f"{name}.weight"] = _weighted(scale, weight, sound)
            if bias is not None:
                sums[f"{name}.bias"] = _weighted(scale, bias, sound)
        return {name: sums[name] for name in parameters}


def _gradients(tap: _Tap) -> tuple[Tensor | None, Tensor | None]:
    """Per-patient gradients of weight and bias; none for what is summed without them."""
    inputs, derivatives = tap.stacked()
    if tap.kind == "embedding":
        return None, None
    if tap.kind == "norm":
        return (inputs * derivatives).sum(1), derivatives.sum(1)
    return torch.bmm(derivatives.transpose(1, 2), inputs), derivatives.sum(1)


def _squares(gradients: Tensor) -> Tensor:
    flat = gradients.reshape(len(gradients), -1)
    squares: Tensor = torch.linalg.vector_norm(flat, dim=1).square()
    return squares


def _weighted(scale: Tensor, gradients: Tensor, sound: Tensor) -> Tensor:
    flat = gradients.reshape(len(gradients), -1)
    if not bool(sound.all()):
        flat = torch.where(sound[:, None], flat, 0.0)
    return (scale @ flat).reshape(gradients.shape[1:])


def _embedding_squares(codes: Tensor, derivatives: Tensor) -> Tensor:
    """Squared norms of each patient's table of gradients: rows of the same code add up first."""
    patients, width = len(codes), derivatives.shape[2]
    words = int(codes.max()) + 1
    owner = torch.arange(patients, device=codes.device)[:, None]
    keys, place = torch.unique(owner * words + codes, return_inverse=True)
    table = torch.zeros(len(keys), width, dtype=derivatives.dtype, device=codes.device)
    table.index_add_(0, place.reshape(-1), derivatives.reshape(-1, width))
    squares = torch.where(keys % words > 0, _squares(table), 0.0)  # code 0 has no column
    return torch.zeros_like(derivatives[:, 0, 0]).index_add_(0, keys // words, squares)


def _embedding_sum(codes: Tensor, derivatives: Tensor, scale: Tensor, like: Tensor) -> Tensor:
    rows = torch.where(scale[:, None, None] > 0, derivatives * scale[:, None, None], 0.0)
    table = torch.zeros(like.shape[1] + 1, like.shape[0], dtype=like.dtype, device=like.device)
    table.index_add_(0, codes.reshape(-1), rows.reshape(-1, like.shape[0]))
    return table[1:].T
