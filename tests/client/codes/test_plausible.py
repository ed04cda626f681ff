"""Numbers outside the plausible range and units that seem mixed up are pointed out, and kept."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtwin_client.records.codes.plausible import Plausibility, implausible
from fedtwin_client.records.events import Event
from fedtwin_client.records.reading import checked_number
from fedtwin_client.records.report import Tally
from fedtwin_client.store.imports import import_fhir, import_table
from fedtwin_client.store.origins import Origins
from fedtwin_client.store.staging import Staging
from fedtwin_client.store.timeline import Timeline

SHARED = Path(__file__).parents[4] / "shared" / "data"
NOW = datetime(2026, 11, 28, tzinfo=UTC)
CHOLESTEROL = "LOINC//2093-3"


def looked_over(
    folder: Path, values: Sequence[tuple[str, float, str | None, str | None]]
) -> dict[str, int]:
    """Notes on values of `code, number, unit, comparator`."""
    found = Plausibility()
    staging = Staging(folder, Origins("0" * 32), look=found.see)
    for number, (code, value, unit, comparator) in enumerate(values):
        kept = checked_number(code, value, unit)
        event = Event(
            subject_id=number,
            time=NOW,
            code=code,
            source=f"test:{number}#0",
            numeric_value=kept.value,
            unit=kept.unit,
            src_unit=kept.src_unit,
            comparator=comparator,
        )
        staging.add(staging.version(f"test:{number}", None), [event])
    staging.flush()
    tally = Tally(quarantine=None)
    found.tell(tally)
    return dict(tally.notes)


def test_values_of_another_unit_stand_out(tmp_path: Path) -> None:
    values = [(CHOLESTEROL, 150.0 + number, "mg/dL", None) for number in range(96)]
    values += [(CHOLESTEROL, number, "mg/dL", None) for number in (4.9, 5.2, 6.1)]
    values += [(CHOLESTEROL, 99999.0, "mg/dL", None)]
    assert looked_over(tmp_path, values) == {
        "total cholesterol (LOINC//2093-3) outside the plausible range 0.5 to 40 mmol/L": 4,
        "total cholesterol (LOINC//2093-3) in 'mg/dL': 3 % of 100 would be plausible in mmol/L; "
        "wrong or mixed units?": 3,
    }


@pytest.mark.parametrize(
    ("code", "value", "unit", "instead"),
    [
        ("LOINC//2345-7", 100.0, "mmol/L", "mg/dL"),
        ("LOINC//2160-0", 88.0, "mg/dL", "umol/L"),
        ("LOINC//4548-4", 53.0, "%", "mmol/mol"),
        ("LOINC//8310-5", 98.6, "C", "[degF]"),
        ("LOINC//8302-2", 1.82, "cm", "m"),
        ("LOINC//29463-7", 3200.0, "kg", "g"),
        ("LOINC//1751-7", 4.1, "g/L", "g/dL"),
        ("LOINC//59408-5", 0.97, "1", None),
        ("LOINC//718-7", 140.0, "g/dL", "g/L"),
        ("LOINC//6690-2", 7000.0, "10*9/L", "/uL"),
    ],
)
def test_common_mixtures(
    tmp_path: Path, code: str, value: float, unit: str, instead: str | None
) -> None:
    notes = looked_over(tmp_path, [(code, value, unit, None)])
    assert len(notes) == (0 if instead is None else 2)
    assert all("outside the plausible range" in note or f"in {instead};" in note for note in notes)


def test_a_share_under_the_name_of_a_percentage_stands_out(tmp_path: Path) -> None:
    notes = looked_over(tmp_path, [("LOINC//59408-5", share, "%", None) for share in (0.97, 97)])
    assert notes == {
        "oxygen saturation (LOINC//59408-5) outside the plausible range 2 to 100 %": 1,
        "oxygen saturation (LOINC//59408-5) in '%': 50 % of 2 would be plausible in 1; "
        "wrong or mixed units?": 1,
    }


def test_bounds_and_other_codes_are_not_looked_at(tmp_path: Path) -> None:
    values = [(CHOLESTEROL, 5.2, "mg/dL", "<"), ("LOCAL//x", 1e9, "mg/dL", None)]
    assert looked_over(tmp_path, values) == {}
    assert implausible(CHOLESTEROL, 0.1, "<") is None
    assert implausible("LOCAL//x", 1e9, None) is None
    assert implausible(CHOLESTEROL, None, None) is None


@given(
    st.lists(
        st.tuples(
            st.sampled_from([CHOLESTEROL, "LOINC//8480-6", "LOCAL//x"]),
            st.floats(allow_nan=False, allow_infinity=False, width=32),
            st.sampled_from(["mg/dL", "mmol/L", "mm[Hg]"]),
        ),
        max_size=20,
    )
)
def test_columns_and_single_values_count_alike(
    tmp_path_factory: pytest.TempPathFactory, drawn: list[tuple[str, float, str]]
) -> None:
    fits = {CHOLESTEROL: {"mg/dL", "mmol/L"}, "LOINC//8480-6": {"mm[Hg]"}}
    values = [(c, v, u, None) for c, v, u in drawn if u in fits.get(c, {u})]
    notes = looked_over(tmp_path_factory.mktemp("notes"), values)
    single = [implausible(c, checked_number(c, v, u).value, None) for c, v, u, _ in values]
    assert {note: count for note, count in notes.items() if "outside" in note} == {
        note: single.count(note) for note in set(single) if note is not None
    }


def test_what_is_implausible_is_kept_and_told_without_whose_it_is(tmp_path: Path) -> None:
    table, mapping = tmp_path / "labs.csv", tmp_path / "map.yaml"
    table.write_text("mrn,day,sbp\n1,2026-01-05,1200\n2,2026-01-05,120\n")
    mapping.write_text(
        "name: labs\nsubject: {column: mrn}\ntime: {column: day}\n"
        "columns:\n  sbp: {code: LOINC//8480-6, unit: mmHg}\n"
    )
    report = import_table(table, mapping, tmp_path / "store", secret=b"s" * 32, now=NOW)
    (note,) = report.notes
    assert note.endswith("outside the plausible range 20 to 350 mm[Hg]")
    assert note not in report.examples
    with Timeline.open(tmp_path / "store").connect() as db:
        numbers = db.execute("SELECT numeric_value FROM events ORDER BY ALL").fetchall()
    assert numbers == [(120.0,), (1200.0,)]


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data sets are not here")
def test_wrong_units_of_synthetic_patients_are_found(tmp_path: Path) -> None:
    """Synthea writes total protein of 60 to 80 with g/dL, and globulin of 2 to 3.5 with g/L."""
    name = "Stan_Steuber_55c7667e-0fd3-40ff-91a4-27ffa2b19438.json.gz"
    report = import_fhir(
        [SHARED / "fhir_synthea_r4_shared/bundles" / name], tmp_path, secret=b"s" * 32, now=NOW
    )
    mixed = sorted(note.partition(" ")[0] for note in report.notes if "mixed units?" in note)
    assert set(mixed) <= {"globulin", "total"}
    assert "total" in mixed
