"""HL7 v2 of any kind: whatever stands in it, an import goes on and everything is accounted for."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fedtwin_client.records.hl7.files import ENDINGS, find_messages, hl7_files, messages_of
from fedtwin_client.records.hl7.patients import Whose
from fedtwin_client.records.hl7.text import read_message
from fedtwin_client.records.reading import UnusableError
from fedtwin_client.records.report import Place, Tally
from fedtwin_client.store.imports import import_source
from fedtwin_client.store.timeline import Timeline

from .hl7_parts import NOW, OBR, PID, SECRET, events, message, msh, obx, read

SHARED = Path(__file__).parents[4] / "shared" / "data" / "hl7v2_shared"
PLACE = Place("a.hl7", 1)
_ODD = st.one_of(
    st.sampled_from(
        ["", '""', "5", "<5", "^5", "<^5", "1e999", "20240501", "20241350", "20240501080000+9999",
         "2093-3^Chol^LN", "^^LN", "^^^^^", "&&&", "~~~", "\\X\\", "\\XZZ\\", "\x00", "é" * 9,
         "mg/dL", "F", "D", "NM", "SN", "CWE", "TX", "M", "4711^^^HOSP^MR", "A~B~C", "-", "|", "\n"]
    ),
    st.text(max_size=8),
)  # fmt: skip
_NAMES = ("PID", "OBR", "OBX", "ORC", "RXE", "RXA", "RXD", "RXO", "DG1", "MRG", "SPM", "PV1", "ZZZ")


def plain_segments() -> Iterator[list[str]]:
    for line in (PID, OBR, obx("5"), "ORC|NW|P1|F1||||||20240301", "RXE||617314^^RXNORM"):
        yield line.split("|")
    yield ["RXA", "0", "1", "20240302", "", "617314^^RXNORM"]
    yield ["DG1", "1", "", "I21.9^^I10", "x", "20240301", "F"]


@st.composite
def odd_messages(draw: st.DrawFn) -> str:
    kinds = ["ORU^R01", "OUL^R22", "ADT^A01", "ADT^A40", "RDE^O11", "RDS^O13", "RAS^O17", "X", ""]
    head = msh(draw(st.sampled_from(kinds)), f7=draw(_ODD), f3=draw(_ODD)).replace("\n", "")
    lines = [head]
    for fields in draw(st.lists(st.sampled_from(list(plain_segments())), max_size=6)):
        changed = [*fields, *[""] * draw(st.integers(0, 20))]
        for number in draw(st.lists(st.integers(0, len(changed) - 1), max_size=3)):
            changed[number] = draw(st.sampled_from(_NAMES)) if number == 0 else draw(_ODD)
        lines.append("|".join(changed))
    return message(*lines)


@settings(max_examples=80, deadline=None)
@given(odd_messages())
def test_every_line_of_an_odd_message_is_used_or_counted(text: str) -> None:
    data = text.encode("utf-8", "surrogatepass")
    try:
        versions, tally = read(data)
    except UnusableError:
        return
    cut = read_message(data, PLACE)
    for version in versions:
        assert version.origin.count("#") == 0
        sources = [event.source for event in version.events]
        assert all(source.startswith(f"{version.origin}#") for source in sources)
        assert len(set(sources)) == len(sources)
        for event in version.events:
            assert event.time is None or event.time <= NOW
            assert (
                event.available_time is None
                or event.time is None
                or (event.time <= event.available_time <= NOW)
            )
            assert event.numeric_value is None or abs(event.numeric_value) < float("inf")
    if cut.kind[:3] in {"ORU", "OUL", "ADT"} and "A29" not in cut.kind:
        results = [one for one in cut.segments if one.name == "OBX"]
        made = len(events(versions)) + sum(tally.reasons.values())
        texts = sum(one.raw(2) in {"TX", "FT"} for one in results)
        assert made + texts >= len(results)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200))
@example(b"MSH|^~\\&|" + b"|" * 200_000)
@example(b"MSH|^~\\&|" + b"\\" * 50_000)
@example(b"MSH|^~\\&|||||||ORU^R01\r" + b"x\r" * 200_000)
@example(b"MSH|^~\\&||||||||ORU^R01\rPID|||" + b"^" * 50_000 + b"&" * 50_000 + b"~" * 50_000)
def test_any_bytes_make_a_message_or_a_reason(data: bytes) -> None:
    for start in (b"", b"MSH|^~\\&|"):
        with suppress(UnusableError):
            read(start + data)


@settings(max_examples=60, deadline=None)
@given(
    data=st.lists(
        st.sampled_from(
            [
                b"MSH|^~\\&|A\r",
                b"MSH",
                b"\r",
                b"\n",
                b"FHS|",
                b"BTS|9\r",
                b"\x0b",
                b"x",
                b"PID|1\r\n",
                b"\xef\xbb\xbf",
            ]
        ),
        max_size=15,
    )
)
def test_every_line_of_any_file_is_in_a_message_or_counted(
    data: list[bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.getbasetemp() / "odd.hl7"
    file.write_bytes(b"".join(data))
    tally = Tally(quarantine=None)
    found = list(messages_of(file, tally))
    starts = [place.line for place, _ in found]
    assert starts == sorted(set(starts))
    outside = sum(tally.reasons.values())
    assert bool(found) or outside == 0 or tally.reasons


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data sets are not here")
def test_all_shared_messages_come_in_or_are_counted(tmp_path: Path) -> None:
    files = find_messages([SHARED])
    assert len(files) == 128
    report = import_source(
        hl7_files([SHARED], "hl7", Whose()),
        tmp_path / "store",
        secret=SECRET,
        now=NOW,
        source="hl7",
        zone="UTC",
    )
    assert sum(report.read.values()) == 128
    rows = Timeline.open(tmp_path / "store").events().to_pylist()
    assert len(rows) == report.events == 48
    values = {(row["code"], row["numeric_value"], row["unit"]) for row in rows if row["unit"]}
    # LAB-ORU-1 has a byte-order mark, two panels, pending results and units of ISO+.
    assert ("LOINC//11273-0", 4.06, "10*12/L") in values
    assert ("LOINC//11125-2", 221, "10*9/L") in values
    assert ("LOINC//23761-0", 72, "%") in values
    # ORU-R01-RMGEAD has '^182' as SN, and names no coding system.
    assert ("LOCAL@GHH LAB//1554-5", 182, "mg/dL") in values
    assert {row["code"] for row in rows} >= {"RXNORM//308191", "SNOMED//422504002", "MEDS_DEATH"}


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data sets are not here")
def test_every_result_of_the_shared_messages_is_accounted_for() -> None:
    """Each OBX of a message whose results are read makes events, or one reason more."""
    for file in find_messages([SHARED]):
        for place, data in messages_of(file, Tally(quarantine=None)):
            cut = read_message(data, place)
            if cut.kind[:3] not in {"ORU", "OUL", "ADT"} or "A29" in cut.kind:
                continue
            alone = [
                cut.segments[0],
                *(one for one in cut.segments if one.name in {"PID", "OBR", "OBX"}),
            ]
            text = message(*(one.written() for one in alone))
            versions, tally = read(text)
            results = sum(one.name == "OBX" for one in alone)
            values = {event.source.partition("#")[0] for event in events(versions)}
            orders = tally.reasons.get("an order without results", 0)
            assert sum(tally.reasons.values()) - orders + len(values) >= results, file.name


def test_a_folder_is_searched_for_the_endings_of_hl7(tmp_path: Path) -> None:
    for ending in (*ENDINGS, ".txt"):
        (tmp_path / f"a{ending}").write_text("")
    assert len(find_messages([tmp_path])) == len(ENDINGS)
