"""The two primitives that everything at rest is made of: an AES-256-GCM box, and a key from a key.

A box is a random nonce of 96 bits, then the ciphertext with its tag of 128 bits (NIST SP 800-38D).
What it is about is authenticated with it, so that a box cannot be put in another's place.
"""

import os
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12


class BoxError(Exception):
    """A box does not open: another key, or a byte of it was changed."""


def fresh_key() -> bytes:
    """32 random bytes of the system's generator."""
    return os.urandom(KEY_BYTES)


def close_box(key: bytes, data: bytes | memoryview, about: str) -> bytes:
    """Encrypt and authenticate."""
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, data, about.encode())


def open_box(key: bytes, box: bytes, about: str) -> bytes:
    """What is in a box.

    Raises:
        BoxError: it does not open with this key and purpose.
    """
    try:
        return AESGCM(key).decrypt(box[:_NONCE_BYTES], box[_NONCE_BYTES:], about.encode())
    except (InvalidTag, ValueError) as error:
        raise BoxError(f"{about} does not open") from error


def derived(key: bytes, purpose: str) -> bytes:
    """A key for one purpose (HKDF-SHA256, RFC 5869); it says nothing of the others."""
    return HKDF(SHA256(), KEY_BYTES, salt=None, info=f"fedtwin {purpose}".encode()).derive(key)
