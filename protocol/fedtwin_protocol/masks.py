"""Masks of a secure sum: key streams added to numbers modulo 2^32 or 2^64.

A key is 32 bytes; its stream is AES-256 in counter mode from zero (NIST SP 800-38A), used once,
because every key belongs to one sum. Work is done in blocks of 128 KiB, in place, so that a mask of
any length needs no memory of its own. A single sum may have at most 2^36 bytes.
"""

from collections.abc import Iterable
from typing import Any, Final

import numpy as np
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from numpy.typing import NDArray

KEY_BYTES: Final = 32
BLOCK: Final = 128 * 1024
_ZEROS: Final = bytes(BLOCK)


class Masks:
    """Several masks that are added to, or taken off, the same numbers, block after block.

    All of them go over one block before the next, which stays in the processor's cache meanwhile.

    Args:
        added: keys of masks to add, 32 bytes each.
        subtracted: keys of masks to take off.
        bits: of the numbers, 32 or 64.
    """

    def __init__(self, added: Iterable[bytes], subtracted: Iterable[bytes], bits: int) -> None:
        self._streams = [
            (Cipher(algorithms.AES256(key), modes.CTR(bytes(16))).encryptor(), change)
            for keys, change in ((added, np.add), (subtracted, np.subtract))
            for key in keys
        ]
        self._buffer = bytearray(BLOCK)
        self._block = np.frombuffer(self._buffer, f"<u{bits // 8}")

    @property
    def block(self) -> int:
        """Numbers in a block."""
        return self._block.size

    def apply(self, numbers: NDArray[Any]) -> None:
        """Go over the next block, in place; every block but the last must be full."""
        mask = self._block[: numbers.size]
        for stream, change in self._streams:
            stream.update_into(_ZEROS, self._buffer)
            change(numbers, mask, out=numbers)


def add_masks(
    numbers: NDArray[Any], added: Iterable[bytes], subtracted: Iterable[bytes] = ()
) -> None:
    """Add some keys' streams to unsigned numbers and take others off, wrapping around, in place.

    Args:
        numbers: uint32 or uint64, one-dimensional and contiguous.
        added: keys, 32 bytes each.
        subtracted: keys, 32 bytes each.
    """
    if numbers.dtype not in (np.dtype("<u4"), np.dtype("<u8")) or not numbers.flags.c_contiguous:
        raise ValueError(f"expected contiguous uint32 or uint64 numbers, got {numbers.dtype}")
    masks = Masks(added, subtracted, 8 * numbers.itemsize)
    for start in range(0, numbers.size, masks.block):
        masks.apply(numbers[start : start + masks.block])


def derive(secret: bytes, label: str) -> bytes:
    """A key of 32 bytes from a secret and what it is for (HKDF-SHA256, RFC 5869)."""
    return HKDF(algorithm=hashes.SHA256(), length=KEY_BYTES, salt=None, info=label.encode()).derive(
        secret
    )


def agree(private: bytes, public: bytes, label: str) -> bytes:
    """The key that two parties share (X25519, RFC 7748), for what the label says.

    Raises:
        ValueError: the public key is none, or one that gives a known result.
    """
    mine = X25519PrivateKey.from_private_bytes(private)
    return derive(mine.exchange(X25519PublicKey.from_public_bytes(public)), label)


def self_mask_key(seed: bytes, label: str) -> bytes:
    """Key of the mask that only the site knows, until the others give shares of its seed."""
    return derive(seed, f"fedtwin self mask {label}")


def pair_mask_key(private: bytes, public: bytes, label: str, one: str, other: str) -> bytes:
    """Key of the mask between two sites, the same at both ends."""
    first, second = sorted((one, other))
    return agree(private, public, f"fedtwin pair mask {label} {first} {second}")
