"""Reports over files and live records together, however the store is cut for reading."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtwin_client.readiness import measures
from fedtwin_client.readiness.measures import measure
from fedtwin_client.readiness.spread import Spread
from fedtwin_client.records.events import Event
from fedtwin_client.records.source import Version
from fedtwin_client.store import pieces
from fedtwin_client.store.asides import Aside
from fedtwin_client.store.tail import Batch, Tail
from fedtwin_client.store.timeline import Timeline

from .conftest import GLUCOSE, NOW, made_events, plan, store


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Timeline, list[Event]]:
    """Files, and beside them live copies of some of their events, in no order."""
    folder = tmp_path_factory.mktemp("live") / "records"
    timeline = store(folder, made_events(seed=4, patients=40))
    rows = timeline.events(codes=[GLUCOSE]).to_pylist()
    draw = np.random.default_rng(5)
    versions = []
    for number in draw.permutation(len(rows))[:60].tolist():
        origin = f"ward:{number}"
        row = rows[number] | {"source": f"{origin}#0"}
        for name in ("time", "available_time"):
            row[name] = row[name].replace(tzinfo=NOW.tzinfo)
        versions.append(Version(origin=origin, updated=None, events=[Event(**row)]))
    asides = [Aside(file="ward", line=1, reason="no unit for glucose, which is kept in mmol/L",
                    raw=f"OBX|{n // 2}") for n in range(4)]  # fmt: skip
    account: Counter[tuple[str, str]] = Counter({("reason", "no code"): 5, ("read", "message"): 9})
    with Tail(folder) as tail:
        tail.add([Batch(door="ward", versions=versions, asides=asides, account=account)],
                 frozenset(), NOW)  # fmt: skip
    timeline = Timeline.open(folder)
    found = timeline.events(codes=[GLUCOSE]).to_pylist()
    for row in found:
        row |= {name: row[name].replace(tzinfo=NOW.tzinfo) for name in ("time", "available_time")}
    return timeline, [Event(**row) for row in found]


def duplicates(events: Sequence[Event]) -> int:
    bare = [
        dataclasses.replace(e, source="", available_time=None, src_unit=None, status=None,
                            comparator=None) for e in events
    ]  # fmt: skip
    return len(bare) - len(set(bare))


def test_live_records_count_and_so_do_their_duplicates(mixed) -> None:
    timeline, events = mixed
    report = measure(timeline, plan(), NOW)
    glucose = report.feature("glucose")
    assert glucose is not None
    assert glucose.rows == len(events)
    assert glucose.duplicates == duplicates(events) >= 60
    assert report.site.doors == {"no code": 5}
    assert report.site.put_aside == {"no unit for glucose, which is kept in mmol/L": 2}
    assert glucose.refused_unit == 2


def test_small_pieces_and_numbers_held_once_count_the_same(
    mixed, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = measure(mixed[0], plan(), NOW)
    monkeypatch.setattr(pieces, "_ROWS_AT_ONCE", 1)
    monkeypatch.setattr(measures, "_NUMBERS_HELD", 1)
    assert measure(mixed[0], plan(), NOW) == whole


@given(
    parts=st.lists(st.lists(st.sampled_from([0.1, 2.0, -7.5, 2.25, 40.0]), max_size=9), max_size=6),
    most=st.sampled_from([0, 3, 1000]),
)
def test_quantiles_are_exact_however_numbers_are_held(parts: list[list[float]], most: int) -> None:
    spread, levels = Spread(most), [0.0, 0.01, 0.5, 0.95, 1.0]
    for part in parts:
        spread.add(np.array(part, np.float64))
    everything = [number for part in parts for number in part]
    found = spread.quantiles(levels)
    if not everything:
        assert found is None
        return
    assert found == pytest.approx(np.quantile(everything, levels).tolist(), rel=1e-12)


def test_the_window_of_a_feature_is_inclusive(tmp_path: Path) -> None:
    """As in a cohort: exactly so many days before counts, and one microsecond more does not."""
    at = NOW - timedelta(days=400)
    events = []
    for number, back in enumerate((timedelta(365), timedelta(365, 0, 1), timedelta(0))):
        patient = [
            Event(subject_id=number, time=at - timedelta(20000), code="MEDS_BIRTH", source="b",
                  available_time=at - timedelta(20000)),
            Event(subject_id=number, time=at, code="LOCAL//visit", source="v", available_time=at),
            Event(subject_id=number, time=at - back, code=GLUCOSE, unit="mmol/L", source="g",
                  numeric_value=5.0, available_time=at),
        ]  # fmt: skip
        events += [dataclasses.replace(e, source=f"made:{number}{e.source}#0") for e in patient]
    glucose = measure(store(tmp_path / "records", events), plan(), NOW).feature("glucose")
    assert glucose is not None
    assert (glucose.rows, glucose.covered) == (3, 2)
