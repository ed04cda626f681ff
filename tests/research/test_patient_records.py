"""Records that a researcher gives become the very sequences that a node makes of them."""

from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pandas
import pyarrow as pa
import pytest

from fedtwin_client.cohort.selection import Selected
from fedtwin_client.cohort.sequences import SequenceRecords, Sequences
from fedtwin_client.records.blocks import SCHEMA, coded
from fedtwin_client.store.pieces import Piece
from fedtwin_client.store.unit_counts import counted
from fedtwin_protocol.errors import ReleaseError
from fedtwin_protocol.study_sequence import Sequence
from fedtwin_research.bench import ReleasedModel
from fedtwin_research.patient_records import record_rows

from .released import SEQUENCE, a_plan, release

PLAN = Sequence.model_validate(SEQUENCE)
GLUCOSE, DIABETES, HEART_RATE = (word.code for word in PLAN.vocabulary)
INDEX = datetime(2024, 6, 1)
KINDS = list(zip(SCHEMA.names, SCHEMA.types, strict=True))
Given = list[list[tuple[str, float | None, str | None, float]]]
PATIENT = {"age": 60.0, "smokes": 0}


def at_a_site(given: Given, plan: Sequence = PLAN) -> Sequences:
    """The node's own way with a timeline that holds the records, each known at once."""
    rows = sorted(
        (patient, INDEX - timedelta(days=days), number, code, value, unit)
        for patient, own in enumerate(given)
        for number, (code, value, unit, days) in enumerate(own)
    )
    columns = list(zip(*rows, strict=True)) if rows else [()] * 6
    events = {
        "subject_id": columns[0],
        "time": columns[1],
        "available_time": columns[1],
        "code": columns[3],
        "numeric_value": columns[4],
        "unit": columns[5],
    }
    table = coded(
        pa.Table.from_arrays(
            [pa.array(events.get(name, [None] * len(rows)), kind) for name, kind in KINDS],
            schema=SCHEMA,
        )
    )
    units: dict[str, list[tuple[str, int]]] = {}
    for (code, unit), number in counted(table).items():
        units.setdefault(code, []).append((unit, number))
    made, piece = SequenceRecords(plan, units), Piece(table=table)
    patients = len(given)
    unknown, nobody = np.full(patients, np.nan), np.zeros(patients, np.bool_)
    selected = Selected(
        subject_ids=np.arange(patients),
        index=np.full(patients, INDEX, "datetime64[us]").astype(np.int64),
        age=unknown,
        sex=unknown,
        labels=unknown,
        days=None,
        clipped=nobody,
        exclusions={},
    )
    with_records = selected.of(piece.subjects)
    made.add(piece, with_records, np.arange(len(piece.subjects)))
    found = made.whole(np.arange(len(piece.subjects))).rows
    codes = np.zeros((patients, plan.most_records), np.int32)
    numbers = np.zeros((*codes.shape, 3), np.float32)
    codes[piece.subjects], numbers[piece.subjects] = found.codes, found.numbers
    return Sequences(codes=codes, numbers=numbers)


def random_records(seed: int, patients: int) -> Given:
    """Records with ties, missing and implausible values, other codes, some too early."""
    rng = np.random.default_rng(seed)
    units = {GLUCOSE: "mg/dL", DIABETES: None, HEART_RATE: "/min", "LOINC//1-8": "1"}
    found: Given = []
    for _ in range(patients):
        own = []
        for _ in range(rng.integers(0, 9)):
            code = str(rng.choice(list(units)))
            value = None
            if units[code] and rng.random() < 0.8:
                value = float(np.round(rng.uniform(0, 700), 1))
            unit = units[code] if value is not None else None
            own.append((code, value, unit, float(rng.integers(0, 500))))
        found.append(own)
    return found


@pytest.mark.parametrize("seed", range(12))
def test_a_researcher_and_a_site_make_the_same_arrays(seed: int) -> None:
    given = random_records(seed, 30)
    site, found = at_a_site(given), record_rows(PLAN, given, 30).rows
    assert site.codes.any()
    np.testing.assert_array_equal(found.codes, site.codes)
    np.testing.assert_array_equal(found.numbers, site.numbers)


def test_converted_values_are_the_sites_to_four_digits() -> None:
    """Molar masses are tabulated with four to six digits."""
    given: Given = [[(GLUCOSE, value, "mmol/L", 3.0)] for value in (4.1, 7.0, 11.1)]
    site, found = at_a_site(given), record_rows(PLAN, given, 3).rows
    np.testing.assert_array_equal(found.codes, site.codes)
    np.testing.assert_allclose(found.numbers, site.numbers, rtol=2e-3, atol=1e-4)


def test_a_record_without_value_is_read_whatever_others_have() -> None:
    """A patient's sequence depends on nobody else's records."""
    alone = at_a_site([[(GLUCOSE, None, None, 5.0)]])
    assert alone.codes[0].tolist() == [1, 0, 0, 0]
    assert alone.numbers[0, 0, :2].tolist() == [0, 0]
    found = record_rows(PLAN, [[(GLUCOSE, None, None, 5.0)]], 1).rows
    np.testing.assert_array_equal(found.numbers, alone.numbers)


