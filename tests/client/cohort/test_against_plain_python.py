"""Labels, days and sequences of random timelines against a plain reading of the plan's words."""

import tempfile
from collections.abc import Callable
from datetime import datetime, timedelta
from math import log
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedtwin_client.cohort.rows import CohortRows, build_cohort
from fedtwin_protocol.study import StudyPlan

from .conftest import BORN, Patient, Record, after, even_empty, plan, timeline

NOW = after(40)
SEQUENCE = {
    "vocabulary": [
        {"code": "LOCAL//event"},
        {"code": "LOCAL//weight", "unit": "kg", "plausible": [2, 6], "center": 4, "scale": 0.25},
        {"code": "LOCAL//visit", "unit": "kg", "plausible": [2, 6]},
    ],
    "most_records": 4,
    "window_days": 20,
    "gap_days": 7,
}

moments = st.sampled_from([-25.0, -20.0, -3.0, -1.0, 0.0, 0.5, 1.0, 9.0, 10.0, 11.0, 30.0, 30.5])
delays = st.sampled_from([0.0, 0.0, 0.0, 1.0, 35.0])
things = st.builds(
    Record,
    code=st.sampled_from(["event", "event", "other", "seen"]),
    day=st.one_of(moments, st.sampled_from([35.0, 39.0, 41.0])),
    delay=delays,
)
weights = st.one_of(
    st.builds(
        Record,
        code=st.just("weight"),
        day=moments,
        delay=delays,
        value=st.integers(1, 9).map(float),
        unit=st.just("kg"),
    ),
    st.builds(
        Record,
        code=st.just("weight"),
        day=moments,
        delay=delays,
        value=st.integers(1000, 9000).map(float),
        unit=st.just("g"),
    ),
    st.builds(
        Record, code=st.just("weight"), day=moments, delay=delays, value=st.just("not weighed")
    ),
)
visits = st.builds(
    Record, code=st.just("visit"), day=st.sampled_from([-1.0, 0.0, 10.0, 41.0]), delay=delays
)
people = st.builds(
    Patient,
    records=st.lists(st.one_of(things, weights, visits), max_size=14)
    .map(lambda records: [Record(code="visit", day=0.0), *records])
    .map(tuple),
    died=st.sampled_from([None, None, 0.0, 5.0, 10.0, 20.0, 41.0]),
)


def in_kg(record: Record) -> float | None:
    if not isinstance(record.value, float):
        return None
    return record.value / 1000 if record.unit == "g" else record.value


def seen(patient: Patient) -> list[Record]:
    """What happened and was known by now."""
    return [one for one in patient.records if one.time <= NOW and one.known <= NOW]


def index_of(patient: Patient) -> datetime:
    return max(one.time for one in seen(patient) if one.code == "visit")


def death_of(patient: Patient) -> datetime | None:
    died = None if patient.died is None else after(patient.died)
    return None if died is None or died > NOW else died


def ends(patient: Patient) -> datetime:
    return max([BORN, *(one.time for one in seen(patient)), death_of(patient) or BORN])


def ahead(patient: Patient, codes: set[str], limit: int = 30) -> list[Record]:
    start = index_of(patient)
    return sorted(
        (
            one
            for one in seen(patient)
            if one.code in codes and start < one.time <= start + timedelta(days=limit)
        ),
        key=lambda one: one.time,
    )


def value_of(patient: Patient) -> set[tuple[float, ...] | None]:
    """Of equal times in one store order decides, which the plan's words leave open."""
    found = [one for one in ahead(patient, {"weight"}) if in_kg(one) is not None]
    first = [in_kg(one) for one in found if one.time == found[0].time]
    return {(min(max((kg - 4) / 0.5, -5.0), 5.0),) for kg in first} or {None}


def count_of(patient: Patient) -> set[tuple[float, ...] | None]:
    if ends(patient) < index_of(patient) + timedelta(days=30):
        return {None}
    return {(float(min(len({one.time for one in ahead(patient, {"event", "other"})}), 2)),)}


