"""Which rows are of records that have a newer version: by a table of bits, as by name."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from hypothesis import given
from hypothesis import strategies as st

from fedtwin_client.store.renewed_rows import rows_of
from fedtwin_client.store.replacing import origins_of

names = st.text("ab:é", max_size=11)
parts = st.sampled_from(["#0", "#1", "#0#2", ""])


@given(
    given_rows=st.lists(st.tuples(names, parts), max_size=30),
    others=st.lists(names, max_size=5),
    cut=st.integers(0, 3),
)
def test_rows_are_found_by_bits_as_by_name(
    given_rows: list[tuple[str, str]], others: list[str], cut: int
) -> None:
    sources = pa.chunked_array([[name + part for name, part in given_rows]], pa.string())
    sources = sources.slice(min(cut, len(sources)))
    origins = pa.array([*others, *(name for name, _ in given_rows[::3])], pa.string())
    expected = np.flatnonzero(pc.is_in(origins_of(sources)["origin"], origins))
    if len(origins):
        assert rows_of(sources, origins).tolist() == expected.tolist()
