"""HL7 v2 results: values, units, codes, times, and what replaces what."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from .hl7_parts import OBR, PID, events, load, message, msh, obx, read, result


def only(*args: str, **kwargs: str) -> tuple[float | None, str | None, str | None, str | None]:
    """The one event of a result."""
    versions, tally = read(result(*args, **kwargs))
    (event,) = events(versions)
    assert tally.reasons == {}
    return event.numeric_value, event.text_value, event.unit, event.comparator


LOCAL = "GLU^Glucose^99LAB"


@pytest.mark.parametrize(
    ("value", "kind", "code", "unit", "made"),
    [
        ("5.2", "NM", "2093-3^^LN", "mmol/L", (5.2, None, "mmol/L", None)),
        ("<5", "NM", "2093-3^^LN", "mmol/L", (5.0, None, "mmol/L", "<")),
        ("-1.5e1", "NM", LOCAL, "K/uL", (-15.0, None, "10*3/uL", None)),
        ("<^5", "SN", "2093-3^^LN", "mmol/L", (5.0, None, "mmol/L", "<")),
        (">=^5", "SN", "2093-3^^LN", "mmol/L", (5.0, None, "mmol/L", ">=")),
        ("^5", "SN", "2093-3^^LN", "mmol/L", (5.0, None, "mmol/L", None)),
        ("=^5", "SN", "2093-3^^LN", "mmol/L", (5.0, None, "mmol/L", None)),
        ("^1^:^128", "SN", LOCAL, "", (None, "1:128", None, None)),
        ("^10^-^20", "SN", LOCAL, "", (None, "10-20", None, None)),
        ("^2^+", "SN", LOCAL, "", (None, "2+", None, None)),
        ("5.2", "ST", "2093-3^^LN", "mmol/L", (5.2, None, "mmol/L", None)),
        ("< 0.01", "ST", LOCAL, "ng/mL", (0.01, None, "ng/mL", "<")),
        ("12345", "ST", LOCAL, "", (None, "12345", None, None)),
        ("a^b", "ST", LOCAL, "", (None, "a^b", None, None)),
        ("260385009^Negative^SCT", "CWE", LOCAL, "", (None, "SNOMED//260385009", None, None)),
        ("N^^99LAB^260385009^^SCT", "CE", LOCAL, "", (None, "SNOMED//260385009", None, None)),
        ("^seen in both", "CWE", LOCAL, "", (None, "seen in both", None, None)),
        ("Y^Yes^HL70136", "CWE", LOCAL, "", (1.0, "HL70136//Y", None, None)),
        ("N^No^HL70136", "CWE", LOCAL, "", (0.0, "HL70136//N", None, None)),
        ("POS", "IS", LOCAL, "", (None, "POS", None, None)),
        ("line one~line two", "TX", LOCAL, "", (None, "line one\nline two", None, None)),
        (r"A\.br\B\T\C \F\ \S\ \R\ \E\ \X41\ \Zx\ ", "FT", LOCAL, "",
         (None, "A\nB&C | ^ ~ \\ A \\Zx\\", None, None)),
        ("20240102", "DT", LOCAL, "", (None, "2024-01-02", None, None)),
        ("202401021530", "TS", LOCAL, "", (None, "2024-01-02T15:30", None, None)),
        ("1530", "TM", LOCAL, "", (None, "15:30", None, None)),
    ],
)  # fmt: skip
def test_a_value_of_every_type(
    value: str, kind: str, code: str, unit: str, made: tuple[object, ...]
) -> None:
    assert only(value, kind, code, unit) == made


@pytest.mark.parametrize(
    ("unit", "value"),
    [("mg/dL", 193.35), ("mg/dl^^UCUM", 193.35), ("^mg/dL", 193.35), ("X^Y^L^mmol/L^^UCUM", 5.0),
     ("mmol.l-1", 5.0), ("MMOL/L", 5.0)],
)  # fmt: skip
def test_units_of_a_known_code_are_understood_and_converted(unit: str, value: float) -> None:
    number, _, kept, _ = only(str(value), "NM", "2093-3^^LN", unit)
    assert kept == "mmol/L"
    assert number == pytest.approx(5.0, rel=1e-3)


@pytest.mark.parametrize(
    ("segment", "reason"),
    [
        (obx("high"), "expected a number, found text"),
        (obx("5", unit=""), "no unit for total cholesterol, which is kept in mmol/L"),
        (obx("5", unit="furlong"), "unit 'furlong' is not known for total cholesterol"),
        (obx("5", unit="kg"), "unit 'kg' does not fit total cholesterol, kept in mmol/L"),
        (obx("5", unit="m" * 400), "expected a unit, found a long text"),
        (obx("5", code="A" * 3_000), "no code"),
        (obx("1e999"), "expected a finite number"),
        (obx("9" * 390), "expected a finite number"),
        (obx("NaN"), "expected a number, found text"),
        (obx("~<>^5", "SN"), "a comparator that is not known"),
        (obx("^1^:^2", "SN"), "expected a number, found a range, ratio or grade"),
        (obx("A^B^L", "CWE"), "expected a number, found a coded answer"),
        (obx("3", code=""), "no code"),
        (obx("3", code="^Cholesterol^LN"), "no code"),
        (obx("3", status="Q"), "a result status (OBX-11) that is none of HL7 table 0085"),
        (obx("3", f14="20249999"), "a time that cannot be read"),
        (obx("3", f14="29990101"), "lies in the future"),
        (obx("3", f14="10660101"), "lies before 1870"),
        (obx("20241399", "DT", LOCAL), "expected a date or time, found something else"),
    ],
)
def test_what_is_wrong_is_put_aside(segment: str, reason: str) -> None:
    versions, tally = read(message(msh(), PID, OBR, segment, obx("5", sub="2")))
    assert tally.reasons == {reason: 1}
    assert len(events(versions)) == 1


def test_what_is_put_aside_is_kept_with_its_file_and_line(tmp_path: Path) -> None:
    report, rows = load(tmp_path, message(msh(), PID, OBR, obx("high"), obx("200", sub="2")))
    assert report.examples == {"expected a number, found text": ("0.hl7:4",)}
    assert report.quarantine is not None
    (kept,) = map(json.loads, report.quarantine.read_text().splitlines())
    assert (kept["file"], kept["line"]) == ("0.hl7", 1)  # the message, as a whole
    assert kept["raw"].split("\n")[3] == obx("high")
    assert len([row for row in rows if row["code"] == "LOINC//2093-3"]) == 1


@pytest.mark.parametrize(
    ("segment", "reason"),
    [
        (obx(""), "no value was recorded"),
        (obx('""'), "no value was recorded"),
        (obx("", status="I"), "no result yet (specimen in the laboratory)"),
        (obx("x", "ED", LOCAL), "values of type ED are not read"),
        (obx("", status="O"), "describes the order, no result"),
        (obx("5", status="D"), "withdrawn (deleted)"),
        (obx("5", status="W"), "withdrawn (wrong)"),
        (obx("5", status="X"), "withdrawn (no result can be had)"),
    ],
)
def test_what_is_absent_or_withdrawn_is_counted(segment: str, reason: str) -> None:
    versions, tally = read(message(msh(), PID, OBR, segment))
    assert events(versions) == []
    assert tally.reasons == {reason: 1}


@pytest.mark.parametrize(
    ("status", "kept"),
    [("F", "final"), ("C", "corrected"), ("P", "preliminary"), ("R", "preliminary"),
     ("S", "preliminary"), ("A", "amended"), ("U", "final")],
)  # fmt: skip
def test_the_status_is_in_words(status: str, kept: str) -> None:
    (event,) = events(read(result("5", status=status))[0])
    assert event.status == kept


def test_a_status_is_taken_from_the_order_or_missed() -> None:
    (event,) = events(read(result("5", status=""))[0])
    assert event.status == "final"
    versions, tally = read(message(msh(), PID, OBR.removesuffix("|||F"), obx("5", status="")))
    assert events(versions)[0].status is None
    assert tally.notes == {"a result without its status (OBX-11)": 1}


def test_times_and_when_they_were_known() -> None:
    def times(*segments: str, **fields: str) -> tuple[datetime, datetime]:
        (event,) = events(read(message(msh(**fields), PID, *segments))[0])
        return event.time, event.available_time

    def at(hour: int, minute: int = 0, day: int = 1) -> datetime:
        return datetime(2024, 5, 1, hour, minute, tzinfo=UTC) + timedelta(days=day - 1)

    bare = "OBR|1||F1|P^^L|||20240501080000"
    assert times(OBR, obx("5")) == (at(8), at(9, 30))
    assert times(OBR, obx("5", f14="20240501070000", f19="20240501100000")) == (at(7), at(10))
    assert times(OBR, obx("5", f19="20240501090000")) == (at(8), at(9, 30))
    assert times(bare, obx("5")) == (at(8), at(9, 31))
    # An analysis (OBX-19) is no report, and a day's report is one of the hour when it is sent.
    assert times(bare, obx("5", f19="20240501090000")) == (at(8), at(9, 31))
    assert times(OBR.replace("20240501093000", "20240501"), obx("5")) == (at(8), at(9, 31))
    assert times(bare, obx("5", f14="20240430")) == (at(0, day=0), at(9, 31))
    # A correction repeats the times of what it corrects.
    corrected = obx("5", status="C", f19="20240501090000")
    assert times(OBR, corrected, f7="20240502160000") == (at(8), at(16, day=2))
    assert times(bare, obx("5", f14="20240501120000")) == (at(12), at(12))
    assert times(bare, obx("5"), f7="20990101000000") == (at(8), at(8))
    assert times("OBR|1||F1|P^^L", obx("5"), "SPM|1||||||||||||||||20240501060000") == (
        at(6),
        at(9, 31),
    )


def test_a_specimen_before_its_orders_and_by_itself() -> None:
    first, second = (f"SPM|{n}{'|' * 16}202405010{n}0000" for n in (6, 7))
    bare = "OBR|1||F{n}|P^^L"
    text = message(
        *(msh("OUL^R22"), PID, first, obx("1", sub="a"), bare.format(n=1), obx("2")),
        *(second, bare.format(n=2), obx("3")),
    )
    assert [f"{event.time:%H}" for event in events(read(text)[0])] == ["06", "06", "07"]


def test_zones_of_times() -> None:
    def hour(written: str, sent: str = "20240501120000", zone: str = "Europe/Oslo") -> str:
        text = message(msh(f7=sent), PID, OBR, obx("5", f14=written))
        (event,) = events(read(text, zone=zone)[0])
        return f"{event.time:%m-%dT%H:%M}"

    assert hour("20240501080000") == "05-01T06:00"
    assert hour("20240501080000-0500") == "05-01T13:00"
    assert hour("20240501080000", "20240501120000-0500") == "05-01T13:00"
    # The sender's offset is that of the hospital's own zone, where winter has another one.
    assert hour("20240101080000", "20240501120000+0200") == "01-01T07:00"
    assert hour("20240501", "20240501120000+0200") == "04-30T22:00"
    assert hour("2024050108") == "05-01T06:00"
    assert hour("20240501080000.1234") == "05-01T06:00"


def test_a_correction_a_withdrawal_and_a_repetition_replace(tmp_path: Path) -> None:
    def sent(minute: int, *segments: str) -> str:
        return message(msh(f7=f"2024050110{minute:02}00", number=f"M{minute}"), PID, OBR, *segments)

    first = sent(1, obx("190", sub="1"), obx("200", sub="2"), obx("210", sub="3"))
    second = sent(2, obx("195", sub="1", status="C"), obx("", sub="2", status="D"))
    _, rows = load(tmp_path, first + second + first)
    values = [(row["src_unit"], row["status"], round(row["numeric_value"], 2)) for row in rows
              if row["code"].startswith("LOINC")]  # fmt: skip
    assert sorted(values) == [("mg/dL", "corrected", 5.04), ("mg/dL", "final", 5.43)]


def test_a_late_older_message_changes_nothing(tmp_path: Path) -> None:
    old = message(msh(f7="20240501100000"), PID, OBR, obx("190"))
    new = message(msh(f7="20240501110000"), PID, OBR, obx("", status="W"))
    _, rows = load(tmp_path, new + old)
    assert [row["code"] for row in rows if row["code"].startswith("LOINC")] == []


def test_a_pending_result_leaves_an_earlier_one() -> None:
    versions, _ = read(result("190"), message(msh(), PID, OBR, obx("", status="I")))
    assert [version.origin.startswith("hl7:result") for version in versions].count(True) == 1


def test_several_orders_and_panels_and_no_order_are_kept_apart() -> None:
    other = OBR.replace("F1^LAB", "F2^LAB")
    panel = OBR.replace("24331-1", "57698-3")
    text = message(msh(), PID, OBR, obx("1"), other, obx("2"), panel, obx("3"))
    versions, _ = read(text)
    assert len({version.origin for version in versions if events([version])}) == 3
    bare = "OBR|1|||P^^L|||20240501080000"
    text = message(msh(), PID, bare, obx("1"), obx("2", f14="20240501090000"))
    assert len([version for version in read(text)[0] if events([version])]) == 2


def test_repetitions_and_lines_of_one_result_are_all_kept() -> None:
    versions, _ = read(message(msh(), PID, OBR, obx("60~120", code="8867-4^^LN", unit="/min")))
    assert [event.numeric_value for event in events(versions)] == [60, 120]
    lines = [obx(text, "TX", LOCAL, "") for text in ("Report", "", "of two lines")]
    versions, tally = read(message(msh(), PID, OBR, *lines))
    assert [event.text_value for event in events(versions)] == ["Report\nof two lines"]
    assert tally.reasons == {"no value was recorded": 1}
    assert len({event.source for event in events(versions)}) == 1


def test_codes_by_their_systems_and_their_sender() -> None:
    def code(written: str) -> str:
        (event,) = events(read(result("5", "NM", written, "mmol/L"))[0])
        return str(event.code)

    assert code("2093-3^^LN") == "LOINC//2093-3"
    assert code("CHOL^^99LAB^2093-3^^LN") == "LOINC//2093-3"
    assert code("38483-4^^2.16.840.1.113883.6.1") == "LOINC//38483-4"
    assert code("271649006^^SCT") == "SNOMED//271649006"
    assert code("CHOL^^99LAB") == "99LAB@LAB//CHOL"
    assert code("CHOL^^L") == "LOCAL@LAB//CHOL"
    assert code("CHOL") == "LOCAL@LAB//CHOL"
    _, tally = read(result("5", "NM", "2093-3^Chol", "mmol/L"))
    assert tally.notes == {
        "code of a local vocabulary": 1,
        "a code that looks like LOINC, but names no coding system (OBX-3)": 1,
    }


def test_results_without_a_patient_are_counted() -> None:
    versions, tally = read(message(msh(), OBR, obx("5")))
    assert (versions, tally.reasons) == ([], {"of a patient who cannot be told": 1})


def test_several_patients_in_one_message() -> None:
    other = PID.replace("4711", "4712")
    text = message(msh(), PID, OBR, obx("190"), other, OBR.replace("F1^", "F2^"), obx("200"))
    found = events(read(text)[0])
    assert len({event.subject_id for event in found}) == 2
