"""Every row that a gate counts can be listed, and no others."""

from __future__ import annotations

import pytest

from fedtwin_client.readiness.measures import measure
from fedtwin_client.readiness.rows import ROW_GATES, failing_rows
from fedtwin_protocol.errors import ConfigurationError

from .conftest import NOW, plan

FEATURES = ("glucose", "troponin", "smoker", "diabetes", "pain")


@pytest.fixture(scope="module")
def report(hospital):
    return measure(hospital[0], plan(), NOW)


@pytest.mark.parametrize("gate", [gate for gate in ROW_GATES if gate != "duplicates"])
def test_as_many_rows_are_listed_as_are_counted(hospital, report, gate: str) -> None:
    listed = 0
    for name in FEATURES:
        counts = report.feature(name)
        rows, number = failing_rows(hospital[0], plan(), NOW, name, gate, 10_000)
        expected = (
            report.cohort.patients - counts.covered if gate == "coverage" else getattr(counts, gate)
        )
        assert number == len(rows) == expected, name
        listed += number
    assert listed > 0


def test_the_rows_are_those_of_the_store(hospital) -> None:
    stored = {event.source: event for event in hospital[1]}
    rows, _ = failing_rows(hospital[0], plan(), NOW, "glucose", "implausible", 10_000)
    for row in rows:
        event = stored[row.source]
        assert event.subject_id == row.subject_id
        assert event.time.replace(tzinfo=None) == row.time
        assert (row.value, row.unit) == (f"{event.numeric_value:.12g}", "mmol/L")
        assert not 1 <= event.numeric_value <= 40
    rows, _ = failing_rows(hospital[0], plan(), NOW, "troponin", "comparator", 10_000)
    assert all(row.value.startswith("<") for row in rows)


def test_duplicates_are_listed_with_all_their_copies(hospital, report) -> None:
    rows, number = failing_rows(hospital[0], plan(), NOW, "glucose", "duplicates", 10_000)
    keys = [(row.subject_id, row.time, row.value, row.unit) for row in rows]
    assert number - len(set(keys)) == report.feature("glucose").duplicates > 0


def test_no_more_than_asked_for_and_the_number_of_all(hospital, report) -> None:
    rows, number = failing_rows(hospital[0], plan(), NOW, "glucose", "implausible", 2)
    assert len(rows) == 2
    assert number == report.feature("glucose").implausible > 2


@pytest.mark.parametrize(
    ("feature", "gate", "says"),
    [
        ("glucsoe", "implausible", "has no feature 'glucsoe'; it has glucose, troponin"),
        ("glucose", "odd", "no rows for gate 'odd'; expected one of implausible"),
        ("age", "implausible", "is the patient's age, and has no rows"),
    ],
)
def test_a_wrong_question_ends_in_a_sentence(hospital, feature: str, gate: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        failing_rows(hospital[0], plan(), NOW, feature, gate, 10)
