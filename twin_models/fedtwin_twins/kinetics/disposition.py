"""How a drug leaves and spreads: one to three compartments, taken apart into exponentials.

Compartment 1 is the central one; each other one exchanges with it alone (a mammillary system):

    dA1/dt = input - (CL + sum Qj) A1/V1 + sum Qj Aj/Vj
    dAj/dt = Qj A1/V1 - Qj Aj/Vj

With xj = Aj/sqrt(Vj) the matrix is symmetric, so that its modes are orthonormal and its rates are
real and, where every Qj > 0, distinct (Godfrey 1983, Compartmental Models and Their Application,
chapter 4): A(t) = sqrt(V) O exp(-L t) O' A(0)/sqrt(V). Two compartments have a closed form
(Gibaldi and Perrier 1982, Pharmacokinetics, equations 2.24 to 2.27), three take the eigenvalues of
a symmetric matrix.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Modes:
    """A disposition as exponentials; every tensor has the shape of the disposition's parameters.

    Attributes:
        rates: of each mode, 1/h.
        shapes: `shapes[j][m]`, compartment j's part of mode m, orthonormal.
        roots: the square root of each compartment's volume.
    """

    rates: tuple[Tensor, ...]
    shapes: tuple[tuple[Tensor, ...], ...]
    roots: tuple[Tensor, ...]

    @property
    def entry(self) -> tuple[Tensor, ...]:
        """What a unit of amount in the central compartment adds to each mode.

        The same numbers read a concentration off the modes.
        """
        return tuple(shape / self.roots[0] for shape in self.shapes[0])


@dataclass(frozen=True, kw_only=True, slots=True)
class Disposition:
    """Clearance and volumes, each (patients, spans) or (patients, 1), above 0.

    Attributes:
        clearance: from the central compartment, volume/h.
        volume: of the central compartment.
        exchanges: for each other compartment (none, one or two) its intercompartmental clearance,
            volume/h, and its volume.
    """

    clearance: Tensor
    volume: Tensor
    exchanges: tuple[tuple[Tensor, Tensor], ...] = ()

    def __post_init__(self) -> None:
        if len(self.exchanges) > 2:
            raise ValueError(f"expected 1 to 3 compartments, got {len(self.exchanges) + 1}")

    @classmethod
    def of_rates(
        cls, volume: Tensor, elimination: Tensor, exchanges: Sequence[tuple[Tensor, Tensor]] = ()
    ) -> "Disposition":
        """From micro-constants, 1/h.

        Args:
            volume: of the central compartment.
            elimination: k10.
            exchanges: for each other compartment j the rates there, k1j, and back, kj1.
        """
        return cls(
            clearance=elimination * volume,
            volume=volume,
            exchanges=tuple((there * volume, there * volume / back) for there, back in exchanges),
        )

    @property
    def compartments(self) -> int:
        """How many."""
        return len(self.exchanges) + 1

    def modes(self) -> Modes:
        """The exponentials."""
        volumes = (self.volume, *(volume for _, volume in self.exchanges))
        out = self.clearance
        for exchange, _ in self.exchanges:
            out = out + exchange
        own = (out / self.volume, *(exchange / volume for exchange, volume in self.exchanges))
        roots = tuple(volume.sqrt() for volume in volumes)
        between = tuple(
            exchange / (roots[0] * root)
            for (exchange, _), root in zip(self.exchanges, roots[1:], strict=True)
        )
        if self.compartments == 1:
            return Modes(rates=own, shapes=((torch.ones_like(own[0]),),), roots=roots)
        if self.compartments == 2:
            elimination = self.clearance / self.volume
            return _two(own[0], own[1], between[0], elimination, roots)
        return _several(own, between, roots)

    def exponentials(self) -> tuple[Tensor, Tensor]:
        """What a unit in the central compartment leaves there: sum of share e^(-rate t).

        Returns:
            rates, 1/h, and shares, each (modes, patients, spans); the shares' sum is 1.
        """
        if self.compartments != 2:
            modes = self.modes()
            rates, shares = torch.stack(modes.rates), torch.stack(modes.shapes[0]) ** 2
            return rates, shares
        (exchange, second), elimination = self.exchanges[0], self.clearance / self.volume
        there, back = exchange / self.volume, exchange / second
        first = elimination + there
        half, between = (first - back) / 2, there * back
        radius = (half**2 + between).sqrt()
        far = radius + half.abs()
        fast = (first + back) / 2 + radius
        long, short = (torch.stack([far, between / far]) / (2 * radius)).unbind()
        steep = half >= 0
        shares = torch.stack([torch.where(steep, long, short), torch.where(steep, short, long)])
        return torch.stack([fast, elimination * back / fast]), shares


def _two(
    first: Tensor, second: Tensor, between: Tensor, elimination: Tensor, roots: tuple[Tensor, ...]
) -> Modes:
    """Modes of [[first, -between], [-between, second]], without cancellation."""
    half = (first - second) / 2
    radius = (half**2 + between**2).sqrt()
    far = radius + half.abs()
    near = between**2 / far
    fast = (first + second) / 2 + radius
    slow = elimination * second / fast
    long, short = (far / (2 * radius)).sqrt(), (near / (2 * radius)).sqrt()
    steep = half >= 0
    cosine, sine = torch.where(steep, long, short), torch.where(steep, short, long)
    return Modes(rates=(fast, slow), shapes=((cosine, sine), (-sine, cosine)), roots=roots)


def _several(
    own: tuple[Tensor, ...], between: tuple[Tensor, ...], roots: tuple[Tensor, ...]
) -> Modes:
    """Modes of the symmetric arrow matrix with `own` on its diagonal and -`between` beside it."""
    size = len(own)
    zero = torch.zeros_like(own[0] + between[0])
    rows = [[zero] * size for _ in range(size)]
    for place, value in enumerate(own):
        rows[place][place] = value + zero
    for place, value in enumerate(between, start=1):
        rows[0][place] = rows[place][0] = -value
    matrix = torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)
    rates, shapes = torch.linalg.eigh(matrix)
    return Modes(
        rates=tuple(rates.unbind(-1)),
        shapes=tuple(tuple(row.unbind(-1)) for row in shapes.unbind(-2)),
        roots=roots,
    )
