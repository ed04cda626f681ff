"""Units: one spelling, honest conversions, and no guessing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtwin_client.records.codes.analytes import analyte, analyte_conversion
from fedtwin_client.records.codes.concepts import codes_of
from fedtwin_client.records.codes.units import conversion, normal_unit
from fedtwin_client.records.reading import UnusableError, checked_number

CHOLESTEROL, GLUCOSE, HBA1C = "LOINC//2093-3", "LOINC//2339-0", "LOINC//4548-4"


@pytest.mark.parametrize(
    ("system", "vocabulary"),
    [
        ("http://loinc.org/", "LOINC"),
        ("https://loinc.org|2.77", "LOINC"),
        ("http://snomed.info/sct/731000124108/version/20240301", "SNOMED"),
        ("http://snomed.info/sct/field", "snomed.info_sct_field"),
        ("urn:oid:2.16.840.1.113883.6.103", "ICD9"),
        ("http://fhir.de/CodeSystem/dimdi/icd-10-gm", "ICD10"),
        ("https://labs.example.org/codes", "labs.example.org_codes"),
    ],
)
def test_a_vocabulary_is_known_by_its_address(system: str, vocabulary: str) -> None:
    assert codes_of({"coding": [{"system": system, "code": "1"}]}) == [f"{vocabulary}//1"]


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("mmHg", "mm[Hg]"),
        ("MM HG", "mm[Hg]"),
        ("mm[Hg]", "mm[Hg]"),
        ("&#176;C", "Cel"),
        ("C", "Cel"),
        ("F", "[degF]"),
        ("K/mcL", "10*3/uL"),
        ("K/uL", "10*3/uL"),
        ("UI/L", "U/L"),
        ("mIE/L", "m[IU]/L"),
        ("µUI/mL", "u[IU]/mL"),
        ("E9/L", "10*9/L"),
        ("INR", "1"),
        ("G/L", "10*9/L"),
        ("G/l", "10*9/L"),
        ("T/l", "10*12/L"),
        ("Gpt/l", "10*9/L"),
        ("/nL", "10*9/L"),
        ("1/pl", "10*12/L"),
        ("Tsd./µl", "10*3/uL"),
        ("Mio/µl", "10*6/uL"),
        ("10⁹/L", "10*9/L"),
        ("x10¹²/L", "10*12/L"),
        ("cells/mm³", "/uL"),
        ("ml/min/1,73 m²", "mL/min/{1.73_m2}"),
        ("g/l", "g/L"),
        ("µmol/L", "umol/L"),
        ("MG/DL", "mg/dL"),
        ("mEq/L", "meq/L"),
        ("mL/min/1.73 m2", "mL/min/{1.73_m2}"),
        ("{score}", "1"),
        ("mmol.L-1", "mmol/L"),
        ("mg·dL⁻¹", "mg/dL"),
        ("µg.l^-1", "ug/L"),
        ("furlong.d-1", None),
        ("g.m.s-1", None),
        ("furlong", None),
        ("", None),
        (None, None),
    ],
)
def test_a_unit_has_one_spelling(written: str | None, expected: str | None) -> None:
    assert normal_unit(written) == expected


# AMA Manual of Style, SI conversion factors (rounded there to three digits); temperature exact.
@pytest.mark.parametrize(
    ("code", "source", "target", "value", "expected"),
    [
        (CHOLESTEROL, "mg/dL", "mmol/L", 100, 2.59),
        ("LOINC//2085-9", "mg/dL", "mmol/L", 100, 2.59),
        ("LOINC//2571-8", "mg/dL", "mmol/L", 100, 1.13),
        (GLUCOSE, "mg/dL", "mmol/L", 100, 5.55),
        ("LOINC//2160-0", "mg/dL", "umol/L", 1, 88.4),
        ("LOINC//3094-0", "mg/dL", "mmol/L", 10, 3.57),
        ("LOINC//22664-7", "mg/dL", "mmol/L", 60, 9.99),  # urea, not its nitrogen
        ("LOINC//3091-6", "mg/dL", "mmol/L", 60, 9.99),
        ("LOINC//14937-7", "mg/dL", "mmol/L", 10, 3.57),
        ("LOINC//1975-2", "mg/dL", "umol/L", 1, 17.1),
        ("LOINC//3084-1", "mg/dL", "umol/L", 1, 59.48),
        ("LOINC//17861-6", "mg/dL", "mmol/L", 10, 2.495),
        ("LOINC//17861-6", "meq/L", "mmol/L", 5, 2.5),
        ("LOINC//2823-3", "meq/L", "mmol/L", 4.1, 4.1),
        (HBA1C, "mmol/mol", "%", 48, 6.5),
        (HBA1C, "%", "mmol/mol", 7.0, 53),
        ("LOINC//8310-5", "[degF]", "Cel", 98.6, 37.0),
        ("LOINC//8480-6", "kPa", "mm[Hg]", 16, 120),
        ("LOINC//8302-2", "[in_i]", "cm", 70, 177.8),
        ("LOINC//29463-7", "[lb_av]", "kg", 154, 69.85),
    ],
)
def test_conversions_agree_with_published_factors(
    code: str, source: str, target: str, value: float, expected: float
) -> None:
    convert = analyte_conversion(code, source, target)
    assert convert is not None
    assert convert(value) == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize(
    ("code", "source", "target"),
    [
        ("LOCAL//x", "mg/dL", "mmol/L"),
        (HBA1C, "%", "1"),
        ("LOCAL//hba1c", "mmol/mol", "%"),
        (GLUCOSE, "meq/L", "mmol/L"),
        (CHOLESTEROL, "mm[Hg]", "mmol/L"),
        ("LOINC//6301-6", "%", "1"),  # Quick's prothrombin time is no INR
        ("LOINC//9269-2", "%", "1"),
    ],
)
def test_there_is_no_conversion_without_a_reason(code: str, source: str, target: str) -> None:
    assert analyte_conversion(code, source, target) is None


def test_molar_masses_are_those_of_the_formulas() -> None:
    known = {code: analyte(code) for code in (CHOLESTEROL, GLUCOSE, "LOINC//2160-0")}
    masses = {code: found.molar_mass for code, found in known.items() if found is not None}
    assert masses == {
        CHOLESTEROL: pytest.approx(386.66, abs=0.01),
        GLUCOSE: pytest.approx(180.156, abs=0.001),
        "LOINC//2160-0": pytest.approx(113.12, abs=0.001),
    }


@given(
    st.sampled_from(
        [(CHOLESTEROL, "mg/dL", "mmol/L"), (HBA1C, "%", "mmol/mol"), ("LOCAL//t", "[degF]", "K")]
    ),
    st.floats(min_value=0.1, max_value=1000),
)
def test_there_and_back_is_the_same(way: tuple[str, str, str], value: float) -> None:
    code, source, target = way
    there, back = analyte_conversion(code, source, target), analyte_conversion(code, target, source)
    assert there is not None
    assert back is not None
    assert back(there(value)) == pytest.approx(value, rel=1e-9, abs=1e-9)
    assert there.inverse()(there(value)) == pytest.approx(value, rel=1e-9, abs=1e-9)


def test_every_kept_unit_is_its_own_spelling() -> None:
    for code in (CHOLESTEROL, HBA1C, "LOINC//8480-6", "LOINC//39156-5", "LOINC//33914-3"):
        known = analyte(code)
        assert known is not None
        assert normal_unit(known.unit) == known.unit
        assert conversion(known.unit, known.unit) is not None


@pytest.mark.parametrize(
    ("unit", "reason"),
    [
        (None, "no unit for total cholesterol"),
        (" ", "no unit for total cholesterol"),
        ("furlong", "unit 'furlong' is not known for total cholesterol"),
        ("mmHg", "unit 'mmHg' does not fit total cholesterol"),
    ],
)
def test_a_known_code_needs_a_known_unit(unit: str | None, reason: str) -> None:
    with pytest.raises(UnusableError, match=reason):
        checked_number(CHOLESTEROL, 200, unit)


def test_an_unknown_code_keeps_its_unit() -> None:
    assert checked_number("LOCAL//x", 2.0, "mm hg").unit == "mm[Hg]"
    assert checked_number("LOCAL//x", 2.0, "furlong").unit == "furlong"
    assert checked_number("LOCAL//x", 2.0, None).unit is None
