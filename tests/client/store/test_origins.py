"""Names of records as hashes: equal for equal names, and for no others, however alike they are."""

from itertools import product

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtwin_client.store.manifest import Manifest
from fedtwin_client.store.origins import Origins

KEY = "00112233445566778899aabbccddeeff"


def pairs(hasher: Origins, names: pa.Array | pa.ChunkedArray) -> list[tuple[int, int]]:
    one, two = hasher.hashes(names)
    assert (one.dtype, two.dtype) == (np.uint64, np.uint32)
    return list(zip(one.tolist(), two.tolist(), strict=True))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(max_size=40), min_size=1, max_size=30), st.integers(0, 29))
def test_names_have_one_hash_however_they_are_laid_out(names: list[str], cut: int) -> None:
    hasher = Origins(KEY)
    found = pairs(hasher, pa.array(names))
    assert len(set(found)) == len(set(names))
    assert pairs(hasher, pa.array(names, pa.large_string())) == found
    assert pairs(hasher, pa.chunked_array([names[:cut], names[cut:]], pa.string())) == found
    assert pairs(hasher, pa.array(["before", *names, "behind"])[1:-1]) == found
    one_by_one = [pairs(hasher, pa.array([name]))[0] for name in names]
    assert one_by_one == found


def test_names_that_differ_in_few_places_differ_in_both_hashes() -> None:
    names = [
        f"lab:result/LAB@HOSP/f{filler}/8867-4/8867-4/{part}"
        for filler, part in product(range(20_000), range(5))
    ]
    one, two = Origins(KEY).hashes(pa.array(names))
    assert len(np.unique(one)) == len(np.unique(two)) == len(names)


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_none_at_all_and_names_of_nothing(kind: pa.DataType) -> None:
    hasher = Origins(KEY)
    assert pairs(hasher, pa.array([], kind)) == []
    assert pairs(hasher, pa.chunked_array([], kind)) == []
    empty, null, zero = pairs(hasher, pa.array(["", None, "\0"], kind))
    assert empty != zero
    assert null


def test_nobody_can_foretell_them() -> None:
    name = pa.array(["lab:result/1"])
    assert pairs(Origins(Manifest().names_key), name) != pairs(Origins(Manifest().names_key), name)


def plain(name: bytes) -> tuple[int, int]:
    """The sums of halves of words, each times its key, in whole numbers."""
    padded = name + bytes(-len(name) % 8)
    halves = [int.from_bytes(padded[at : at + 4], "little") for at in range(0, len(padded), 4)]
    drawn = np.random.Philox(key=int(KEY, 16)).random_raw(3 * (2 + len(halves))).tolist()
    sums = []
    for which in range(3):
        first, by_length, *keys = drawn[which::3]
        products = sum(half * key for half, key in zip(halves, keys, strict=True))
        sums.append((first + len(name) * by_length + products) % 2**64 >> 32)
    return sums[0] << 32 | sums[1], sums[2]


def test_they_are_what_the_store_has_written_down(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["", "a", "lab:12345", "ü" * 9, "x" * 3000, *("fhir:" + "x" * n for n in range(40))]
    monkeypatch.setattr("fedtwin_client.store.origins._AT_ONCE", 7)
    assert pairs(Origins(KEY), pa.array(names)) == [plain(name.encode()) for name in names]
    assert plain(b"lab:result/1") == (10829385024778658453, 1288509355)


def test_a_very_long_name_among_short_ones_is_soon_hashed() -> None:
    names = [f"short/{number}" for number in range(50_000)]
    names[7] = "long" * 50_000
    found = pairs(Origins(KEY), pa.array(names))
    assert len(set(found)) == len(names)
