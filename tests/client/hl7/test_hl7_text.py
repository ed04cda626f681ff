"""How HL7 v2 messages and files are cut: character sets, delimiters, line ends, batches, limits."""

import gzip
import tracemalloc
from pathlib import Path

import hl7
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtwin_client.records.hl7 import files as files_module
from fedtwin_client.records.hl7.files import hl7_files, messages_of
from fedtwin_client.records.hl7.patients import Whose
from fedtwin_client.records.hl7.text import read_message
from fedtwin_client.records.reading import UnusableError
from fedtwin_client.records.report import Place, Tally
from fedtwin_protocol.errors import RecordError

from .hl7_parts import OBR, PID, events, load, message, msh, obx, read, result

PLACE = Place("a.hl7", 1)
LOCAL = "GLU^Glucose^99LAB"


def answer(data: bytes, encoding: str = "utf-8") -> str:
    (event,) = events(read(data, encoding=encoding)[0])
    return str(event.text_value)


@pytest.mark.parametrize(
    ("named", "encoding"),
    [("", "utf-8"), ("UNICODE UTF-8", "utf-8"), ("8859/1", "latin-1"), ("ISO 8859-1", "latin-1"),
     ("8859/15", "iso8859-15"), ("WINDOWS-1252", "cp1252"), ("ASCII", "utf-8"),
     ("UNICODE UTF-8~8859/1", "utf-8")],
)  # fmt: skip
def test_the_character_set_is_the_one_that_is_named(named: str, encoding: str) -> None:
    text = message(msh(f18=named), PID, OBR, obx("Größe", "ST", LOCAL, ""))
    assert answer(text.encode(encoding)) == "Größe"
    assert answer(b"\xef\xbb\xbf" + text.encode(encoding)) == "Größe"


def test_a_character_set_that_is_not_named_can_be_said() -> None:
    text = message(msh(), PID, OBR, obx("Größe", "ST", LOCAL, ""))
    assert answer(text.encode("latin-1"), "latin-1") == "Größe"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not an HL7 message: it does not begin with MSH and its delimiters"),
        (b"MSH|", "not an HL7 message: it does not begin with MSH and its delimiters"),
        (b"PID|1||4711", "not an HL7 message: it does not begin with MSH and its delimiters"),
        (b"MSH|ABCD|X|Y", "delimiters in MSH-1 and MSH-2 that cannot be: expected such as |^~\\&"),
        (b"MSH|^~\\&|" + b"|" * 15 + b"EBCDIC", "the character set (MSH-18) 'EBCDIC' is not known"),
        (msh().encode() + b"\rPID|\xff", "bytes that are not utf-8, and MSH-18 names no"),
        (msh(f18="UNICODE UTF-8").encode() + b"\rPID|\xff", "bytes that are not utf-8, as MSH-18"),
    ],
)
def test_what_is_no_message_is_said(data: bytes, reason: str) -> None:
    with pytest.raises(UnusableError) as caught:
        read_message(data, PLACE)
    assert caught.value.reason.startswith(reason)


@pytest.mark.parametrize("end", ["\r", "\n", "\r\n", "\n\n", "\r\r\n"])
def test_any_line_ends(end: str, tmp_path: Path) -> None:
    text = message(msh(), PID, OBR, obx("5", unit="mmol/L"), end=end) * 2
    report, rows = load(tmp_path, text.replace("M1", "M2", 1))
    assert report.read == {"ORU^R01": 2}
    assert [row["numeric_value"] for row in rows if row["unit"]] == [5]
    assert report.notes == {}


@pytest.mark.parametrize(
    ("marks", "letters"),
    [("#!$%@", "#!$%@"), ("|^~\\&#", "|^~\\&"), ("|^", "|^~\\&"), ("|^~\\\\&", "|^~\\&")],
)
def test_other_delimiters(marks: str, letters: str) -> None:
    """Others, the truncation character of 2.7, absent ones, and a mark that was escaped twice."""
    text = result("<^5", "SN", "2093-3^Chol^LN~x", "mmol/L^^UCUM").removeprefix("MSH|^~\\&")
    written = text.translate(str.maketrans("|^~&", letters[:3] + letters[4]))
    (event,) = events(read(f"MSH{marks}{written}")[0])
    assert (event.numeric_value, event.comparator, event.unit) == (5, "<", "mmol/L")


def test_lines_without_a_name_go_on_with_the_line_before() -> None:
    text = message(msh(), PID, OBR, obx("one\ntwo|more", "TX", LOCAL, ""), end="\n")
    cut = read_message(text.encode(), PLACE)
    assert (cut.continued, cut.segments[3].name) == (1, "OBX")
    assert cut.segments[3].raw(5) == "one\ntwo" if len(cut.segments[3].fields) < 8 else True
    assert read(text)[1].notes["a line without a segment's name, read with the one before"] == 1


def test_batches_are_counted_and_checked(tmp_path: Path) -> None:
    one, two = result("5", unit="mmol/L"), result("6", unit="mmol/L").replace("F1^", "F2^")
    head = "FHS|^~\\&|LAB\rBHS|^~\\&|LAB\r"
    report, rows = load(tmp_path, f"{head}{one}{two}BTS|2\rFTS|1\r")
    assert len([row for row in rows if row["unit"]]) == 2
    assert report.notes == {}
    report, _ = load(tmp_path, f"{head}{one}{two}BTS|3\r")
    assert report.notes == {
        "a batch says another number of messages than it has": 1,
        "a batch (FHS) without its end: was the file cut off?": 1,
    }


