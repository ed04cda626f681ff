"""What bounding the outcome took from a sum of moments, and how it is given back.

An outcome r that is normal with sd s and bounded at c keeps the share a = P(|r| < c) of every
covariance with something jointly normal (Stein 1981, Annals of Statistics 9:1135, lemma 1), and of
its mean square

    s^2 (a - 2 k phi(k)) + c^2 (1 - a),   k = c / s,  a = 2 Phi(k) - 1,

from which s is found. Outcomes with longer tails than the normal are given back a little too much.
"""

from math import erf, exp, pi, sqrt
from typing import Final

_HALF: Final = 0.6744897501960817
"""Half of a normal variable lies within so many sd; with fewer within, little can be given back."""


def bounded_square(sd: float, bound: float) -> float:
    """The mean square of a normal variable with that sd, bounded either way."""
    k = bound / sd
    kept = kept_share(sd, bound)
    density = exp(-k * k / 2) / sqrt(2 * pi)
    return sd * sd * (kept - 2 * k * density) + bound * bound * (1 - kept)


def kept_share(sd: float, bound: float) -> float:
    """The chance that such a variable lies within its bound."""
    return erf(bound / sd / sqrt(2))


def unbounded_sd(mean_square: float, bound: float) -> float:
    """The sd of a normal variable whose mean square is this after it was bounded.

    Args:
        mean_square: above 0.
        bound: either way; where more than half of all lie beyond it, the sd of that case.
    """
    low, high = 0.0, bound / _HALF
    if bounded_square(high, bound) <= mean_square:
        return high
    for _ in range(60):
        middle = (low + high) / 2
        if middle > 0 and bounded_square(middle, bound) > mean_square:
            high = middle
        else:
            low = middle
    return high
