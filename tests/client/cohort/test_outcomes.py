"""Values, counts and times from a patient's records to the rows that are learned from."""

from math import log
from pathlib import Path
from typing import Any

import pytest

from fedtwin_client.cohort.rows import CohortRows, build_cohort
from fedtwin_protocol.errors import CohortError
from fedtwin_protocol.study import StudyPlan

from .conftest import Patient, Record, after, plan, timeline, visit

NOW = after(100)
LAST = Record(code="seen", day=90)


def weight(day: float, value: float, unit: str = "kg", **fields: Any) -> Record:
    return Record(code="weight", day=day, value=value, unit=unit, **fields)


def event(day: float, code: str = "event", **fields: Any) -> Record:
    return Record(code=code, day=day, **fields)


def outcomes(
    folder: Path, asked: StudyPlan, patients: list[tuple[list[Record], float | None]]
) -> tuple[CohortRows, list[tuple[float, ...] | None]]:
    """The rows, and each patient's label (and days), or none for who is left out."""
    made = [Patient(records=(visit(), *records), died=died) for records, died in patients]
    store, ids = timeline(folder, made)
    rows = build_cohort(store, asked, NOW)
    columns = [rows.labels] if rows.days is None else [rows.labels, rows.days]
    found = dict(zip(rows.subject_ids.tolist(), zip(*columns, strict=True), strict=True))
    return rows, [found.get(who) for who in ids]


def test_a_value_is_the_first_within_the_horizon_scaled(tmp_path: Path) -> None:
    cases: list[tuple[list[Record], float | None]] = [
        ([weight(2, 85), weight(1, 60)], -1.0),  # the first in time
        ([weight(1, 60_000, "g")], -1.0),
        ([weight(1, 132.27735731092653, "[lb_av]")], -1.0),
        ([weight(0, 60), weight(-1, 60), weight(30, 85)], 1.5),  # at the index date is before it
        ([weight(30 + 1 / 1440, 85)], None),  # a minute past the horizon
        ([weight(1, 500)], 5.0),
        ([weight(1, 1)], -5.0),
        ([weight(1, 60, comparator="<")], -1.0),  # its bound, as in features
        ([weight(1, 85, status="entered-in-error"), weight(2, 60)], -1.0),
        ([Record(code="weight", day=1, value="refused"), weight(2, 60)], -1.0),
        ([weight(5, 60, delay=96)], None),  # known after now
        ([weight(5, 85, delay=96), weight(6, 60)], -1.0),
        ([], None),
    ]
    rows, found = outcomes(tmp_path, plan("value"), [(records, None) for records, _ in cases])
    assert found == [one if one is None else (pytest.approx(one),) for _, one in cases]
    assert rows.exclusions == {"no value of the endpoint within the horizon": 3}
    assert rows.clipped == 2


def test_values_of_an_analyte_are_converted_by_its_own_equation(tmp_path: Path) -> None:
    """HbA1c: NGSP % = 0.09148 IFCC mmol/mol + 2.152, so 7.64 % is 60 mmol/mol."""
    asked = plan(
        "value",
        endpoint__codes=["LOINC//4548-4"],
        endpoint__unit="mmol/mol",
        endpoint__center=50,
        endpoint__scale=10,
    )
    records = [
        Record(code="LOINC//4548-4", day=3, value=7.6408, unit="%"),
        Record(code="LOINC//4548-4", day=4, value=90.0, unit="mmol/mol"),
    ]
    store, _ = timeline(tmp_path, [Patient(records=(visit(), *records))])
    assert build_cohort(store, asked, NOW).labels == pytest.approx([1.0], abs=1e-3)


def test_a_unit_that_does_not_fit_is_named(tmp_path: Path) -> None:
    store, _ = timeline(tmp_path, [Patient(records=(visit(), weight(1, 70, "mmol/L")))])
    with pytest.raises(CohortError, match=r"endpoint 'what is asked' .*'kg'.* LOCAL//weight"):
        build_cohort(store, plan("value"), NOW)


