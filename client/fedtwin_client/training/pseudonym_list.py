"""A list of pseudonyms as bytes, as the ledger keeps it and the training worker is told it."""

import sys
from array import array
from collections.abc import Iterable, Sequence

Members = Sequence[int]


def pack(members: Iterable[int]) -> bytes:
    """Pseudonyms as 8 bytes each, little-endian, ascending, each once."""
    packed = array("q", sorted(set(members)))
    if sys.byteorder == "big":
        packed.byteswap()
    return packed.tobytes()


def unpack(packed: bytes) -> Members:
    """The pseudonyms that `pack` packed."""
    members = array("q", packed)
    if sys.byteorder == "big":
        members.byteswap()
    return members
