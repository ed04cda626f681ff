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
from fedtwin_protocol.masks import Masks, pair_mask_key, self_mask_key
from fedtwin_protocol.secret_sharing import combine
from fedtwin_protocol.secure_messages import commitment_to
from fedtwin_protocol.secure_terms import SecureTerms

MOST_LEFT_OUT: Final = 2
Shares = Mapping[str, Mapping[str, bytes]]


class Rebuilder:
    """Rebuilds secrets of one sum from the shares that sites gave.

    Args:
        shares: by giver, then by whose secret they belong to.
        terms: the sum's.
    """

    def __init__(self, shares: Shares, terms: SecureTerms) -> None:
        self._shares = shares
        self._terms = terms
        self._proven: tuple[int, ...] = ()

    def secret(self, site: str, public: bytes, *, survived: bool) -> bytes:
        """A survivor's seed, or a vanished site's mask key.

        Those whose shares fitted before are asked first: a liar costs the search once a sum.

        Args:
            site: whose secret it is.
            public: the commitment to the seed, or the public mask key.
            survived: which of the two it is.

        Raises:
            WireError: no `threshold` of the shares fit together.
        """
        terms = self._terms
        held = {
            terms.number(giver): own[site] for giver, own in self._shares.items() if site in own
        }
        for chosen in self._choices(sorted(held)):
            try:
                secret = combine({holder: held[holder] for holder in chosen}, terms.threshold)
            except WireError:
                continue
            seen = commitment_to(secret) if survived else _public(secret)
            if seen == public:
                self._proven = chosen
                return secret
        raise WireError(
            f"{len(held)} shares of {site}'s secret came in and no {terms.threshold} of them fit: "
            "too few sites answered, or too many answered wrongly"
        )

    def _choices(self, holders: Sequence[int]) -> Iterator[tuple[int, ...]]:
        """Sets of `threshold` holders: the proven, the first ones, then others without some."""
        threshold = self._terms.threshold
        if self._proven and set(self._proven) <= set(holders):
            yield self._proven
        spare = max(0, len(holders) - threshold)
        for size in range(min(spare, MOST_LEFT_OUT) + 1):
            for left_out in combinations(holders, size):
                yield tuple(item for item in holders if item not in left_out)[:threshold]


def remaining_masks(
    label: str,
    seeds: Mapping[str, bytes],
    vanished: Mapping[str, bytes],
    publics: Mapping[str, bytes],
) -> tuple[list[bytes], list[bytes]]:
    """Keys of the masks that are still on the sum of parts: to be added, and to be taken off.

    Args:
        label: the sum's.
        seeds: of the survivors' own masks, by site.
        vanished: mask keys of sites that gave shares and no part, by site.
        publics: the survivors' public mask keys, by site.
    """
    added: list[bytes] = []
    subtracted = [self_mask_key(seed, label) for seed in seeds.values()]
    for gone, private in vanished.items():
        for stayed in seeds:
            key = pair_mask_key(private, publics[stayed], label, gone, stayed)
            # A site adds the mask that it shares with one whose name comes after its own.
            (subtracted if gone > stayed else added).append(key)
    return added, subtracted


def unmasked_sum(
    parts: Sequence[NDArray[Any]],
    masks: tuple[Sequence[bytes], Sequence[bytes]],
    largest: float,
    terms: SecureTerms,
) -> NDArray[np.float64]:
    """The sum in the unit of the contributions, (values,), block by block.

    Args:
        parts: masked parts, uint32 or uint64, (values,) each.
        masks: keys from `remaining_masks`.
        largest: largest contribution of one patient, C.
        terms: the sum's.
    """
    streams = Masks(*masks, terms.modulus_bits)
    total = np.empty(parts[0].size, np.float64)
    for start in range(0, total.size, streams.block):
        pieces = [part[start : start + streams.block] for part in parts]
        block = pieces[0].copy()
        for piece in pieces[1:]:
            block += piece
        streams.apply(block)
        signed = block.view(f"<i{terms.modulus_bits // 8}")
        np.multiply(signed, largest / terms.scale, out=total[start : start + streams.block])
    return total


def _public(private: bytes) -> bytes:
    key = X25519PrivateKey.from_private_bytes(private).public_key()
    return key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
