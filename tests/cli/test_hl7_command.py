"""`fedtwin client records hl7`: an archive comes in; what is wrong with it is said in words."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

HEAD = "MSH|^~\\&|LAB|HOSP|||20240501093100||{kind}|M1|P|2.5\r"
PERSON = "PID|1||{number}||DOE^JANE||19600203|F\r"
RESULT = "OBR|1||{order}|P^^L|||20240501080000\rOBX|1|NM|2093-3^Chol^LN||200|{unit}|||||F\r"
GOOD = (
    HEAD.format(kind="ORU^R01")
    + PERSON.format(number="4711^^^HOSP^MR")
    + RESULT.format(order="F1", unit="mg/dL")
)


@pytest.fixture
def archive(node: Path, tmp_path: Path, type_in: Callable[..., Any]) -> Callable[..., Any]:
    """Import messages from a folder; returns how the command ended."""

    def run(*messages: str | bytes, options: tuple[str, ...] = ()) -> Any:
        folder = tmp_path / "archive"
        folder.mkdir(exist_ok=True)
        for number, text in enumerate(messages):
            data = text if isinstance(text, bytes) else text.encode()
            (folder / f"{number}.hl7").write_bytes(data)
        return type_in("client", "records", "hl7", folder, "--home", node, *options)

    return run


def test_an_archive_comes_in_and_is_accounted_for(archive: Callable[..., Any]) -> None:
    wrong = GOOD.replace("F1|", "F2|").replace("|200|mg/dL", "|high|mg/dL")
    unknown = GOOD.replace("F1|", "F3|").replace("mg/dL", "furlong")
    other = HEAD.format(kind="SIU^S12") + PERSON.format(number="4711^^^HOSP^MR")
    ended = archive(GOOD, GOOD + wrong + unknown + other)
    assert ended.status == 0, ended.err
    for line in (
        "read           1 SIU^S12",
        "read           3 ORU^R01",
        "patients       1",
        "events         3",
        "1  a message that comes twice",
        "1  expected a number, found text",
        "1  unit 'furlong' is not known for total cholesterol",
        "1  messages SIU^S12 are not read",
        "put aside in",
    ):
        assert line in ended.out, ended.out


def test_options_lead_to_the_patient(archive: Callable[..., Any]) -> None:
    several = GOOD.replace("4711^^^HOSP^MR", "4711^^^HOSP^MR~0815^^^OTHER^MR")
    assert "several patient numbers; say whose counts (--authority)" in archive(several).out
    options = ("--authority", "OTHER", "--identifier-system", "http://h/mrn", "--feed", "lab")
    assert "events         3" in archive(several, options=options).out


@pytest.mark.parametrize(
    ("content", "options", "says"),
    [
        ("", (), "found no HL7 message"),
        ("hello\r", (), "found no HL7 message"),
        (b"\xff\xfe\x00", (), "cannot read"),
        (GOOD, ("--feed", "Lab 1"), "a-z"),
        (GOOD, ("--zone", "Mars"), "expected a time zone"),
        (GOOD, ("--encoding", "hex"), "expected a character set"),
    ],
)
def test_what_cannot_be_imported_is_refused(
    archive: Callable[..., Any], content: str | bytes, options: tuple[str, ...], says: str
) -> None:
    ended = archive(content, options=options)
    assert (ended.status, "Traceback" in ended.err) == (2, False), ended
    assert ended.err.startswith("fedtwin: ")
    assert says in ended.err


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (GOOD.replace("JANE", "JOSÉ").encode("latin-1"), "bytes that are not utf-8"),
        (GOOD[:40], "the last line has no line end: was the file cut off?"),
        (GOOD.replace("|M1|P|2.5", "|M1|P|2.5||||||KOI8"), "the character set (MSH-18) 'KOI8'"),
        (GOOD.replace("20240501080000", "20241350080000"), "a time that cannot be read"),
        (GOOD.replace("^~\\&", "ABCD"), "delimiters in MSH-1 and MSH-2 that cannot be"),
        (GOOD + "OBX|" + "&" * 100_000 + "^" * 100_000 + "\r", "no code"),
    ],
)
def test_what_is_wrong_in_a_message_is_said(
    archive: Callable[..., Any], content: str | bytes, says: str
) -> None:
    ended = archive(content)
    assert ended.status == 0, ended.err
    assert says in ended.out, ended.out
