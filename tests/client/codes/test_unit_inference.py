"""Units of values without one: told by the consortium's quantiles, accepted by a person."""

import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fedtwin_client.node.home import NodeHome
from fedtwin_client.patients import unitless_values
from fedtwin_client.records.codes.analytes import analyte_conversion
from fedtwin_client.records.codes.site_codes import add_assumed_unit
from fedtwin_client.records.codes.tables import shipped
from fedtwin_client.records.codes.unit_inference import (
    LEVELS,
    Reference,
    ks_distance,
    propose_unit,
    propose_units,
    read_reference,
    read_values,
    values_put_aside,
)
from fedtwin_client.store.imports import import_fhir
from fedtwin_client.store.timeline import Timeline
from fedtwin_protocol.errors import RecordError

CHOLESTEROL = "LOINC//2093-3"
NOW = datetime(2026, 11, 28, tzinfo=UTC)
HEAD = "code,unit," + ",".join(f"q{level:02d}" for level in LEVELS)


def reference(low: float = 3.0, high: float = 7.0, unit: str = "mmol/L") -> Reference:
    return Reference(unit=unit, quantiles=np.linspace(low, high, 19))


def spread(mean: float, sd: float, count: int = 200) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.random.default_rng(7).normal(mean, sd, count)


# Means and spreads of adults, in the unit that stands first; the reference is in the kept unit.
@pytest.mark.parametrize(
    ("code", "unit", "mean", "sd"),
    [
        (CHOLESTEROL, "mg/dL", 195, 40),
        (CHOLESTEROL, "mmol/L", 5.0, 1.0),
        ("LOINC//2345-7", "mg/dL", 105, 20),
        ("LOINC//2160-0", "mg/dL", 1.0, 0.25),
        ("LOINC//2160-0", "umol/L", 85, 20),
        ("LOINC//4548-4", "mmol/mol", 42, 8),
        ("LOINC//8310-5", "[degF]", 98.4, 0.8),
        ("LOINC//718-7", "g/L", 138, 15),
        ("LOINC//718-7", "mmol/L", 8.6, 0.9),
        ("LOINC//29463-7", "[lb_av]", 175, 35),
    ],
)
def test_the_unit_is_found(code: str, unit: str, mean: float, sd: float) -> None:
    kept = shipped().analytes[code].unit
    way = analyte_conversion(code, unit, kept)
    assert way is not None
    levels = np.array(LEVELS) / 100
    quantiles = stats.norm.ppf(levels, mean, sd) * way.factor + way.offset
    sketch = Reference(unit=kept, quantiles=quantiles)
    values = spread(1.03 * mean if unit != "[degF]" else mean, sd)  # a site differs a little
    assert propose_unit(code, values, sketch, shipped()).unit == unit


@pytest.mark.parametrize(
    ("values", "why"),
    [
        (spread(5.0, 1.0, 19), "fewer than 20 values"),
        (spread(50, 10), "no unit brings the values near the reference"),
        (np.concatenate([spread(5.0, 1.0), spread(195, 40)]), "no unit brings the values near"),
    ],
)
def test_what_cannot_be_told_is_not_proposed(values: Any, why: str) -> None:
    found = propose_unit(CHOLESTEROL, values, reference(), shipped())
    assert found.unit is None
    assert found.why.startswith(why)


def test_two_units_that_are_equally_near_are_not_told_apart() -> None:
    """Ten powers of ten: a factor of 38.7 hardly matters."""
    sketch = Reference(unit="mmol/L", quantiles=10 ** np.linspace(-5, 5, 19))
    values = 10 ** np.linspace(-5, 5, 100)
    found = propose_unit(CHOLESTEROL, values, sketch, shipped())
    assert found.unit is None
    assert found.why == "mmol/L and mg/dL are about equally near"


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=60))
def test_the_distance_is_that_of_scipy_at_the_quantiles(drawn: list[float]) -> None:
    """Against a distribution that is continuous, as far as 19 points can tell."""
    levels = np.array(LEVELS) / 100
    distance = ks_distance(np.array(drawn), stats.norm.ppf(levels))
    exact = stats.ks_1samp(drawn, stats.norm.cdf).statistic
    assert 0 <= distance <= exact + 1e-9
    assert distance >= exact - 0.05 - 1e-9


