"""A number that becomes infinite when it is converted is put aside, whichever way it comes in."""

from pathlib import Path

import pytest

from fedtwin_client.records.codes.analytes import analyte_conversion
from fedtwin_client.records.reading import TOO_LARGE, UnusableError, checked_number

from ..fhir.fhir_block_lines import LOINC, agree, amid, compact, observation
from ..hl7 import hl7_parts
from ..omop.omop_cdm import as_csv, clinical, read, small
from ..tables import test_records_tables

CODE, HUGE = "LOINC//2160-0", 1e307
MAPPING = """
name: visits
subject: {column: mrn, system: "http://h/mrn"}
time: {column: date}
columns:
  creatinine: {code: LOINC//2160-0, unit: mg/dL}
"""


def test_the_rule_of_every_door() -> None:
    way = analyte_conversion(CODE, "mg/dL", "umol/L")
    assert way is not None
    assert way.factor > 10
    assert checked_number(CODE, HUGE, "umol/L").value == HUGE
    with pytest.raises(UnusableError, match=TOO_LARGE):
        checked_number(CODE, -HUGE, "mg/dL")


@pytest.mark.parametrize("alike", [True, False])
def test_fhir_by_lines_and_by_blocks(alike: bool) -> None:
    """Lines of one shape are read by their places, others as columns."""
    code = {"coding": [{"system": LOINC, "code": "2160-0"}]}
    lines = [
        compact(
            observation(700 + n, code=code, valueQuantity={"value": value, "unit": "mg/dL"})
            | ({} if alike else {"note": [{"text": "x" * n}]})
        )
        for n, value in enumerate([1.5, HUGE, 2.25, HUGE, *([3.5] * 300)])
    ]
    assert agree("\n".join(lines).encode())["reasons"] == {TOO_LARGE: 2}
    assert agree(amid(*lines[:4]))["reasons"][TOO_LARGE] == 2


def test_hl7() -> None:
    said = hl7_parts.result("1e307", code="2160-0^Creatinine^LN")
    versions, tally = hl7_parts.read(said)
    assert hl7_parts.events(versions) == []
    assert tally.reasons == {TOO_LARGE: 1}


def test_tables(tmp_path: Path) -> None:
    text = "mrn,date,creatinine\n1,2024-01-02,1e307\n1,2024-01-03,1.5\n"
    report, rows = test_records_tables.load(tmp_path, text, MAPPING)
    assert [reason.partition(": ")[2] or reason for reason in report.reasons] == [TOO_LARGE]
    assert len(rows) == 1


def test_omop(tmp_path: Path) -> None:
    tables = small()
    creatinine = {"vocabulary_id": "LOINC", "concept_code": "2160-0", "standard_concept": "S"}
    tables["concept"].append({"concept_id": 3016723, **creatinine})
    tables["measurement"] = [
        clinical("measurement", id=number, concept=3016723, number=value, unit=8840)
        for number, value in enumerate(["1.5", "1e307", "1e999"], start=1)
    ]
    events, tally = read(as_csv(tmp_path, tables))
    assert [one.source for one in events if one.code == CODE] == ["omop:measurement#1"]
    assert tally.reasons[TOO_LARGE] == tally.reasons["expected a finite number"] == 1