def test_what_stands_outside_messages_is_put_aside(tmp_path: Path) -> None:
    report, _ = load(tmp_path, "hello\r" + result("5", unit="mmol/L"))
    assert report.reasons == {"a line outside any message (expected MSH)": 1}


def test_a_file_that_was_cut_off_is_noticed(tmp_path: Path) -> None:
    report, _ = load(tmp_path, result("5", unit="mmol/L").removesuffix("\r"))
    assert report.notes == {"the last line has no line end: was the file cut off?": 1}


def test_frames_of_mllp_packed_and_wide_files_are_read(tmp_path: Path) -> None:
    text = message(msh(), PID, OBR, obx("Größe", "ST", LOCAL, ""))
    framed = b"\x0b" + text.encode() + b"\x1c\r"
    for name, data in (
        ("a.hl7", framed * 2),
        ("b.hl7.gz", gzip.compress(framed, mtime=0)),
        ("c.hl7", text.encode("utf-16")),
        ("d.hl7", text.encode("utf-32")),
    ):
        (tmp_path / name).write_bytes(data)
        tally = Tally(quarantine=None)
        found = [data for _, data in messages_of(tmp_path / name, tally)]
        assert {answer(data) for data in found} == {"Größe"}
        assert not tally.reasons


def test_a_message_that_comes_twice_is_read_once(tmp_path: Path) -> None:
    report, rows = load(tmp_path, result("5", unit="mmol/L"), result("5", unit="mmol/L"))
    assert report.reasons == {"a message that comes twice": 1}
    assert len([row for row in rows if row["unit"]]) == 1


@pytest.mark.parametrize("piece", [b"x", b"x\r", b"OBX|1|TX|A^^L||x|\r"])
def test_a_message_that_is_too_large_is_not_held(
    piece: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files_module, "LARGEST", 5_000)
    monkeypatch.setattr(files_module, "_CHUNK", 1_000)
    large = msh().encode() + b"\r" + piece * (30_000 // len(piece)) + b"\r"
    good = result("5", unit="mmol/L").encode()
    report, rows = load(tmp_path, good + large + good.replace(b"F1^", b"F2^"))
    assert report.reasons == {"a message of more than 5,000 bytes": 1}
    assert len([row for row in rows if row["unit"]]) == 2


@pytest.mark.parametrize("piece", [b"x", b"x\r"])
def test_memory_stays_flat(piece: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files_module, "LARGEST", 5_000)
    monkeypatch.setattr(files_module, "_CHUNK", 20_000)
    (tmp_path / "a.hl7").write_bytes(msh().encode() + b"\r" + piece * (400_000 // len(piece)))
    tally = Tally(quarantine=None)
    tracemalloc.start()
    found = list(messages_of(tmp_path / "a.hl7", tally))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == []
    assert tally.reasons == {"a message of more than 5,000 bytes": 1}
    assert peak < 300_000


@pytest.mark.parametrize("content", [b"", b"hello", b"\x00" * 300, b"\xff\xfe\x00", b"{}"])
def test_files_without_a_message_are_refused(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"(found no HL7 message in|cannot read) "):
        load(tmp_path, content)


def test_paths_and_names_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="found no"):
        hl7_files([tmp_path / "absent"], "hl7", Whose())
    with pytest.raises(RecordError, match=r"found no file ending in \.hl7"):
        hl7_files([tmp_path], "hl7", Whose())
    (tmp_path / "a.hl7").write_text("")
    with pytest.raises(RecordError, match="expected a character set"):
        hl7_files([tmp_path], "hl7", Whose(), encoding="base64")
    with pytest.raises(RecordError, match="a-z"):
        hl7_files([tmp_path], "HL7 feed", Whose())
    (tmp_path / "b.hl7.gz").write_bytes(gzip.compress(result("5").encode())[:-9])
    with pytest.raises(RecordError, match="cannot read"):
        list(messages_of(tmp_path / "b.hl7.gz", Tally(quarantine=None)))


def test_progress_tells_every_byte(tmp_path: Path) -> None:
    (tmp_path / "a.hl7").write_text(result("5") * 10)
    read_so_far: list[int] = []
    list(messages_of(tmp_path / "a.hl7", Tally(quarantine=None), read_so_far.append))
    assert sum(read_so_far) == (tmp_path / "a.hl7").stat().st_size


_WORDS = st.text(st.sampled_from("AB7 ^~&é"), max_size=6)
_FIELDS = st.lists(_WORDS, min_size=1, max_size=6)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["PID", "OBX", "ZZ1"]), _FIELDS), max_size=4))
def test_segments_are_cut_as_python_hl7_cuts_them(lines: list[tuple[str, list[str]]]) -> None:
    text = message(msh(), *["|".join([name, *fields]) + "|end" for name, fields in lines])
    ours, theirs = read_message(text.encode(), PLACE), hl7.parse(text)
    assert [segment.name for segment in ours.segments] == [str(line[0]) for line in theirs]
    for mine, line in zip(ours.segments, theirs, strict=True):
        assert [mine.raw(n) for n in range(1, len(line))] == [
            str(line[n]) for n in range(1, len(line))
        ]
