"""What is left of the noise when the coordinator's friends subtract their own shares.

The sum over the sites that are there, less the shares that the T sites in league with the
coordinator know, must still vary by (sigma C)^2 at least, also when D other sites have vanished.
"""

import numpy as np
import pytest

from fedtwin_client.training.masked_part import noisy_whole_numbers
from fedtwin_client.training.noise import CryptographicNoise
from fedtwin_protocol.secure_terms import SecureTerms

SIGMA, CLIP, VALUES = 2.5, 3.0, 100_000
# The sd of a sample variance of n normal numbers is sqrt(2 / n) of it: 0.0045 here.
SLACK = 5 * (2 / VALUES) ** 0.5


@pytest.mark.parametrize("count", [3, 4, 7, 10, 16])
@pytest.mark.parametrize("fewer", [0, 1])
def test_the_noise_of_the_others_is_what_the_plan_promises(count: int, fewer: int) -> None:
    """With as many in league as the plan tolerates, and with one less."""
    threshold = 2 * count // 3 + 1
    colluding = max(0, count - threshold - fewer)
    terms = SecureTerms(
        sites=tuple(f"site-{number:02}" for number in range(count)),
        keys=("",) * count,
        threshold=threshold,
        colluding=colluding,
        scale_bits=20,
        modulus_bits=64,
    )
    noise = CryptographicNoise(bytes(range(32)))
    parts = [
        noisy_whole_numbers(np.zeros(VALUES), CLIP, SIGMA, terms, noise)
        for _ in range(count - terms.may_vanish)
    ]
    known = sum(parts[:colluding], np.zeros(VALUES, np.uint64))
    left = (sum(parts[1:], parts[0]) - known).view(np.int64) * (CLIP / terms.scale)
    ratio = left.var() / (SIGMA * CLIP) ** 2
    assert 1 - SLACK < ratio < 1 + SLACK, "less than promised, or more than is needed"
