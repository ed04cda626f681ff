"""Which units the numbers of each code have, written into each file for those who ask at once.

A study asks for the units of its codes before it converts anything; without this every value of
the hospital would have to be read for the answer. In an encrypted file it is encrypted too.
"""

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fedtwin_client.at_rest.tables import open_reader
from fedtwin_client.records.blocks import rows_table

NAME: Final = b"fedtwin.unit_counts"
_SCHEMA: Final = pa.schema([("code", pa.string()), ("unit", pa.string()), ("number", pa.int64())])
_COUNTED: Final = """
CREATE OR REPLACE TEMP VIEW units AS
SELECT code, coalesce(unit, '') AS unit, count(*) AS number FROM events
WHERE numeric_value IS NOT NULL GROUP BY ALL
"""


def unit_counts(events: pa.Table) -> bytes:
    """For each code and unit (empty: none) of numbers, how many there are.

    Args:
        events: with `code` and `unit` as dictionaries.
    """
    numbers = events.select(["code", "unit"]).filter(pc.is_valid(events["numeric_value"]))
    numbers = numbers.unify_dictionaries().combine_chunks()
    if not numbers.num_rows:
        return b"[]"
    code, unit = (numbers[name].chunk(0) for name in ("code", "unit"))
    units = [*unit.dictionary.to_pylist(), ""]
    of_unit = pc.fill_null(unit.indices, len(units) - 1).to_numpy().astype(np.int64)
    pairs = code.indices.to_numpy().astype(np.int64) * len(units) + of_unit
    found, counts = np.unique(pairs, return_counts=True)
    codes = code.dictionary.to_pylist()
    rows = zip(found.tolist(), counts.tolist(), strict=True)
    return json.dumps(
        [(codes[pair // len(units)], units[pair % len(units)], number) for pair, number in rows]
    ).encode()


def make_view(db: duckdb.DuckDBPyConnection) -> None:
    """Make the view `units` (code, unit, number) of `events`; it counts them when it is asked."""
    db.execute(_COUNTED)


def known_counts(files: Iterable[tuple[Path, bytes | None]]) -> pa.Table | None:
    """The rows of `units`, without reading events; none if a file does not have its own.

    Args:
        files: of events, with their keys.

    Raises:
        OSError: a file does not open with its key, or was changed.
    """
    counts: Counter[tuple[str, str]] = Counter()
    for path, key in files:
        with open_reader(path, key) as reader:
            written = (reader.metadata.metadata or {}).get(NAME)
        if written is None:
            return None
        for code, unit, number in json.loads(written):
            counts[code, unit] += number
    rows = [(*pair, number) for pair, number in counts.items()]
    return rows_table(rows, _SCHEMA)
