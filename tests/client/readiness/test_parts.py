"""What is counted in parts, against plain Python: months, the last days, units, odd moments."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtwin_client.readiness import written
from fedtwin_client.readiness.measures import measure
from fedtwin_client.readiness.months import Months
from fedtwin_client.readiness.recent import DRIFT_DAYS, Recent, furthest
from fedtwin_client.readiness.spread import Spread
from fedtwin_client.records.blocks import microseconds
from fedtwin_client.records.events import BIRTH, DEATH, Event

from .conftest import GLUCOSE, NOW, VISIT, plan, store

Moment = datetime | None
moments = st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31)) | st.datetimes(
    datetime(2024, 1, 30), datetime(2024, 3, 2)
)
numbers = st.lists(st.sampled_from([0.0, -1.0, 3.5, np.inf, np.nan]) | st.floats(), max_size=9)


def us(moment: datetime) -> int:
    found = microseconds(moment.replace(tzinfo=UTC))
    assert found is not None
    return found


@given(parts=st.lists(st.lists(moments, min_size=1, max_size=6), max_size=4))
def test_months_are_those_of_the_calendar(parts: list[list[datetime]]) -> None:
    months = Months()
    for part in parts:
        months.add(np.array([us(moment) for moment in part]))
    expected = Counter(f"{moment:%Y-%m}" for part in parts for moment in part)
    assert months.named() == tuple(sorted(expected.items()))


@given(
    parts=st.lists(st.lists(st.tuples(st.integers(-70, 0), st.booleans()), max_size=8), max_size=5),
    far=st.integers(0, 90),
)
def test_the_last_days_are_those_before_the_newest_event_of_all(
    parts: list[list[tuple[int, bool]]], far: int
) -> None:
    """The newest event comes later in each part, of whatever feature."""
    recent, newest = Recent(), us(NOW)
    day = 86_400_000_000
    held = []
    for number, part in enumerate(parts):
        newest = us(NOW) + number * far * day
        held += [(newest + back * day, usable) for back, usable in part]
        time = np.array([newest + back * day for back, _ in part], np.int64)
        usable = np.array([usable for _, usable in part], np.bool_)
        recent.add(time, time / day, usable, newest)
    ages = [(newest - time) // day for time, usable in held if usable]
    found = [len(half) for half in recent.halves(newest)]
    late = sum(age < DRIFT_DAYS for age in ages)
    assert found == [late, sum(age < 2 * DRIFT_DAYS for age in ages) - late]


def test_samples_of_which_none_overlap_are_furthest_apart() -> None:
    assert furthest(np.array([1.0, 2.0]), np.array([3.0])) == 1.0
    assert furthest(np.array([1.0, 2.0]), np.array([1.0, 2.0, 2.0, 1.0])) == 0.0


@given(values=numbers.filter(len))
def test_the_quick_way_to_a_quantile_finds_what_sorting_finds(values: list[float]) -> None:
    spread, levels = Spread(100), [0.01, 0.5, 0.5, 0.99]
    spread.add(np.array(values))
    places = (len(values) - 1) * np.array(levels)
    ordered = np.sort(values)
    low = ordered[np.floor(places).astype(int)]
    high = ordered[np.minimum(np.floor(places).astype(int) + 1, len(values) - 1)]
    with np.errstate(invalid="ignore", over="ignore"):
        between = low + (high - low) * (places - np.floor(places))
    np.testing.assert_array_equal(spread.quantiles(levels), np.where(low == high, low, between))


@pytest.mark.parametrize("most", [0, 4096])
def test_values_and_their_moments_that_nobody_expects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    """Without a time, at either end of the calendar, in units that are many."""
    monkeypatch.setattr(written, "_MOST", most)
    events: list[Event] = []

    def add(
        who: int, code: str, time: datetime | None, known: datetime | None, **more: Any
    ) -> None:
        source = f"made:{len(events)}#0"
        events.append(Event(subject_id=who, time=time, code=code, source=source,
                            available_time=known, **more))  # fmt: skip

    visit, day = NOW - timedelta(days=20), timedelta(days=1)
    for who in (1, 2):
        add(who, VISIT, visit, visit)
        add(who, BIRTH, NOW - 9000 * day, NOW)
    add(2, DEATH, NOW - 5 * day, NOW)
    first, last = datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)
    times = [None, first, last, visit - day, visit - day, visit + day, NOW - day, NOW + day]
    sources = ["mmol/L", "mg/dL", None, "MMOL/L", "odd"]
    for number, time in enumerate(times * 3):
        known = [time, None, NOW, visit][number % 4]
        add(1 + number % 2, GLUCOSE, time, known, numeric_value=5.0 + number, unit="mmol/L",
            src_unit=sources[number % 5])  # fmt: skip
    found = measure(store(tmp_path / "records", events), plan(), NOW).feature("glucose")
    assert found is not None
    mine = [event for event in events if event.code == GLUCOSE]
    timed = [event for event in mine if event.time is not None]
    assert found.rows == len(mine)
    assert found.future == sum(
        any(moment is not None and moment > NOW for moment in (event.time, event.available_time))
        for event in mine
    )
    born, died = NOW - 9000 * day, NOW - 5 * day
    assert found.before_birth == sum(event.time < born for event in timed) == 3
    assert found.after_death == sum(e.time > died and e.subject_id == 2 for e in timed) > 0
    assert found.converted == sum(event.src_unit in {"mg/dL", "odd"} for event in mine)
    waits = [(e.available_time - e.time) / day for e in timed if e.available_time is not None]
    assert found.delay_p50_days == pytest.approx(np.quantile(waits, 0.5))
    past = [event.time for event in timed if event.time <= NOW]
    assert dict(found.months) == Counter(f"{time:%Y-%m}" for time in past)
    assert found.newest == max(past)
    seen = {
        e.subject_id
        for e in timed
        if e.available_time is not None and visit - 365 * day <= e.time <= visit
        and e.available_time <= visit
    }  # fmt: skip
    assert found.covered == len(seen) > 0
