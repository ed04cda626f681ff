"""A patient's records as a sequence: what is in it, in which order, and what never is."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedtwin_client.cohort.rows import CohortRows, build_cohort
from fedtwin_protocol.errors import CohortError

from .conftest import Patient, Record, after, plan, timeline, visit

NOW = after(100)
SEQUENCE: dict[str, Any] = {
    "vocabulary": [
        {"code": "LOCAL//event"},
        {"code": "LOCAL//weight", "unit": "kg", "plausible": [20, 300], "center": 70, "scale": 10},
        {"code": "LOINC//2345-7", "unit": "mg/dL", "plausible": [20, 900], "center": 90},
    ],
    "most_records": 3,
}
EVENT, WEIGHT, GLUCOSE = 1, 2, 3


def rows_of(folder: Path, *patients: tuple[Record, ...], **changes: Any) -> CohortRows:
    made = [Patient(records=(visit(), *records)) for records in patients]
    asked = plan(
        "event", "recurrent", sequence=SEQUENCE | changes, endpoint__require_follow_up=False
    )
    store, ids = timeline(folder, made)
    rows = build_cohort(store, asked, NOW)
    order = [rows.subject_ids.tolist().index(who) for who in ids]
    assert rows.sequences is not None
    return replace(rows, sequences=rows.sequences.where(np.array(order)))


def weight(day: float, value: float | str, unit: str | None = "kg", **fields: Any) -> Record:
    return Record(code="weight", day=day, value=value, unit=unit, **fields)


def codes_of(rows: CohortRows) -> list[list[int]]:
    assert rows.sequences is not None
    return rows.sequences.codes.tolist()


def values_of(rows: CohortRows) -> Any:
    assert rows.sequences is not None
    return rows.sequences.numbers[:, :, :2]


def test_the_newest_records_stand_oldest_first(tmp_path: Path) -> None:
    glucose = Record(code="LOINC//2345-7", day=-1, value=5.0, unit="mmol/L")
    many = (glucose, weight(-9, 60), Record(code="event", day=-4), weight(0, 85_000, "g"))
    rows = rows_of(tmp_path, many, (Record(code="unasked", day=-1),))
    assert codes_of(rows) == [[EVENT, GLUCOSE, WEIGHT], [0, 0, 0]]
    assert values_of(rows)[0] == pytest.approx(
        np.array([[0, 0], [5.0 * 18.0156 - 90, 1], [1.5, 1]]), abs=1e-2
    )
    assert rows.sequences is not None
    gaps = np.log1p(np.array([4, 1, 0]) / 30)
    assert rows.sequences.numbers[0, :, 2] == pytest.approx(gaps, rel=1e-6)
    assert not rows.sequences.numbers[1].any()


def test_what_was_known_later_or_happened_later_is_not_there(tmp_path: Path) -> None:
    known = (weight(-2, 60), Record(code="event", day=-1))
    later = tuple(replace(one, delay=3) for one in known)
    edge = (weight(-2, 60, delay=2), Record(code="event", day=-1, delay=1))
    ahead = tuple(replace(one, day=1 / 1440) for one in known)
    rows = rows_of(tmp_path, known, later, edge, ahead)
    none = [0, 0, 0]
    assert codes_of(rows) == [[WEIGHT, EVENT, 0], none, [WEIGHT, EVENT, 0], none]


def test_the_window_holds_its_first_moment(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, (weight(-7, 60), weight(-7 - 1 / 1440, 60)), window_days=7)
    assert codes_of(rows) == [[WEIGHT, 0, 0]]


def test_a_number_that_cannot_be_is_no_value_and_is_counted(tmp_path: Path) -> None:
    odd = (weight(-3, 20), weight(-2, 700), weight(-1, 19_999, "g"))
    far = (weight(-1, 300),)
    rows = rows_of(tmp_path, odd, far)
    assert codes_of(rows) == [[WEIGHT] * 3, [WEIGHT, 0, 0]]
    assert values_of(rows).tolist() == [[[-5, 1], [0, 0], [0, 0]], [[5, 1], [0, 0], [0, 0]]]
    assert rows.implausible["LOCAL//weight"] == 2


def test_a_record_without_a_number_stays_whatever_others_have(tmp_path: Path) -> None:
    """With no number of that code in the hospital, with numbers in a unit, and among both."""
    refused = (weight(-1, "refused"),)
    for number, others in enumerate([(), ((weight(-1, 60),),), ((weight(-1, 60_000, "g"),),)]):
        folder = tmp_path / str(number)
        folder.mkdir()
        rows = rows_of(folder, refused, *others)
        assert codes_of(rows) == [[WEIGHT, 0, 0]] * (1 + len(others))
        assert values_of(rows)[0].tolist() == [[0, 0]] * 3


def test_a_unit_that_does_not_fit_names_the_code(tmp_path: Path) -> None:
    with pytest.raises(CohortError, match=r"the vocabulary's LOCAL//weight .*'kg'.*'mmol/L'"):
        rows_of(tmp_path, (weight(-1, 60, "mmol/L"),))