def test_a_reference_is_read_from_csv(tmp_path: Path) -> None:
    file = tmp_path / "reference.csv"
    quantiles = ",".join(str(number) for number in range(1, 20))
    file.write_text(f"{HEAD}\n{CHOLESTEROL},MMOL/L,{quantiles}\n")
    found = read_reference(file)[CHOLESTEROL]
    assert found.unit == "mmol/L"
    assert found.quantiles.tolist() == list(range(1, 20))
    values = tmp_path / "values.csv"
    values.write_text(f"code,value\n{CHOLESTEROL},200\nLOCAL//x,1\n")
    assert read_values(values) == {CHOLESTEROL: [200.0], "LOCAL//x": [1.0]}
    (proposal,) = propose_units(read_values(values), read_reference(file))
    assert (proposal.unit, proposal.values) == (None, 1)


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ("LOINC//2093-3,furlong" + ",1" * 19, "line 2: the unit 'furlong' is not known"),
        ("LOINC//2093-3,mmol/L" + ",1" * 18 + ",0", "line 2: expected quantiles that never fall"),
        ("LOINC//2093-3,mmol/L" + ",1" * 18 + ",", "line 2: expected a number as q95"),
        ("LOINC//2093-3,mmol/L" + ",1" * 18 + ",inf", "line 2: expected a number as q95"),
        ("LOINC//2093-4,mmol/L" + ",1" * 19, "line 2: LOINC//2093-4 is mistyped"),
    ],
)
def test_a_wrong_reference_is_a_sentence(tmp_path: Path, row: str, fault: str) -> None:
    (tmp_path / "r.csv").write_text(f"{HEAD}\n{row}\n")
    with pytest.raises(RecordError) as told:
        read_reference(tmp_path / "r.csv")
    assert fault in str(told.value)


@given(st.text(max_size=60))
def test_any_line_of_a_quarantine_file_is_passed_over_or_read(text: str) -> None:
    aside = json.dumps({"reason": "no unit for x", "raw": text})
    assert list(values_put_aside(iter([text, aside]))) == []


def test_from_what_was_put_aside_to_an_accepted_unit(tmp_path: Path) -> None:
    """Twenty cholesterols without a unit: put aside, proposed, accepted, read, and counted."""
    patient = {"resourceType": "Patient", "id": "p", "birthDate": "1960-01-01"}
    code = {"coding": [{"system": "http://loinc.org", "code": "2093-3"}]}
    observations = [
        {
            "resourceType": "Observation",
            "id": str(number),
            "status": "final",
            "code": code,
            "subject": {"reference": "Patient/p"},
            "effectiveDateTime": "2026-01-01",
            "valueQuantity": {"value": 130 + 6 * number},
        }
        for number in range(20)
    ]
    file, home = tmp_path / "in.ndjson", NodeHome(folder=tmp_path / "node")
    file.write_text("\n".join(json.dumps(each) for each in [patient, *observations]) + "\n")
    report = import_fhir([file], home.records, secret=b"s" * 32, now=NOW)
    assert report.reasons == {"no unit for total cholesterol, which is kept in mmol/L": 20}
    (proposal,) = propose_units(unitless_values(home), {CHOLESTEROL: reference()})
    assert (proposal.unit, proposal.values) == ("mg/dL", 20)

    add_assumed_unit(home.records, CHOLESTEROL, "mg/dL", by="AB", today=date(2026, 11, 28))
    again = import_fhir([file], home.records, secret=b"s" * 32, now=NOW)
    assert again.reasons == {}
    note = "total cholesterol (LOINC//2093-3) without a unit read as mg/dL, as the site says"
    assert again.notes == {note: 20}
    with Timeline.open(home.records).connect() as db:
        rows = db.execute(
            "SELECT min(numeric_value), any_value(unit), count(src_unit) FROM events"
            " WHERE code = $code",
            {"code": CHOLESTEROL},
        ).fetchall()
    assert rows == [(pytest.approx(3.362, abs=1e-3), "mmol/L", 0)]


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        (("LOCAL//x", "mg/dL"), "'LOCAL//x' is no code whose unit is known here"),
        ((CHOLESTEROL, "kg"), "total cholesterol is kept in mmol/L, which 'kg' does not fit"),
    ],
)
def test_only_a_unit_that_fits_can_be_assumed(
    tmp_path: Path, row: tuple[str, str], fault: str
) -> None:
    with pytest.raises(RecordError, match=fault):
        add_assumed_unit(tmp_path, *row, by="AB", today=date(2026, 11, 28))
    assert not (tmp_path / "codes" / "missing_units.csv").exists()
