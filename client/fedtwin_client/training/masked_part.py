"""A site's part of a secure sum: scaled, rounded, with its share of the noise, and masked.

Guarantee: one patient moves the rounded numbers by at most scale + sqrt(d) steps (Euclidean norm;
each of d numbers is rounded once, on the site's sum), and the sum over any t sites, T of them
dishonest, carries Skellam noise of at least (sigma scale)^2 in variance. Nothing unmasked leaves
this process. Work is done in blocks, so that memory stays near that of the result.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedtwin_client.training.noise import NoiseSource
from fedtwin_protocol.masks import Masks
from fedtwin_protocol.secure_terms import SecureTerms

Floats = NDArray[np.float64] | NDArray[np.float32]


def masked_part(
    exact: Floats,
    largest: float,
    noise_multiplier: float,
    terms: SecureTerms,
    noise: NoiseSource,
    masks: tuple[Sequence[bytes], Sequence[bytes]],
) -> NDArray[Any]:
    """What a site sends.

    Args:
        exact: the site's sum, (values,); every number finite.
        largest: a patient's largest contribution to it (Euclidean norm), C.
        noise_multiplier: sigma of the whole sum, in units of C.
        terms: how the noise is shared, the scale and the modulus.
        noise: where the share is drawn from.
        masks: keys of the masks to add, and to take off.

    Returns:
        uint32 or uint64, (values,)
    """
    part = np.empty(exact.size, f"<u{terms.modulus_bits // 8}")
    streams = Masks(*masks, terms.modulus_bits)
    for start in range(0, exact.size, streams.block):
        piece = exact[start : start + streams.block]
        block = part[start : start + streams.block]
        block[:] = noisy_whole_numbers(piece, largest, noise_multiplier, terms, noise)
        streams.apply(block)
    return part


def noisy_whole_numbers(
    exact: Floats,
    largest: float,
    noise_multiplier: float,
    terms: SecureTerms,
    noise: NoiseSource,
) -> NDArray[Any]:
    """The part before it is masked; never to leave this process. See `masked_part`."""
    variance = terms.share_sd(noise_multiplier) ** 2
    whole = np.rint(np.multiply(exact, terms.scale / largest, dtype=np.float64))
    if variance > 0:
        whole = whole + noise.skellam(variance, whole.size)
    # A plan whose patients and noise could reach the limit is refused; this is the last guard.
    limit = float(terms.largest_part)
    signed = np.clip(whole, -limit, limit).astype(f"<i{terms.modulus_bits // 8}")
    return signed.view(f"<u{terms.modulus_bits // 8}")
