"""Which units the numbers of each code have, written into each file for those who ask at once.

A study asks for the units of its codes before it converts anything; without this every value of
the hospital would have to be read for the answer. In an encrypted file it is encrypted too.
"""

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fedtwin_client.at_rest.tables import open_reader

NAME: Final = b"fedtwin.unit_counts"


def unit_counts(events: pa.Table) -> bytes:
    """What is written into a file: `counted`, as JSON.

    Args:
        events: with `code` and `unit` as dictionaries.
    """
    rows = sorted(counted(events).items())
    return json.dumps([(*pair, number) for pair, number in rows]).encode()


def counted(events: pa.Table) -> Counter[tuple[str, str]]:
    """For each code and unit (empty: none) of numbers, how many there are.

    Args:
        events: with `code` and `unit` as dictionaries.
    """
    numbers = events.select(["code", "unit"]).filter(pc.is_valid(events["numeric_value"]))
    numbers = numbers.unify_dictionaries().combine_chunks()
    if not numbers.num_rows:
        return Counter()
    code, unit = (numbers[name].chunk(0) for name in ("code", "unit"))
    units = [*unit.dictionary.to_pylist(), ""]
    of_unit = pc.fill_null(unit.indices, len(units) - 1).to_numpy().astype(np.int64)
    pairs = code.indices.to_numpy().astype(np.int64) * len(units) + of_unit
    found, counts = np.unique(pairs, return_counts=True)
    codes = code.dictionary.to_pylist()
    rows = zip(found.tolist(), counts.tolist(), strict=True)
    return Counter(
        {(codes[pair // len(units)], units[pair % len(units)]): number for pair, number in rows}
    )


def known_counts(files: Iterable[tuple[Path, bytes | None]]) -> Counter[tuple[str, str]] | None:
    """What `counted` found in files when they were written; none if one does not say so.

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
    return counts
