"""Points that fill a space evenly: Sobol nets, plain or scrambled by a seed."""

import torch
from torch import Tensor


def plain_normal(points: int, dimensions: int) -> Tensor:
    """The first points of Sobol's sequence as normal variates; the first of all is the middle."""
    engine = torch.quasirandom.SobolEngine(dimensions)  # type: ignore[no-untyped-call] # torch's
    # Before the middle comes 0, which would be an infinite variate.
    drawn: Tensor = engine.draw(points + 1, dtype=torch.float64)
    normal: Tensor = torch.special.ndtri(drawn[1:])
    return normal


def scrambled_normal(generator: torch.Generator, points: int, dimensions: int) -> Tensor:
    """Normal variates, (points, dimensions), evener than chance; best a power of 2 of them.

    Owen, J Complexity 1998;14:466.
    """
    seed = int(torch.randint(2**31 - 1, (1,), generator=generator))
    engine = torch.quasirandom.SobolEngine(  # type: ignore[no-untyped-call] # torch's
        dimensions, scramble=True, seed=seed
    )
    drawn: Tensor = engine.draw(points, dtype=torch.float64)
    normal: Tensor = torch.special.ndtri(drawn.clamp(2.0**-31, 1.0 - 2.0**-31))
    return normal