def time_of(patient: Patient) -> set[tuple[float, ...] | None]:
    start, last = index_of(patient), min(ends(patient), death_of(patient) or NOW)
    found = [one for one in ahead(patient, {"event", "other"}) if one.time <= last]
    if found:
        return {(1.0, (found[0].time - start) / timedelta(days=1))}
    until = min((last - start) / timedelta(days=1), 30.0)
    return {(0.0, until)} if until > 0 else {None}


ASKED: list[tuple[StudyPlan, Callable[[Patient], set[Any]]]] = [
    (plan("value", endpoint__center=4, endpoint__scale=0.5), value_of),
    (plan("count", endpoint__most=2), count_of),
    (plan("time_to_event"), time_of),
]


def by_patient(rows: CohortRows) -> dict[int, tuple[float, ...]]:
    columns = [rows.labels] if rows.days is None else [rows.labels, rows.days]
    return dict(zip(rows.subject_ids.tolist(), zip(*columns, strict=True), strict=True))


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(patients=st.lists(people, min_size=3, max_size=12))
def test_every_kind_of_endpoint_is_what_its_words_say(patients: list[Patient]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store, ids = timeline(Path(folder), patients)
        for asked, oracle in ASKED:
            rows = build_cohort(store, even_empty(asked), NOW)
            found = by_patient(rows)
            expected: dict[int, set[Any]] = {}
            for who, patient in zip(ids, patients, strict=True):
                died = death_of(patient)
                alive = died is None or died >= index_of(patient)
                expected[who] = oracle(patient) if alive else {None}
            for who, patient in zip(ids, patients, strict=True):
                here = found.get(who)
                assert any(
                    here is option if option is None or here is None else here == approx(option)
                    for option in expected[who]
                ), (asked.endpoint.kind, patient, here, expected[who])
            assert sum(rows.exclusions.values()) == len(patients) - len(found)


def approx(option: tuple[float, ...]) -> Any:
    return pytest.approx(option, rel=1e-12)


def sequence_of(patient: Patient) -> list[tuple[Any, ...]]:
    """Sorted, because of equal times the store decides."""
    start = index_of(patient)
    places = {"event": 1, "weight": 2, "visit": 3}
    found = []
    for one in patient.records:
        gap = (start - one.time) / timedelta(days=1)
        if one.code not in places or not 0 <= gap <= 20 or one.known > start:
            continue
        kg = in_kg(one) if one.code == "weight" else None
        known = kg is not None and 2 <= kg <= 6
        scaled = min(max((kg - 4) / 0.25, -5.0), 5.0) if known else 0.0
        found.append((-gap, one.known, places[one.code], scaled, float(known), log(1 + gap / 7)))
    return sorted(found)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(patients=st.lists(people, min_size=1, max_size=12))
def test_a_sequence_is_the_newest_records_known_by_the_index_date(patients: list[Patient]) -> None:
    asked = plan("event", "transformer", sequence=SEQUENCE, endpoint__require_follow_up=False)
    with tempfile.TemporaryDirectory() as folder:
        store, ids = timeline(Path(folder), patients)
        rows = build_cohort(store, even_empty(asked), NOW)
    assert rows.sequences is not None
    for place, who in enumerate(rows.subject_ids.tolist()):
        patient = patients[ids.index(who)]
        expected = sequence_of(patient)
        codes, numbers = rows.sequences.codes[place], rows.sequences.numbers[place]
        filled = int((codes > 0).sum())
        assert filled == min(len(expected), 4)
        assert not codes[filled:].any()
        assert not numbers[filled:].any()
        # Records of one moment that became known together may stand in either order, and where
        # the number kept cuts through them, either may stay.
        gaps = numbers[:filled, 2]
        assert gaps == pytest.approx(
            [one[5] for one in expected[len(expected) - filled :]], rel=1e-6
        )
        assert (np.diff(gaps) <= 0).all()
        said = [(one[2], pytest.approx(one[3]), one[4], pytest.approx(one[5])) for one in expected]
        for code, (scaled, known, gap) in zip(codes[:filled], numbers.tolist(), strict=False):
            said.remove((int(code), scaled, known, gap))
        moment = [one[:2] for one in expected]
        if len(set(moment)) == len(moment):
            kept = expected[len(expected) - filled :]
            assert codes[:filled].tolist() == [one[2] for one in kept]
            assert numbers[:filled, 0] == pytest.approx([one[3] for one in kept], rel=1e-6)