def test_a_count_is_of_moments_within_the_horizon(tmp_path: Path) -> None:
    cases: list[tuple[list[Record], float | None, float | None]] = [
        ([LAST], None, 0.0),
        ([event(1), event(2, "other"), LAST], None, 2.0),
        ([event(1), event(1, "other"), LAST], None, 1.0),  # one event, coded twice
        ([event(0), event(30), event(31), event(-3), LAST], None, 1.0),
        ([event(day) for day in range(1, 8)] + [LAST], None, 4.0),  # at most `most`
        ([event(1), event(2, delay=99), LAST], None, 1.0),  # known after now
        ([event(1), event(2, status="entered-in-error"), LAST], None, 1.0),
        ([event(1), event(29)], None, None),  # more may have come
        ([event(1)], 20, None),
        ([event(1)], 40, 1.0),
    ]
    patients = [(records, died) for records, died, _ in cases]
    rows, found = outcomes(tmp_path, plan("count", endpoint__most=4), patients)
    assert found == [one if one is None else (one,) for _, _, one in cases]
    assert rows.exclusions == {"record ends before the horizon": 2}
    assert rows.clipped == 1


def test_a_count_without_follow_up_takes_everyone(tmp_path: Path) -> None:
    asked = plan("count", endpoint__require_follow_up=False)
    assert outcomes(tmp_path, asked, [([event(1), event(29)], None)])[1] == [(2.0,)]


def test_a_time_ends_with_the_event_or_out_of_sight(tmp_path: Path) -> None:
    cases: list[tuple[list[Record], float | None, tuple[float, float] | None]] = [
        ([event(7.5), event(9), LAST], None, (1.0, 7.5)),
        ([LAST], None, (0.0, 30.0)),
        ([event(31), LAST], None, (0.0, 30.0)),
        ([event(30), LAST], None, (1.0, 30.0)),
        ([event(-2), Record(code="seen", day=12)], None, (0.0, 12.0)),  # out of sight
        ([LAST], 20, (0.0, 20.0)),
        ([event(20)], 20, (1.0, 20.0)),
        ([event(21), LAST], 20, (0.0, 20.0)),  # written down after death
        ([event(5, delay=99), Record(code="seen", day=12)], None, (0.0, 12.0)),
        ([], None, None),
    ]
    patients = [(records, died) for records, died, _ in cases]
    rows, found = outcomes(tmp_path, plan("time_to_event"), patients)
    assert found == [one if one is None else pytest.approx(one) for _, _, one in cases]
    assert rows.exclusions == {"record ends at the index date": 1}


def test_death_itself_can_be_the_event(tmp_path: Path) -> None:
    asked = plan("time_to_event", endpoint__codes=["MEDS//DEATH"])
    _, found = outcomes(tmp_path, asked, [([], 12), ([LAST], 31), ([LAST], None)])
    assert found == [(1.0, 12.0), (0.0, 30.0), (0.0, 30.0)]


def test_an_index_event_that_was_not_known_by_now_is_none(tmp_path: Path) -> None:
    patients = [
        Patient(records=(visit(), visit(40, delay=70), weight(1, 80), weight(41, 60))),
        Patient(records=(visit(0, delay=101), weight(1, 80))),
    ]
    store, ids = timeline(tmp_path, patients)
    rows = build_cohort(store, plan("value"), NOW)
    assert (rows.subject_ids.tolist(), rows.labels.tolist()) == ([ids[0]], [1.0])
    assert rows.exclusions == {"no index event": 1}


def test_a_value_is_learned_on_the_scale_of_its_transform(tmp_path: Path) -> None:
    """Of 64 the root is 8, and of 0 it is 0; of 0 there is no logarithm."""
    patients: list[tuple[list[Record], float | None]] = [
        ([weight(1, 64)], None),
        ([weight(1, 0)], None),
    ]
    scaled = {"endpoint__center": 6, "endpoint__scale": 2}
    (tmp_path / "roots").mkdir()
    (tmp_path / "logs").mkdir()
    root = plan("value", endpoint__transform="square_root", **scaled)
    assert outcomes(tmp_path / "roots", root, patients)[1] == [(1.0,), (-3.0,)]
    logarithm = plan("value", endpoint__transform="logarithm", **scaled)
    rows, found = outcomes(tmp_path / "logs", logarithm, patients)
    assert found == [(pytest.approx((log(64) - 6) / 2),), None]
    assert list(rows.exclusions) == [
        "no value of the endpoint within the horizon, or none above 0 with a logarithm"
    ]
