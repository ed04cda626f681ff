"""Shares and masks by themselves."""

import os
from itertools import combinations

import numpy as np
import pytest

from fedtwin_protocol.errors import WireError
from fedtwin_protocol.masks import add_masks, agree, pair_mask_key, self_mask_key
from fedtwin_protocol.secret_sharing import PRIME, combine, split


def test_any_threshold_of_the_shares_give_the_secret() -> None:
    secret = os.urandom(32)
    shares = split(secret, 3, [1, 2, 5, 9, 100])
    for chosen in combinations(shares, 3):
        assert combine({holder: shares[holder] for holder in chosen}, 3) == secret
    assert combine(shares, 3) == secret


def test_fewer_say_nothing() -> None:
    shares = split(bytes(32), 3, [1, 2, 3])
    with pytest.raises(WireError, match="2 shares came in, 3 are needed"):
        combine({holder: shares[holder] for holder in (1, 2)}, 3)
    # Two shares fit every secret: for each there is a third share that gives it.
    for secret in (0, 1, 12345):
        third = _third_share({h: int.from_bytes(shares[h], "big") for h in (1, 2)}, secret)
        whole = {1: shares[1], 2: shares[2], 3: third.to_bytes(66, "big")}
        assert combine(whole, 3) == secret.to_bytes(32, "big")


def _third_share(two: dict[int, int], secret: int) -> int:
    """The value at 3 of the parabola through the two points and the secret at 0."""
    points = {0: secret, **two}
    value = 0
    for point, known in points.items():
        weight = 1
        for other in points:
            if other != point:
                weight = weight * (3 - other) * pow(point - other, -1, PRIME) % PRIME
        value = (value + known * weight) % PRIME
    return value


def test_a_wrong_share_does_not_give_the_secret() -> None:
    secret = os.urandom(32)
    shares = split(secret, 3, [1, 2, 3])
    shares[2] = bytes(66)
    with pytest.raises(WireError, match="one secret"):
        combine(shares, 3)


@pytest.mark.parametrize(
    ("secret", "threshold", "holders"),
    [
        (b"short", 1, [1]),
        (bytes(32), 3, [1, 2]),
        (bytes(32), 0, [1]),
        (bytes(32), 1, [0]),
    ],
)
def test_what_cannot_be_shared(secret: bytes, threshold: int, holders: list[int]) -> None:
    with pytest.raises(ValueError, match="cannot share"):
        split(secret, threshold, holders)


@pytest.mark.parametrize("dtype", ["<u4", "<u8"])
@pytest.mark.parametrize("size", [0, 1, 1000, 65_536, 100_001])
def test_a_mask_comes_off_again(dtype: str, size: int) -> None:
    key = os.urandom(32)
    numbers = np.arange(size, dtype=dtype)
    masked = numbers.copy()
    add_masks(masked, [key])
    assert size < 2 or (masked != numbers).any()
    add_masks(masked, [], [key])
    assert (masked == numbers).all()


def test_the_stream_is_that_of_the_standard() -> None:
    """AES-256 in counter mode from zero, as one cipher call gives it."""
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    key = os.urandom(32)
    masked = np.zeros(300_000, "<u4")
    add_masks(masked, [key])
    stream = Cipher(algorithms.AES256(key), modes.CTR(bytes(16))).encryptor()
    assert masked.tobytes() == stream.update(bytes(masked.nbytes))


def test_only_whole_numbers_are_masked() -> None:
    for wrong in (np.zeros(4), np.zeros(4, "<i4"), np.zeros(8, "<u4")[::2]):
        with pytest.raises(ValueError, match="contiguous"):
            add_masks(wrong, [bytes(32)])


def test_both_ends_agree_and_labels_keep_keys_apart() -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    privates = [os.urandom(32) for _ in range(2)]
    publics = [
        X25519PrivateKey.from_private_bytes(item)
        .public_key()
        .public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        for item in privates
    ]
    here = pair_mask_key(privates[0], publics[1], "sum", "aal", "bergen")
    there = pair_mask_key(privates[1], publics[0], "sum", "bergen", "aal")
    assert here == there
    others = {
        pair_mask_key(privates[0], publics[1], "another sum", "aal", "bergen"),
        pair_mask_key(privates[0], publics[1], "sum", "aal", "cork"),
        agree(privates[0], publics[1], "sum"),
        self_mask_key(privates[0], "sum"),
    }
    assert len(others | {here}) == 5
    with pytest.raises(ValueError, match="key"):
        agree(privates[0], bytes(32), "sum")
