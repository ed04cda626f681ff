"""Shamir's secret sharing over the prime field of 2^521 - 1 elements (Shamir 1979, CACM 22:612).

A secret of 32 bytes is the constant term of a random polynomial of degree threshold - 1; a share is
its value at the holder's number. Any `threshold` shares give the secret, fewer say nothing of it.
"""

import secrets
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final

from fedtwin_protocol.errors import WireError

PRIME: Final = 2**521 - 1
SECRET_BYTES: Final = 32
SHARE_BYTES: Final = 66


def split(secret: bytes, threshold: int, holders: Sequence[int]) -> dict[int, bytes]:
    """Shares of a secret, by holder; drawn from the operating system's generator.

    Args:
        secret: 32 bytes.
        threshold: so many shares are needed, at least 1.
        holders: different numbers, from 1.
    """
    if len(secret) != SECRET_BYTES or not 1 <= threshold <= len(holders) or min(holders) < 1:
        raise ValueError(f"cannot share {len(secret)} bytes, {threshold} of {len(holders)}")
    coefficients = [int.from_bytes(secret, "big")]
    coefficients += [secrets.randbelow(PRIME) for _ in range(threshold - 1)]
    return {holder: _value(coefficients, holder).to_bytes(SHARE_BYTES, "big") for holder in holders}


def combine(shares: Mapping[int, bytes], threshold: int) -> bytes:
    """The secret from at least `threshold` shares, by holder.

    Raises:
        WireError: there are too few, or they are not shares of one secret.
    """
    if len(shares) < threshold:
        raise WireError(f"{len(shares)} shares came in, {threshold} are needed")
    chosen = sorted(shares)[:threshold]
    weights = _weights_at_zero(tuple(chosen))
    total = sum(
        weight * int.from_bytes(shares[holder], "big")
        for holder, weight in zip(chosen, weights, strict=True)
    )
    secret = total % PRIME
    if secret >= 2 ** (8 * SECRET_BYTES):
        raise WireError("the shares do not belong to one secret")
    return secret.to_bytes(SECRET_BYTES, "big")


def _value(coefficients: Sequence[int], point: int) -> int:
    value = 0
    for coefficient in reversed(coefficients):
        value = (value * point + coefficient) % PRIME
    return value


@lru_cache(maxsize=16)
def _weights_at_zero(points: tuple[int, ...]) -> list[int]:
    """Lagrange's weights for the value at 0."""
    weights = []
    for point in points:
        above, below = 1, 1
        for other in points:
            if other != point:
                above = above * other % PRIME
                below = below * (other - point) % PRIME
        weights.append(above * pow(below, -1, PRIME) % PRIME)
    return weights
