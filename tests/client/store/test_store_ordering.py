"""The order of events in a file is the one that a plain sort finds."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from fedtwin_client.store.ordering import in_order

FAR = 2**62


def events(chance: np.random.Generator, rows: int, spread: int, absent: float) -> pa.Table:
    """Some rows, many of which agree in subject and times."""
    few = chance.integers(-spread, spread, 5)[chance.integers(0, 5, rows)]
    time = np.where(chance.random(rows) < 0.5, few, chance.integers(-spread, spread, rows))
    known = time + chance.integers(0, 2, rows)
    subject = chance.integers(-FAR, FAR, 4)[chance.integers(0, 4, rows)]
    return pa.table(
        {
            "subject_id": subject,
            "time": pa.array(time, mask=chance.random(rows) < absent),
            "code": pa.array(chance.choice(["b", "a", "c"], rows)).dictionary_encode(),
            "available_time": pa.array(known, mask=chance.random(rows) < absent),
            "source": pa.array([f"s{number}" for number in chance.integers(0, 3, rows)]),
            "number": np.arange(rows),
        }
    )


def expected(row: dict[str, Any]) -> tuple[Any, ...]:
    time, known = row["time"], row["available_time"]
    return (
        row["subject_id"],
        (time is not None, time),
        (known is None, known),
        row["source"],
        row["code"],
        row["number"],
    )


@pytest.mark.parametrize("absent", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("spread", [3, 10**15, FAR])
def test_events_come_by_subject_times_source_and_code(spread: int, absent: float) -> None:
    chance = np.random.default_rng(spread)
    for rows in (0, 1, 2, 7, 60, 300):
        table = events(chance, rows, spread, absent)
        by_hand = [row["number"] for row in sorted(table.to_pylist(), key=expected)]
        assert in_order(table)["number"].to_pylist() == by_hand
