"""The noise in a secure sum beside what the plan says it is, for 3 to 16 sites, one of them gone.

Each sum is made by the product's own parts: shares of Skellam noise, scaled, rounded, masked, added
up modulo 2^64 and unmasked, with the masks of a site that vanished after the shares taken off. The
plan says sigma C sqrt(K' / (K - D - T)) for K' parts in the sum; of three sites none may vanish.
The figure is the largest relative distance of the sample sd over all numbers of sites. Two sites
make no secure sum (each would see the other's part); their shares alone are measured.
"""

import argparse
from math import sqrt

import numpy as np
from figures import Figure

from fedtwin_client.training.masked_part import masked_part, noisy_whole_numbers
from fedtwin_client.training.noise import CryptographicNoise
from fedtwin_protocol.secure_terms import SecureTerms
from fedtwin_server.unmasking import unmasked_sum

SIGMA, LARGEST, VALUES = 4.0, 0.5, 40_000


def measure(options: argparse.Namespace) -> list[Figure]:
    """The figure of this module."""
    del options
    worst = _two_sites()
    for sites in range(3, 17):
        worst = max(worst, _error(sites))
    return [
        Figure(
            id="noise-share-error",
            value=round(worst, 5),
            unit="of the plan's sd, worst of 2 to 16 sites",
            baseline=0.05,
            goal=0.05,
        )
    ]


def _terms(sites: int) -> SecureTerms:
    threshold = 2 * sites // 3 + 1
    return SecureTerms(
        sites=tuple(f"site-{number:02}" for number in range(sites)),
        keys=("",) * sites,
        threshold=threshold,
        colluding=sites - threshold,
        scale_bits=20,
        modulus_bits=64,
    )


def _key(sites: int, *who: int) -> bytes:
    return np.random.default_rng((sites, *who)).bytes(32)


def _error(sites: int) -> float:
    """Relative distance of the sum's noise from the plan's, with one site gone where one may be."""
    terms = _terms(sites)
    there = list(range(sites - (1 if terms.may_vanish else 0)))
    exact = np.random.default_rng(sites).normal(0, 3, VALUES)
    parts = []
    for site in there:
        pairs = [(other, _key(sites, *sorted((site, other)))) for other in range(sites)]
        added = [_key(sites, 99, site), *(key for other, key in pairs if other > site)]
        taken = [key for other, key in pairs if other < site]
        noise = CryptographicNoise(_key(sites, 77, site))
        parts.append(masked_part(exact, LARGEST, SIGMA, terms, noise, (added, taken)))
    gone = [site for site in range(sites) if site not in there]
    taken_off = [_key(sites, 99, site) for site in there]
    # A site that stayed added what it shares with one of a later name.
    taken_off += [_key(sites, site, lost) for lost in gone for site in there]
    total = unmasked_sum(parts, ([], taken_off), LARGEST, terms)
    planned = SIGMA * LARGEST * sqrt(len(there) / terms.honest_present)
    return abs(float(np.std(total - len(there) * exact)) / planned - 1)


def _two_sites() -> float:
    terms = _terms(2)
    shares = [
        noisy_whole_numbers(np.zeros(VALUES), LARGEST, SIGMA, terms, CryptographicNoise(_key(2, n)))
        for n in range(2)
    ]
    total = sum(share.view(np.int64) for share in shares) * (LARGEST / terms.scale)
    planned = SIGMA * LARGEST * sqrt(2 / terms.honest_present)
    return abs(float(np.std(total)) / planned - 1)
