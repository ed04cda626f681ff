"""The tables of codes and units: whole, honest, and the site's own additions to them."""

import csv
from contextlib import suppress
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtwin_client.records.codes.analyte_table import molar_mass
from fedtwin_client.records.codes.analytes import analyte_conversion
from fedtwin_client.records.codes.concepts import codes_of
from fedtwin_client.records.codes.rows import check_digit
from fedtwin_client.records.codes.site_codes import add_alias, add_range, add_spelling
from fedtwin_client.records.codes.tables import SHIPPED, shipped, site_tables, using
from fedtwin_client.records.codes.units import normal_unit
from fedtwin_client.records.hl7.codes import read_coded
from fedtwin_client.records.hl7.text import Marks, read_message
from fedtwin_client.records.hl7.values import unit_of
from fedtwin_client.records.reading import checked_number
from fedtwin_client.records.report import Place
from fedtwin_client.store.imports import import_table
from fedtwin_client.store.timeline import Timeline
from fedtwin_protocol.errors import RecordError

TODAY = date(2026, 11, 28)
NOW = datetime(2026, 11, 28, tzinfo=UTC)
CHOLESTEROL = "LOINC//2093-3"
LOCAL = "labs.example.org_codes//CHOL"


def test_every_shipped_row_is_whole() -> None:
    tables = shipped()
    for code, known in tables.analytes.items():
        assert tables.units.normal(known.unit) == known.unit, code
        assert (known.low is None) == (known.high is None)
        if known.low is not None and known.high is not None:
            assert known.low < known.high, code
            assert known.source, code
        if code.startswith("LOINC//"):
            number, digit = code.removeprefix("LOINC//").split("-")
            assert check_digit(number) == int(digit), code
            assert known.low is not None, code
    assert len({known.name for known in tables.analytes.values()}) > 120


def test_shipped_names_have_one_unit_and_one_range() -> None:
    """The codes of one measure differ in method or specimen, not in what is kept."""
    kept: dict[str, set[object]] = {}
    for known in shipped().analytes.values():
        kept.setdefault(known.name, set()).add((known.unit, known.low, known.high))
    assert [name for name, found in kept.items() if len(found) > 1] == []


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        *[(text, "mm[Hg]") for text in ("mm Hg", "mmHg", "MMHG", "mm(Hg)")],
        *[(text, "Cel") for text in ("&#176;C", "°C", "C", "deg C", "Celsius")],
        *[(text, "10*3/uL") for text in ("K/uL", "K/mcL", "k/ul", "10^3/uL", "x10E3/uL")],
        *[(text, "10*9/L") for text in ("G/L", "10*9/L", "10^9/L", "Gpt/L")],
        *[("g/L", "g/L"), ("g/l", "g/L"), ("T/L", "10*12/L"), ("M/uL", "10*6/uL")],
        *[("mls/dL", "mL/dL"), ("mls/min", "mL/min"), ("mcU/ml", "u[IU]/mL"), ("pg", "pg")],
        *[("mM", "mmol/L"), ("mm", "mm"), ("uM", "umol/L"), ("Mm", None), ("Pg", None)],
        *[("M", None), ("S", None), ("s", "s"), ("PG/ML", "pg/mL"), ("mEq/L", "meq/L")],
        *[("mIU/mL", "m[IU]/mL"), ("mIU/L", "m[IU]/L"), ("pH", "[pH]")],
        *[("/100 WBCs", "/100{WBCs}"), ("ng/mL FEU", "ng/mL{FEU}")],
        *[("mm/hr", "mm/h"), ("mOsm/kg", "mosm/kg"), ("µg/dl", "ug/dL")],
    ],
)  # fmt: skip
def test_spellings_of_hospitals(written: str, expected: str | None) -> None:
    assert normal_unit(written) == expected


