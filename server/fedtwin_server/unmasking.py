"""From masked parts and shares to the sum: nothing else can be seen on the way.

For every site whose part came in, the seed of its own mask is rebuilt and that mask taken off; for
every site that vanished after the shares, its mask key, and the masks that it shared with those who
stayed. Shares of dishonest sites are found out, because a seed must fit its commitment and a key
its public half, and are left aside.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any, Final

import numpy as np
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from numpy.typing import NDArray

from fedtwin_protocol.errors import WireError
from fedtwin_protocol.masks import add_mask, pair_mask_key, self_mask_key
from fedtwin_protocol.secret_sharing import combine
from fedtwin_protocol.secure_messages import commitment_to
from fedtwin_protocol.secure_terms import SecureTerms

MOST_LEFT_OUT: Final = 2
Shares = Mapping[str, Mapping[str, bytes]]


def rebuild(
    site: str, public: bytes, shares: Shares, terms: SecureTerms, *, survived: bool
) -> bytes:
    """A survivor's seed, or a vanished site's mask key, from the shares that others gave.

    Args:
        site: whose secret it is.
        public: the commitment to the seed, or the public mask key.
        shares: by giver, then by whose secret they belong to.
        terms: the sum's.
        survived: which of the two it is.

    Raises:
        WireError: no `threshold` of the shares fit together.
    """
    held = {terms.number(giver): own[site] for giver, own in shares.items() if site in own}
    for chosen in _choices(sorted(held), terms.threshold):
        try:
            secret = combine({holder: held[holder] for holder in chosen}, terms.threshold)
        except WireError:
            continue
        seen = commitment_to(secret) if survived else _public(secret)
        if seen == public:
            return secret
    raise WireError(
        f"{len(held)} shares of {site}'s secret came in and no {terms.threshold} of them fit: "
        "too few sites answered, or too many answered wrongly"
    )


def take_off_masks(
    total: NDArray[Any],
    label: str,
    seeds: Mapping[str, bytes],
    vanished: Mapping[str, bytes],
    publics: Mapping[str, bytes],
) -> None:
    """Take every remaining mask off the sum of masked parts, in place.

    Args:
        total: sum of the survivors' parts, uint32 or uint64, (values,).
        label: the sum's.
        seeds: of the survivors' own masks, by site.
        vanished: mask keys of sites that gave shares and no part, by site.
        publics: the survivors' public mask keys, by site.
    """
    for seed in seeds.values():
        add_mask(total, self_mask_key(seed, label), subtract=True)
    for gone, private in vanished.items():
        for stayed in seeds:
            key = pair_mask_key(private, publics[stayed], label, gone, stayed)
            # A site adds the mask it shares with one whose name comes after its own.
            add_mask(total, key, subtract=gone > stayed)


def signed_values(total: NDArray[Any], largest: float, terms: SecureTerms) -> NDArray[np.float64]:
    """The sum in the unit of the contributions, from whole numbers that wrap around.

    Args:
        total: uint32 or uint64, (values,).
        largest: largest contribution of one patient, C.
        terms: the sum's.
    """
    signed = total.view(np.int32 if terms.modulus_bits == 32 else np.int64)
    values: NDArray[np.float64] = np.multiply(signed, largest / terms.scale, dtype=np.float64)
    return values


def _choices(holders: Sequence[int], threshold: int) -> Iterator[tuple[int, ...]]:
    """Sets of `threshold` holders: the first ones, then others without some of them."""
    spare = max(0, len(holders) - threshold)
    for size in range(min(spare, MOST_LEFT_OUT) + 1):
        for left_out in combinations(holders, size):
            yield tuple(item for item in holders if item not in left_out)[:threshold]


def _public(private: bytes) -> bytes:
    key = X25519PrivateKey.from_private_bytes(private).public_key()
    return key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
