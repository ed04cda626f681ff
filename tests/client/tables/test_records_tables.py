"""Tables and their mapping files."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from fedtwin_client.records.pseudonyms import Identity, pseudonym
from fedtwin_client.records.report import ImportReport
from fedtwin_client.store.imports import import_table
from fedtwin_client.store.timeline import Timeline
from fedtwin_protocol.errors import RecordError

NOW = datetime(2026, 3, 1, tzinfo=UTC)
SECRET = b"\x07" * 32
ROOT = Path(__file__).parents[3]
UCI = ROOT / "../shared/data/uci_heart"

VISITS = """
name: visits
subject: {column: mrn, system: "http://h/mrn"}
time: {column: date}
birth: {age_column: age}
sex: {column: sex, male: [M], female: [F]}
missing: ["", "?"]
events:
  - code: LOCAL//visit
columns:
  chol: {code: LOINC//2093-3, unit: mg/dL, missing: [0]}
  pain: {code: LOCAL//pain, kind: text, values: {1: mild, 2: strong}}
  smoker: {code: LOCAL//smoker, kind: flag, values: {no: false, yes: true}}
  diabetes: {code: SNOMED//44054006, kind: presence}
  later: {code: LOCAL//later, unit: "1", offset_days: 1}
"""
HEADER = "mrn,date,age,sex,chol,pain,smoker,diabetes,later\n"


def load(
    folder: Path, text: str | bytes, mapping: str = VISITS, name: str = "t.csv"
) -> tuple[ImportReport, list[dict[str, Any]]]:
    file, map_file = folder / name, folder / "map.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    map_file.write_text(mapping)
    report = import_table(file, map_file, folder / "store", secret=SECRET, now=NOW)
    return report, Timeline.open(folder / "store").events().to_pylist()


def test_a_row_makes_traits_events_and_values(tmp_path: Path) -> None:
    report, events = load(tmp_path, HEADER + "7,2020-05-01,60,F,200,2.0,yes,y,3\n")
    found = {event["code"]: event for event in events}
    assert found["MEDS_BIRTH"]["time"] == datetime(1960, 5, 1)
    assert found["SEX"]["text_value"] == "female"
    assert found["LOCAL//visit"]["time"] == datetime(2020, 5, 1)
    assert found["LOINC//2093-3"]["numeric_value"] == pytest.approx(5.172, abs=1e-3)
    assert found["LOCAL//pain"]["text_value"] == "strong"
    assert found["LOCAL//smoker"]["numeric_value"] == 1.0
    assert found["SNOMED//44054006"]["numeric_value"] is None
    assert found["LOCAL//later"]["time"] == datetime(2020, 5, 2)
    assert found["LOCAL//later"]["available_time"] == datetime(2020, 5, 2)
    assert {event["subject_id"] for event in events} == {
        pseudonym(SECRET, Identity("http://h/mrn", "7"))
    }
    assert (report.read, report.events, report.unused) == ({"rows": 1}, 8, 0)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("7,2020-05-01,60,F,0.0,1,yes,y,3", "chol: not recorded"),
        ("7,2020-05-01,60,F,?,1,yes,y,3", "chol: not recorded"),
        ("7,2020-05-01,60,F,high,1,yes,y,3", "chol: expected a number, found text"),
        ("7,2020-05-01,60,F,1e999,1,yes,y,3", "chol: expected a finite number"),
        ("7,2020-05-01,60,F,200,9,yes,y,3", "pain: not among the values of the mapping"),
        ("7,2020-05-01,60,F,200,1,yes,perhaps,3", "diabetes: expected yes or no"),
        ("7,2020-05-01,60,F,200,1,yes,n,3", "diabetes: no, which makes no event"),
        ("7,2020-05-01,160,F,200,1,yes,y,3", "birth: expected an age from 0 to 130 years"),
        ("7,2020-05-01,?,F,200,1,yes,y,3", "birth: not recorded"),
        ("7,2020-05-01,60,X,200,1,yes,y,3", "sex: unknown mark"),
        ("7,2026-03-01,60,F,200,1,yes,y,3", "later: lies in the future"),
    ],
)
def test_a_cell_that_is_not_used_costs_only_itself(tmp_path: Path, row: str, reason: str) -> None:
    report, events = load(tmp_path, HEADER + row + "\n")
    assert report.reasons == {reason: 1}
    assert report.examples[reason] == ("t.csv:2",)
    assert len(events) == 7


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("7,2030-05-01,60,F,200,1,yes,y,3", "lies in the future"),
        ("7,?,60,F,200,1,yes,y,3", "no time"),
        ("7,01/05/2020,60,F,200,1,yes,y,3", "a time that cannot be read"),
        (",2020-05-01,60,F,200,1,yes,y,3", "no patient"),
        ("7,2020-05-01,60,F,20", "expected 9 cells, found 5"),
        ("7,2020-05-01,60,F,200,1,yes,y,3,4", "expected 9 cells, found 10"),
        ('7,"2020-05-01"x,60,F,200,1,yes,y,3', "not CSV: ',' expected after '\"'"),
    ],
)
def test_a_row_that_cannot_be_used_is_put_aside(tmp_path: Path, row: str, reason: str) -> None:
    good = "8,2020-05-01,60,F,200,1,yes,y,3\n"
    report, events = load(tmp_path, HEADER + good + row)
    assert report.reasons == {reason: 1}
    assert len(events) == 8
    assert report.quarantine is not None
    assert '"line": 3' in report.quarantine.read_text()


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_line_that_is_too_long_is_passed_over_unheld(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    """A file of gigabytes without line ends must not fill the memory."""
    monkeypatch.setattr("fedtwin_client.records.tables.rows.LONGEST_LINE", 100)
    long, row = "x" * 1234, "{},2020-05-01,60,F,200,2,yes,y,3"
    lines = [row.format(1), long, row.format(2), f'3,"{long}', row.format(4), long]
    report, events = load(tmp_path, end.join([HEADER.rstrip(), *lines]))
    assert report.reasons == {"a line of more than 16 MiB": 3}
    places = report.examples["a line of more than 16 MiB"]
    assert list(places[:2]) == ["t.csv:3", "t.csv:5"]
    assert report.read["rows"] == 6
    sources = [one["source"] for one in events if one["code"] == "LOINC//2093-3"]
    assert sorted(int(source.split("#")[1].split("/")[0]) for source in sources) == [2, 4, 6]
    with pytest.raises(RecordError, match=r"first line of .* is longer than 16 MiB"):
        load(tmp_path, long + end)


def test_a_patient_s_birth_is_told_once_however_often_it_is_written(tmp_path: Path) -> None:
    mapping = VISITS.replace("{age_column: age}", "{column: age}")
    lines = [f"7,2020-05-0{day},1960-02-03,F,200,1,yes,y,3\n" for day in (1, 2, 3)]
    _, events = load(tmp_path, HEADER + "".join(lines), mapping)
    assert [event["code"] for event in events].count("MEDS_BIRTH") == 1


def test_the_same_line_twice_counts_once(tmp_path: Path) -> None:
    line = "7,2020-05-01,60,F,200,1,yes,y,3\n"
    report, events = load(tmp_path, HEADER + line + line)
    assert report.reasons == {"line repeats an earlier line": 1}
    assert len(events) == 8


@pytest.mark.parametrize(
    ("known", "available"),
    [
        ("", datetime(2024, 3, 1)),
        ("2024-03-01", datetime(2024, 3, 1)),  # as the line, of which all is known together
        ("2024-03-04", datetime(2024, 3, 4, 23, 59, 59)),
        ("2024-03-04T08:30", datetime(2024, 3, 4, 8, 30)),
        ("2024-03-04 00:00:00.000", datetime(2024, 3, 4, 23, 59, 59)),  # a date, as databases do
        ("2024-03-01T00:00", datetime(2024, 3, 1)),
    ],
)
def test_a_line_is_known_by_the_end_of_the_day_that_it_names(
    tmp_path: Path, known: str, available: datetime
) -> None:
    mapping = VISITS.replace("birth:", "known: {column: known}\nbirth:")
    text = HEADER.replace("mrn,", "known,mrn,") + f"{known},7,2024-03-01,50,M,200,,,,\n"
    _, rows = load(tmp_path, text, mapping)
    assert [row["available_time"] for row in rows if row["numeric_value"]] == [available]


def test_what_may_be_thousands_is_not_read_as_decimals(tmp_path: Path) -> None:
    mapping = VISITS.replace("name: visits", 'name: visits\ndelimiter: ";"\ndecimal: ","')
    cells = ("1.234", "<1.234", "0.234", "5.25", "5,250")
    lines = [f"{number};2024-03-01;50;M;{cell};;;;" for number, cell in enumerate(cells)]
    text = HEADER.replace(",", ";") + "\n".join(lines) + "\n"
    mapping = mapping.replace("mg/dL, missing: [0]", "mmol/L")
    report, rows = load(tmp_path, text, mapping)
    assert sorted(row["numeric_value"] for row in rows if row["unit"]) == [0.234, 5.25, 5.25]
    assert report.reasons["chol: a point before three digits: thousands, or decimals?"] == 2


def test_bom_and_crlf_and_other_delimiters(tmp_path: Path) -> None:
    mapping = VISITS + 'delimiter: ";"\ndecimal: ","\n'
    text = "\ufeff" + (HEADER + "7,2020-05-01,60,F,<200@5,1,yes,y,3\n").replace(",", ";")
    report, events = load(tmp_path, text.replace("@", ",").replace("\n", "\r\n"), mapping)
    chol = next(event for event in events if event["code"] == "LOINC//2093-3")
    assert chol["numeric_value"] == pytest.approx(200.5 * 10 / 386.664)
    assert chol["comparator"] == "<"
    assert report.unused == 0


@pytest.mark.parametrize("first", ["sep=,\r\n", "SEP=;\n"])
def test_excels_line_about_the_delimiter_is_no_header(tmp_path: Path, first: str) -> None:
    report, _ = load(tmp_path, first + HEADER + "7,2020-05-01,60,F,x,1,yes,y,3\n")
    assert report.read == {"rows": 1}
    assert report.examples["chol: expected a number, found text"] == ("t.csv:3",)


def test_importing_a_file_again_replaces_it(tmp_path: Path) -> None:
    first = HEADER + "7,2020-05-01,60,F,200,1,yes,y,3\n8,2020-05-01,60,F,200,1,yes,y,3\n"
    load(tmp_path, first)
    load(tmp_path, HEADER + "9,2020-05-01,60,F,200,1,yes,y,3\n", name="other.csv")
    _, events = load(tmp_path, HEADER + "7,2020-05-01,60,F,100,1,yes,y,3\n")
    assert len({event["subject_id"] for event in events}) == 2
    assert len(events) == 16


def test_a_table_meets_fhir_in_one_patient_by_the_identifier_system(tmp_path: Path) -> None:
    _, events = load(tmp_path, HEADER + "77,2020-05-01,60,F,200,1,yes,y,3\n")
    assert events[0]["subject_id"] == pseudonym(SECRET, Identity("http://h/mrn", "77"))


def test_parquet_is_read_like_csv(tmp_path: Path) -> None:
    table = pa.table(
        {
            "mrn": [7, 8],
            "date": [datetime(2020, 5, 1), datetime(2020, 5, 1)],
            "age": [60.0, 61.0],
            "sex": ["F", "M"],
            "chol": [200.0, None],
            "pain": [1, 2],
            "smoker": [True, False],
            "diabetes": [False, True],
            "later": [1, 2],
            "unread": [1, 2],
        }
    )
    file, map_file = tmp_path / "t.parquet", tmp_path / "map.yaml"
    pq.write_table(table, file)
    map_file.write_text(VISITS)
    report = import_table(file, map_file, tmp_path / "store", secret=SECRET, now=NOW)
    assert report.reasons == {"chol: not recorded": 1, "diabetes: no, which makes no event": 1}
    assert report.events == 14


def test_a_number_in_a_column_with_gaps_is_the_same_patient(tmp_path: Path) -> None:
    """Tools make floating-point numbers of whole ones where some are missing."""
    columns = {"mrn": [4711.0, None], "date": ["2024-05-01"] * 2, "chol": [5.0, 6.0]}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    mapping = """
name: visits
subject: {column: mrn, system: "http://h/mrn"}
time: {column: date}
columns: {chol: {code: LOINC//2093-3, unit: mmol/L}}
"""
    (tmp_path / "map.yaml").write_text(mapping)
    report = import_table(
        tmp_path / "t.parquet", tmp_path / "map.yaml", tmp_path / "store", secret=SECRET, now=NOW
    )
    assert report.reasons == {"no patient": 1}
    (event,) = Timeline.open(tmp_path / "store").events().to_pylist()
    assert event["subject_id"] == pseudonym(SECRET, Identity("http://h/mrn", "4711"))
    assert event["numeric_value"] == 5.0


def test_further_columns_of_a_spreadsheet_need_no_name(tmp_path: Path) -> None:
    text = HEADER.replace("\n", ",,\n") + "7,2020-05-01,60,F,200,2.0,yes,y,3,,\n"
    report, _ = load(tmp_path, text)
    assert (report.events, report.unused) == (8, 0)


def test_a_missing_column_is_named_with_those_found(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"names the columns chol, later.*has: mrn, date"):
        load(tmp_path, "mrn,date,age,sex,pain,smoker,diabetes\n")
    with pytest.raises(RecordError, match="no records"):
        Timeline.open(tmp_path / "store")


def test_the_wrong_encoding_is_said_plainly(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="set 'encoding' in the mapping"):
        load(tmp_path, HEADER.encode() + "7,2020-05-01,60,ä,1,1,no,n,3\n".encode("latin-1"))
    with pytest.raises(RecordError, match="set 'encoding' in the mapping, for example to utf-16"):
        load(tmp_path, HEADER.encode("utf-16"))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"PK\x03\x04\x14\x00", "is an Excel workbook or an archive; save the sheet as CSV"),
        (b"\x1f\x8b\x08\x00", "is compressed with gzip; unpack it first"),
    ],
)
def test_what_is_no_text_is_said_plainly(tmp_path: Path, content: bytes, says: str) -> None:
    with pytest.raises(RecordError, match=says):
        load(tmp_path, content)


def test_a_month_is_known_when_it_ends(tmp_path: Path) -> None:
    mapping = VISITS.replace("{column: date}", '{column: date, format: "%m/%Y"}')
    _, events = load(tmp_path, HEADER + "7,05/2020,60,F,200,1,yes,y,\n", mapping)
    (found,) = (event for event in events if event["code"] == "LOINC//2093-3")
    times = datetime(2020, 5, 1), datetime(2020, 5, 31, 23, 59, 59)
    assert (found["time"], found["available_time"]) == times


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colums": {}}, "colums: unknown key"),
        ({"name": "A B"}, "name: "),
        ({"subject": {}}, "subject: expected either 'column' or 'row_number: true'"),
        ({"time": {"column": "a", "date": "2020-01-01"}}, "time: expected either"),
        ({"time": {"column": "a", "format": "dd.mm.yyyy"}}, "expected a format .* such as %d.%m"),
        ({"birth": {"column": "a", "format": "%d.%m."}}, "expected a format that tells the year"),
        ({"known": {"column": "a", "format": "%Y-%m-%d %I:%M"}}, "without %p; %H are hours to 24"),
        ({"known": "a"}, "known: expected keys with their values"),
        ({"missing": "a"}, "missing: expected a list, such as"),
        ({"thousands": "."}, "'thousands' and 'decimal' cannot be one mark"),
        ({"view": "v", "thousands": ","}, "'thousands' speaks of a file of cells"),
        ({"timezone": "Mars"}, "timezone: expected a time zone"),
        ({"encoding": "ebcdic-x"}, "encoding: expected an encoding"),
        ({"header": False}, "'column_names' belongs to 'header: false'"),
        ({"columns": {}, "events": []}, "at least one entry"),
        ({"columns": {"a": {"code": "nope", "unit": "1"}}}, r"columns.a.0.code"),
        ({"columns": {"a": {"code": "LOCAL//a"}}}, "a number needs its 'unit'"),
        (
            {"columns": {"a": {"code": "LOINC//2093-3", "unit": "mmHg"}}},
            "unit 'mmHg' does not fit total cholesterol",
        ),
        (
            {"columns": {"a": {"code": "LOCAL//a", "kind": "text", "unit": "g"}}},
            "'unit' belongs to kind 'number'",
        ),
    ],
)
def test_a_wrong_mapping_names_file_and_key(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    mapping = yaml.safe_dump(yaml.safe_load(VISITS) | change)
    with pytest.raises(RecordError, match=r"map\.yaml") as raised:
        load(tmp_path, HEADER, mapping)
    assert raised.match(message)


@pytest.mark.parametrize("text", ["- a\n- b\n", "a: [", "a: 2020-99-99", ""])
def test_what_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(RecordError, match=r"map\.yaml"):
        load(tmp_path, HEADER, text)


def test_the_examples_of_the_guide_are_mappings(tmp_path: Path) -> None:
    guide = (ROOT / "docs/records.md").read_text()
    blocks = [block.partition("```")[0] for block in guide.split("```yaml\n")[1:]]
    assert len(blocks) == 2
    row = "63,1,233,0\n28,0,0,1\n"
    report, _ = load(tmp_path, row, blocks[1], name="heart.csv")
    assert report.reasons == {"chol: not recorded": 1}
    header = "mrn;visit_date;birth_date;gender;chol;smoker;chest_pain;diabetes;troponin_next_day"
    line = "7;01.06.2024;03.02.1960;F;201,5;former;2;1;0,01"
    report, _ = load(tmp_path, f"{header}\n{line}\n", blocks[0], name="visits.csv")
    assert (report.events, report.unused) == (8, 0)


@pytest.mark.skipif(not UCI.is_dir(), reason="the UCI heart disease files are not here")
@pytest.mark.parametrize(
    ("hospital", "rows", "cholesterols"),
    [("cleveland", 303, 303), ("hungarian", 294, 271), ("switzerland", 123, 0), ("va", 200, 144)],
)
def test_the_uci_hospitals_are_read_whole(
    tmp_path: Path, hospital: str, rows: int, cholesterols: int
) -> None:
    mapping = """
name: heart
header: false
column_names: [age, sex, cp, trestbps, chol, fbs, restecg, thalach, exang, oldpeak, slope, ca,
  thal, num]
missing: ["", "?"]
subject: {row_number: true}
time: {date: 1988-01-01}
birth: {age_column: age}
sex: {column: sex, male: [1], female: [0]}
columns:
  trestbps: {code: LOINC//8480-6, unit: mmHg, missing: [0]}
  chol: {code: LOINC//2093-3, unit: mg/dL, missing: [0]}
"""
    text = (UCI / f"processed.{hospital}.data").read_bytes()
    report, events = load(tmp_path, text, mapping)
    assert (report.read, report.patients) == ({"rows": rows}, rows)
    codes = [event["code"] for event in events]
    assert codes.count("LOINC//2093-3") == cholesterols
    assert report.reasons.get("chol: not recorded", 0) == rows - cholesterols
    assert codes.count("SEX") == codes.count("MEDS_BIRTH") == rows


FIGURES = """
name: figures
delimiter: ";"
decimal: "{decimal}"
thousands: "{thousands}"
subject: {{row_number: true}}
time: {{date: 2024-03-01}}
columns:
  n: {{code: LOCAL//n, unit: "1", missing: [-9]}}
"""


@pytest.mark.parametrize(
    ("decimal", "thousands", "cell", "value"),
    [
        (",", ".", "1.234", 1234.0),
        (",", ".", "-1.234.567,5", -1234567.5),
        (",", ".", "< 1.234,5", 1234.5),
        (",", ".", "12,5", 12.5),
        (",", ".", "12.5", None),
        (",", ".", "0.500", None),
        (",", ".", "1234.567", None),
        (",", ".", "-9,0", None),
        (".", ",", "1,234.5", 1234.5),
        (".", ",", "1,5", None),
        (".", ",", "12,34,567", None),
        (".", "'", "1\N{RIGHT SINGLE QUOTATION MARK}234.5", 1234.5),
        (",", " ", "\N{MINUS SIGN}1\N{NO-BREAK SPACE}234,5", -1234.5),
        (",", " ", "> 1 234", 1234.0),
        (",", " ", "120 80", None),
    ],
)
def test_marks_between_thousands_as_the_mapping_says(
    tmp_path: Path, decimal: str, thousands: str, cell: str, value: float | None
) -> None:
    mapping = FIGURES.format(decimal=decimal, thousands=thousands)
    report, rows = load(tmp_path, f"n;m\n7;\n{cell};\n", mapping)
    found = [row["numeric_value"] for row in rows if row["numeric_value"] != 7]
    assert found == ([] if value is None else [value])
    assert report.unused == (value is None)


@pytest.mark.parametrize(
    ("cell", "comparator"), [("≤5", "<="), ("≥ 5", ">="), ("<=5", "<="), ("> 5", ">")]
)
def test_a_comparator_is_kept(tmp_path: Path, cell: str, comparator: str) -> None:
    _, rows = load(tmp_path, f"n;m\n{cell};\n", FIGURES.format(decimal=",", thousands="."))
    assert [(row["numeric_value"], row["comparator"]) for row in rows] == [(5.0, comparator)]


def test_a_mark_counts_by_its_value_however_the_table_writes_numbers(tmp_path: Path) -> None:
    mapping = VISITS.replace("name: visits", 'name: visits\ndelimiter: ";"\ndecimal: ","')
    line = "7;2020-05-01;60;F;0,0;2,0;yes;y;3\n"
    report, rows = load(tmp_path, HEADER.replace(",", ";") + line, mapping)
    assert report.reasons == {"chol: not recorded": 1}
    assert [row["text_value"] for row in rows if row["code"] == "LOCAL//pain"] == ["strong"]


def test_a_birth_after_the_line_is_none(tmp_path: Path) -> None:
    """Of 1925, written with two figures, and read as 2025."""
    mapping = VISITS.replace("{age_column: age}", '{column: age, format: "%d.%m.%y"}')
    mapping = mapping.replace("{column: date}", "{column: date}\ntimezone: Europe/Zurich")
    lines = "7,2024-05-01,12.03.25,F,200,1,yes,y,3\n8,2024-05-01,01.05.24,F,200,1,yes,y,3\n"
    report, events = load(tmp_path, HEADER + lines, mapping)
    assert report.reasons == {"birth: lies after the line's time": 1}
    births = [event["time"] for event in events if event["code"] == "MEDS_BIRTH"]
    assert births == [datetime(2024, 4, 30, 22)]