# AMA Manual of Style, SI conversion table, but where another source is named.
@pytest.mark.parametrize(
    ("code", "source", "target", "value", "expected"),
    [
        ("LOINC//19123-9", "mg/dL", "mmol/L", 1, 0.411),
        ("LOINC//19123-9", "meq/L", "mmol/L", 1, 0.5),
        ("LOINC//2777-1", "mg/dL", "mmol/L", 1, 0.323),
        ("LOINC//32693-4", "mg/dL", "mmol/L", 1, 0.111),
        ("LOINC//2498-4", "ug/dL", "umol/L", 100, 17.9),
        ("LOINC//2132-9", "pg/mL", "pmol/L", 100, 73.8),
        ("LOINC//2284-8", "ng/mL", "nmol/L", 1, 2.266),
        ("LOINC//1989-3", "ng/mL", "nmol/L", 1, 2.496),
        ("LOINC//3024-7", "ng/dL", "pmol/L", 1, 12.87),
        ("LOINC//2731-8", "pmol/L", "ng/L", 1, 9.43),
        ("LOINC//718-7", "mmol/L", "g/dL", 9.0, 14.5),  # monomer, 16.114 g/mmol
        ("LOINC//718-7", "g/L", "g/dL", 145, 14.5),
        ("LOINC//14959-1", "mg/mmol", "mg/g", 3.4, 30),  # KDIGO 2012, table of albuminuria
        ("LOINC//20448-7", "pmol/L", "m[IU]/L", 60, 10),
        ("LOINC//48065-7", "ng/mL", "mg/L{FEU}", 500, 0.5),
        ("LOINC//6598-7", "ng/mL", "ng/L", 0.014, 14),
        ("LOINC//4544-3", "1", "%", 0.42, 42),
        ("LOINC//44975-1", "s", "ms", 0.4, 400),
    ],
)
def test_conversions_of_more_substances(
    code: str, source: str, target: str, value: float, expected: float
) -> None:
    convert = analyte_conversion(code, source, target)
    assert convert is not None
    assert convert(value) == pytest.approx(expected, rel=0.01)


def test_scores_and_ph_need_no_unit_and_others_do() -> None:
    assert checked_number("LOINC//2744-1", 7.4, None).unit == "[pH]"
    assert checked_number("LOINC//6301-6", 2.5, None).unit == "1"
    assert checked_number("LOINC//6301-6", 2.5, "{INR}").value == 2.5


def test_a_formula_is_one_of_known_atoms() -> None:
    assert molar_mass("C6H12O6") == pytest.approx(180.156, abs=1e-3)
    assert [molar_mass(text) for text in ("Xx2", "6C", "", "C6H12O6 ")] == [None] * 4


def test_a_local_code_is_read_as_the_standard_one(tmp_path: Path) -> None:
    """Before units: 200 mg/dL of the local code comes in as mmol/L of the LOINC code."""
    add_alias(tmp_path, LOCAL, CHOLESTEROL, by="AB", today=TODAY)
    add_spelling(tmp_path, "mg/dl-ser", "mg/dL", by="AB", today=TODAY)
    table, mapping = tmp_path / "labs.csv", tmp_path / "map.yaml"
    table.write_text("mrn,day,chol\n1,2026-01-05,200\n2,2026-01-05,201\n")
    mapping.write_text(
        "name: labs\nsubject: {column: mrn}\ntime: {column: day}\n"
        f"columns:\n  chol: {{code: {LOCAL}, unit: mg/dl-ser}}\n"
    )
    report = import_table(table, mapping, tmp_path, secret=b"s" * 32, now=NOW)
    assert report.reasons == {}
    with Timeline.open(tmp_path).connect() as db:
        rows = db.execute("SELECT code, round(numeric_value, 2), unit, src_unit FROM events")
        assert rows.fetchall()[0] == (CHOLESTEROL, 5.17, "mmol/L", "mg/dl-ser")
    assert "; site 2026-11-28 " in report.code_tables
    assert f"  code tables    {report.code_tables}" in report.lines()
    assert normal_unit("mg/dl-ser") is None, "outside the import only shipped tables are in use"


def test_what_a_record_says_itself_comes_before_an_alias(tmp_path: Path) -> None:
    coding = [
        {"system": "http://labs.example.org/codes", "code": "CHOL"},
        {"system": "http://loinc.org", "code": "2085-9"},
    ]
    add_alias(tmp_path, LOCAL, CHOLESTEROL, by="AB", today=TODAY)
    with using(site_tables(tmp_path)):
        assert codes_of({"coding": coding}) == ["LOINC//2085-9"]
        assert codes_of({"coding": coding[:1]}) == [CHOLESTEROL]
    assert codes_of({"coding": coding[:1]}) == [LOCAL]