def test_what_is_read_is_what_the_plan_says() -> None:
    given: Given = [
        [
            (HEART_RATE, 75.0, None, 2.0),
            (GLUCOSE, 180.0, "mg/dL", 30.0),
            (DIABETES, 5.0, "furlong", 400.0),
            (HEART_RATE, 249.0, "bpm", 0.0),
        ]
    ]
    rows = record_rows(PLAN, given, 1).rows
    assert rows.codes.tolist() == [[2, 1, 3, 3]]
    expected = [
        [0, 0, np.log1p(400 / 30)],
        [2, 1, np.log(2)],
        [1, 1, np.log1p(2 / 30)],
        [5, 1, 0],
    ]
    assert rows.numbers[0] == pytest.approx(np.array(expected))


def test_tables_and_mappings_say_the_same() -> None:
    given = random_records(3, 20)
    expected = record_rows(PLAN, given, 20).rows
    names = ("patient", "code", "value", "unit", "days_before")
    flat = [(patient, *record) for patient, own in enumerate(given) for record in own]
    columns = {
        name: list(column) for name, column in zip(names, zip(*flat, strict=True), strict=True)
    }
    for records in (
        columns,
        pandas.DataFrame(columns),
        pa.table(columns),
        [[dict(zip(names[1:], record, strict=True)) for record in own] for own in given],
    ):
        found = record_rows(PLAN, records, 20).rows
        np.testing.assert_array_equal(found.codes, expected.codes)
        np.testing.assert_array_equal(found.numbers, expected.numbers)


def test_what_is_not_read_is_counted() -> None:
    given: Given = [
        [(HEART_RATE, 70.0, "/min", float(day)) for day in range(6)],
        [(GLUCOSE, 9999.0, "mg/dL", 1.0), ("LOINC//2345-8", 1.0, "1", 1.0)],
        [(GLUCOSE, 100.0, "mg/dL", 401.0)],
    ]
    told = record_rows(PLAN, given, 3).warnings
    assert told == (
        "left out for codes that the model does not read: 1 of 9 records (LOINC//2345-8 (did you "
        "mean LOINC//2345-7?))",
        "left out as more than 400 days before the index date: 1 of 9 records",
        "more than 4 records, of which the most recent are read: 1 of 3 patients",
        "no record that the model reads: 1 of 3 patients",
        "values outside the plausible range, which count as none: 1 (LOINC//2345-7)",
    )


@pytest.fixture(scope="module")
def model() -> ReleasedModel:
    return release(a_plan("recurrent", sequence=SEQUENCE))


def one(*changes: Any) -> Any:
    record: list[Any] = [GLUCOSE, 100.0, "mg/dL", 1.0]
    for place, value in changes:
        record[place] = value
    return [[tuple(record)]]


@pytest.mark.parametrize(
    ("records", "said"),
    [
        (None, r"reads whole records: give 'records'.*such as LOINC//2345-7"),
        (one((3, -1.0)), r"patient 0, record 0: expected days before .* 0 or more, found -1"),
        (one((3, None)), "patient 0, record 0: expected days before"),
        (one((3, float("nan"))), "expected days before"),
        (one((1, "high")), "expected a number or None as the value of LOINC//2345-7, found 'high'"),
        (one((1, True)), "expected a number or None"),
        (
            one((2, "furlong")),
            "cannot convert 'furlong' of LOINC//2345-7 to 'mg/dL'; expected",
        ),
        (one((2, 3)), "cannot convert 3 of LOINC//2345-7"),
        (one((0, 7)), "expected a code such as 'LOINC//2345-7', found 7"),
        ([], "a list for each of the 1 patients, found 0 items"),
        ([[], []], "for each of the 1 patients, found 2 items"),
        ([GLUCOSE], "records of patient 0: expected a list for each patient"),
        ([[GLUCOSE]], r"patient 0, record 0: expected \(code, value, unit, days before"),
        ([[(GLUCOSE, 1.0)]], r"patient 0, record 0: expected \(code, value, unit"),
        ([[{"code": GLUCOSE, "days": 1}]], "missing: days_before; not asked for: days"),
        (7, "records: expected a list for each patient .* found int"),
        ("all", "found str"),
        ({"code": [GLUCOSE], "days_before": [1]}, "missing: patient"),
        (
            {"patient": [0], "code": [GLUCOSE, DIABETES], "days_before": [1]},
            "columns differ in length: patient 1, code 2",
        ),
        (
            {"patient": [1], "code": [GLUCOSE], "days_before": [1]},
            "row 0: expected as patient a row of the columns, 0 to 0, found 1",
        ),
        ({"patient": ["x"], "code": [GLUCOSE], "days_before": [1]}, "found 'x'"),
    ],
)
def test_wrong_records_are_refused_in_a_sentence(
    model: ReleasedModel, records: Any, said: str
) -> None:
    with pytest.raises(ReleaseError, match=said):
        model.predict([PATIENT], records=records)


def test_records_for_a_model_of_columns_are_refused() -> None:
    with pytest.raises(ReleaseError, match="reads columns alone: leave 'records' out"):
        release(a_plan("logistic_regression")).predict([PATIENT], records=[[]])


def test_many_patients_predict_as_each_alone(model: ReleasedModel) -> None:
    given = random_records(4, 300)
    together = model.predict([PATIENT] * 300, records=given)
    alone = [model.predict([PATIENT], records=[own])[0] for own in given[250:270]]
    assert list(together)[250:270] == pytest.approx(alone)
    assert len(set(together)) > 100


def test_what_records_are_asked_for_is_explained(model: ReleasedModel) -> None:
    text = "\n".join(model.explain())
    assert "records of the 400 days before the index date, the most recent 4" in text
    assert "LOINC//2345-7 [mg/dL], 20 to 600" in text
