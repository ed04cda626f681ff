"""Names of records as hashes: equal for equal names, and for no others, however alike they are."""

from itertools import product

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtwin_client.store.origins import Origins


def pairs(hasher: Origins, names: pa.Array | pa.ChunkedArray) -> list[tuple[int, int]]:
    one, two = hasher.hashes(names)
    assert one.dtype == two.dtype == np.uint64
    return list(zip(one.tolist(), two.tolist(), strict=True))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(max_size=40), min_size=1, max_size=30), st.integers(0, 29))
def test_names_have_one_hash_however_they_are_laid_out(names: list[str], cut: int) -> None:
    hasher = Origins()
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
    one, two = Origins().hashes(pa.array(names))
    assert len(np.unique(one)) == len(np.unique(two)) == len(names)


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_none_at_all_and_names_of_nothing(kind: pa.DataType) -> None:
    hasher = Origins()
    assert pairs(hasher, pa.array([], kind)) == []
    assert pairs(hasher, pa.chunked_array([], kind)) == []
    empty, null, zero = pairs(hasher, pa.array(["", None, "\0"], kind))
    assert empty != zero
    assert null


def test_nobody_can_foretell_them() -> None:
    name = pa.array(["lab:result/1"])
    assert pairs(Origins(), name) != pairs(Origins(), name)


def test_a_very_long_name_among_short_ones_is_soon_hashed() -> None:
    names = [f"short/{number}" for number in range(50_000)]
    names[7] = "long" * 50_000
    found = pairs(Origins(), pa.array(names))
    assert len(set(found)) == len(names)