def test_local_codes_of_messages_are_read_as_the_standard_ones(tmp_path: Path) -> None:
    """HL7 v2 names the sending application; what it wrote in a vocabulary itself comes first."""
    add_alias(tmp_path, "LOCAL@LAB//CHOL", CHOLESTEROL, by="AB", today=TODAY)
    marks = Marks("|", "^", "~", "\\", "&")
    written = ("CHOL^Cholesterol^L", "CHOL^Cholesterol^L^2085-9^HDL^LN")
    before = [read_coded(text, marks, "LAB").codes for text in written]
    assert before == [("LOCAL@LAB//CHOL",), ("LOINC//2085-9", "LOCAL@LAB//CHOL")]
    with using(site_tables(tmp_path)):
        read = [read_coded(text, marks, "LAB").codes for text in written]
    assert read == [(CHOLESTEROL,), ("LOINC//2085-9",)]


def test_a_spelling_of_the_sites_counts_in_messages_too(tmp_path: Path) -> None:
    data = b"MSH|^~\\&|LAB|HOSP\rOBX|1|NM|2093-3^^LN||200|zzz^mg/dl-ser"
    message = read_message(data, Place("m.hl7", 1))
    (obx,) = [one for one in message.segments if one.name == "OBX"]
    assert unit_of(obx) == "zzz"
    add_spelling(tmp_path, "mg/dl-ser", "mg/dL", by="AB", today=TODAY)
    with using(site_tables(tmp_path)):
        assert unit_of(obx) == "mg/dl-ser"
    assert unit_of(obx) == "zzz"


def test_a_row_replaces_an_earlier_one_and_changes_the_version(tmp_path: Path) -> None:
    first = add_range(tmp_path, CHOLESTEROL, 1, 20, by="AB", today=TODAY)
    second = add_range(tmp_path, CHOLESTEROL, 1, 25, by="CD", today=TODAY)
    assert second.analytes[CHOLESTEROL].high == 25
    assert len({shipped().version, first.version, second.version}) == 3
    assert second.version.endswith("1 rows")


def alias(text: str) -> tuple[str, str]:
    return "codes.csv", f"local,standard,reviewer,date\n{text}\n"


def unit(text: str) -> tuple[str, str]:
    return "units.csv", f"spelling,exact,unit,kind,factor,reviewer,date\n{text},AB,2026-11-28\n"


def measure(text: str) -> tuple[str, str]:
    head = "code,name,unit,formula,charge,low,high,reviewer,date"
    return "analytes.csv", f"{head}\n{text},AB,2026-11-28\n"


@pytest.mark.parametrize(
    ("file", "fault"),
    [
        (alias("A//1,LOINC//2093-4,AB,2026-11-28"), "line 2: LOINC//2093-4 is mistyped: its check"),
        (alias("CHOL,LOINC//2093-3,AB,2026-11-28"), "line 2: expected a code such as LOINC"),
        (alias("A//1,LOINC//2093-3,,2026-11-28"), "line 2: expected the name or initials"),
        (alias("A//1,LOINC//2093-3,AB,28.11.26"), "line 2: expected a date such as 2026-11-28"),
        (alias("A//1,A//1,AB,2026-11-28"), "line 2: A//1 is itself the standard code"),
        (
            alias("LOINC//2345-7,LOINC//2160-0,AB,2026-11-28"),
            "LOINC//2345-7 is known as glucose, and LOINC//2160-0 as creatinine",
        ),
        (alias("LOINC//2345-7,B//1,AB,2026-11-28"), "and B//1 is not known"),
        (alias("A//1,B//1,AB,2026-11-28\nA//1,B//2,AB,2026-11-28"), "line 3: A//1 comes twice"),
        (alias("A//1,B//1,AB,2026-11-28\nB//1,C//2,AB,2026-11-28"), "line 2: B//1 is itself read"),
        (alias("A//1"), "line 2: expected 4 cells, found 1"),
        (("codes.csv", "local,standart\n"), "the first line does not know the column 'standart'"),
        (("codes.csv", "local\n"), "the first line lacks 'standard'"),
        (("codes.csv", 'local,standard,reviewer,date\n"A'), "is not CSV"),
        (unit("mg/dl,,g/L,,"), "line 2: 'mg/dl' is shipped and means mg/dL"),
        (unit("zolotnik,,zol,,"), "line 2: 'zol' is no UCUM unit that this node knows"),
        (unit("zol,,zol,mass,"), "line 2: a row that defines a unit needs its kind and a factor"),
        (unit("zol,,zol,mass,-1"), "line 2: a row that defines a unit needs its kind and a factor"),
        (unit("zol,,zol,mass,much"), "line 2: expected a number as factor, got 'much'"),
        (unit("zolotnik,,zol,mass,1"), "line 2: kind and factor belong to the row whose spelling"),
        (unit("zol,,,,"), "line 2: expected the UCUM unit that the spelling stands for"),
        (unit("zol,maybe,g,,"), "line 2: expected yes or nothing as exact, got 'maybe'"),
        (measure("A//1,thing,zol,,,1,2"), "line 2: 'zol' is no UCUM unit that this node knows"),
        (measure("A//1,thing,g/L,,,2,1"), "line 2: expected low and high, low below high"),
        (measure("A//1,thing,g/L,,,2,"), "line 2: expected low and high, low below high"),
        (measure("A//1,thing,g/L,glucose,,1,2"), "line 2: expected a formula such as C6H12O6"),
        (measure("A//1,thing,g/L,,0.5,1,2"), "line 2: expected a charge from 1 to 9"),
        (measure("A//1,,g/L,,,1,2"), "line 2: expected a name for A//1"),
        (measure("LOINC//2093-3,,mg/dL,,,1,2"), "line 2: LOINC//2093-3 is shipped and kept"),
        (measure("LOINC//2093-3,,,,,,"), "line 2: LOINC//2093-3 is shipped; expected low and high"),
    ],
)  # fmt: skip
def test_a_faulty_row_says_what_and_where(
    tmp_path: Path, file: tuple[str, str], fault: str
) -> None:
    (tmp_path / "codes").mkdir()
    (tmp_path / "codes" / file[0]).write_text(file[1])
    with pytest.raises(RecordError) as told:
        site_tables(tmp_path)
    assert fault in str(told.value)
    assert str(tmp_path / "codes" / file[0]) in str(told.value)


def test_a_site_may_add_a_unit_and_a_measure(tmp_path: Path) -> None:
    (tmp_path / "codes").mkdir()
    for name, text in (unit("zol,,zol,mass,0.0042"), measure("A//1,gold,zol,,,1,2")):
        (tmp_path / "codes" / name).write_text(text)
    with using(site_tables(tmp_path)):
        assert checked_number("A//1", 42.66, "g").value == pytest.approx(10.157, abs=1e-3)


def test_nothing_is_written_that_would_not_be_whole(tmp_path: Path) -> None:
    add_alias(tmp_path, LOCAL, CHOLESTEROL, by="AB", today=TODAY)
    before = (tmp_path / "codes" / "codes.csv").read_bytes()
    with pytest.raises(RecordError, match=r"is itself read as another code.*nothing was written"):
        add_alias(tmp_path, "B//1", LOCAL, by="AB", today=TODAY)
    with pytest.raises(RecordError, match="name or initials of a person"):
        add_alias(tmp_path, "B//1", CHOLESTEROL, by=" ", today=TODAY)
    with pytest.raises(RecordError, match="not among the shipped codes"):
        add_range(tmp_path, "B//1", 1, 2, by="AB", today=TODAY)
    assert (tmp_path / "codes" / "codes.csv").read_bytes() == before


@given(st.sampled_from(["units.csv", "analytes.csv", "codes.csv"]), st.binary(max_size=200))
def test_any_bytes_are_a_table_or_one_sentence(
    tmp_path_factory: pytest.TempPathFactory, name: str, data: bytes
) -> None:
    folder = tmp_path_factory.mktemp("any")
    (folder / "codes").mkdir()
    (folder / "codes" / name).write_bytes(data)
    with suppress(RecordError):
        assert site_tables(folder).version.startswith(shipped().version)


def test_the_shipped_files_are_plain_csv() -> None:
    for name in ("units.csv", "analytes.csv"):
        with (SHIPPED / name).open(encoding="utf-8", newline="") as file:
            assert len({len(row) for row in csv.reader(file)}) == 1
