"""HL7 v2 messages that two numbers are one patient: a feed that is believed is followed."""

import asyncio
import json
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from fedtwin_client.records.consent import Statement
from fedtwin_client.records.hl7.events import Hl7Reader
from fedtwin_client.records.hl7.lines import hl7_recipe
from fedtwin_client.records.hl7.patients import Whose
from fedtwin_client.records.hl7.text import read_message
from fedtwin_client.records.pseudonyms import Identity, Pseudonyms, pseudonym
from fedtwin_client.records.report import Place
from fedtwin_client.store.compaction import compact
from fedtwin_client.store.consents import Consents
from fedtwin_client.store.imports import import_source
from fedtwin_client.store.live import LiveStore
from fedtwin_client.store.merging import merges_wait, unmerge
from fedtwin_client.store.quarantine import export, lines_of, names, replay
from fedtwin_client.store.timeline import Timeline
from fedtwin_protocol.errors import RecordError

from .hl7_parts import NOW, OBR, SECRET, load, message, msh, obx, read

BELIEVED = Whose(merges=True)
APART = "two numbers of one patient (ADT^A40): two patients whom a person keeps apart"


def pid(number: str, born: str = "19600203", sex: str = "") -> str:
    return f"PID|1||{number}^^^HOSP^MR||DOE^JANE||{born}|{sex}"


def mrg(number: str) -> str:
    return f"MRG|{number}^^^HOSP^MR"


def of(number: str) -> int:
    return pseudonym(SECRET, Identity("HOSP", number))


def result(number: str, order: str) -> str:
    return message(msh(), pid(number, sex="F"), OBR.replace("F1^", f"{order}^"), obx("200"))


def adt(event: str, *segments: str, sent: str = "20240601000000") -> str:
    return message(msh(f"ADT^{event}", f7=sent), "EVN|A40|20240601", *segments)


MERGE = adt("A40", pid("2", sex="F"), mrg("1"))


def held(folder: Path) -> dict[int, Counter[str]]:
    found: dict[int, Counter[str]] = {}
    for event in Timeline.open(folder / "store").events().to_pylist():
        found.setdefault(event["subject_id"], Counter())[event["code"]] += 1
    return found


ONE = Counter({"LOINC//2093-3": 1, "MEDS_BIRTH": 1, "SEX": 1})
BOTH = Counter({"LOINC//2093-3": 2, "MEDS_BIRTH": 1, "SEX": 1})


@pytest.mark.parametrize("event", ["A18", "A30", "A34", "A36", "A40", "A47"])
def test_two_numbers_of_one_patient_are_one_timeline(tmp_path: Path, event: str) -> None:
    load(tmp_path, result("1", "F1"), result("2", "F2"))
    assert held(tmp_path) == {of("1"): ONE, of("2"): ONE}
    report, _ = load(tmp_path, adt(event, pid("2", sex="F"), mrg("1")), whose=BELIEVED)
    assert held(tmp_path) == {of("2"): BOTH}
    assert report.notes["patients found to be one with another"] == 1
    load(tmp_path, result("1", "F3"))  # by whatever feed: the number is the other's from now on
    assert set(held(tmp_path)) == {of("2")}


def test_what_pid_does_not_say_of_the_one_is_kept_of_the_former(tmp_path: Path) -> None:
    load(tmp_path, result("1", "F1"), adt("A08", pid("2", born="")))
    load(tmp_path, adt("A40", pid("2", born=""), mrg("1")), whose=BELIEVED)
    assert held(tmp_path) == {of("2"): ONE}


def test_a_feed_that_is_not_believed_merges_nobody(tmp_path: Path) -> None:
    load(tmp_path, result("1", "F1"), result("2", "F2"))
    report, _ = load(tmp_path, MERGE)
    reason = (
        "two numbers of one patient (ADT^A40): nothing was moved; 'merges' says that this feed may"
        " do it"
    )
    assert report.reasons[reason] == 1
    assert held(tmp_path) == {of("1"): ONE, of("2"): ONE}


@pytest.mark.parametrize(
    "event", ["A35", "A39", "A41", "A42", "A43", "A44", "A45", "A46", "A48", "A49", "A50", "A51"]
)
def test_events_about_other_things_merge_nobody(event: str) -> None:
    _, tally = read(adt(event, pid("2"), mrg("1")), whose=BELIEVED)
    assert tally.reasons == {f"two numbers of one patient (ADT^{event}): nothing was moved": 1}


@pytest.mark.parametrize(
    ("segments", "reason"),
    [
        (
            [pid("2"), "MRG|"],
            "two numbers of one patient (ADT^A40): no patient number in MRG-1",
        ),
        ([pid(""), mrg("1")], "of a patient who cannot be told"),
        ([mrg("1")], "of a patient who cannot be told"),
        (
            [pid("2"), "MRG|1^^^A^MR~3^^^B^MR"],
            "two numbers of one patient (ADT^A40): several patient numbers; say whose counts "
            "(--authority)",
        ),
    ],
)
def test_messages_that_do_not_say_who(segments: list[str], reason: str) -> None:
    _, tally = read(adt("A40", *segments), whose=BELIEVED)
    assert tally.reasons[reason] == 1


def test_several_pairs_in_one_message_and_the_same_one_again(tmp_path: Path) -> None:
    load(tmp_path, *(result(number, f"F{number}") for number in "1234"))
    pairs = adt("A40", pid("2", sex="F"), mrg("1"), pid("4", sex="F"), mrg("3"))
    load(tmp_path, pairs, whose=BELIEVED)
    assert held(tmp_path) == {of("2"): BOTH, of("4"): BOTH}
    report, _ = load(tmp_path, pairs, adt("A40", pid("2", sex="F"), mrg("2")), whose=BELIEVED)
    assert "patients found to be one with another" not in report.notes
    assert held(tmp_path) == {of("2"): BOTH, of("4"): BOTH}


def test_who_is_kept_apart_stays_so(tmp_path: Path) -> None:
    load(tmp_path, result("1", "F1"), result("2", "F2"))
    load(tmp_path, MERGE, whose=BELIEVED)
    unmerge(tmp_path / "store", of("1"), NOW)
    report, _ = load(tmp_path, MERGE, whose=BELIEVED)
    assert report.reasons[APART] == 1
    assert set(held(tmp_path)) == {of("1"), of("2")}


def test_what_was_put_aside_can_be_followed_later(tmp_path: Path) -> None:
    load(tmp_path, result("1", "F1"), result("2", "F2"))
    store, out = tmp_path / "store", tmp_path / "out.ndjson"
    load_again(tmp_path, MERGE)
    export(store, names(store)[-1], out)
    (report,) = replay(store, out, SECRET, NOW).reports
    assert report.unused == 1
    (left,) = map(json.loads, lines_of(store, names(store)[-1]))
    out.unlink()
    export(store, names(store)[-1], out)
    (report,) = replay(store, out, SECRET, NOW, merges=True).reports
    assert (left["reason"][:10], report.unused) == ("two number", 0)
    assert held(tmp_path) == {of("2"): BOTH, of("9"): ONE}


def test_no_other_source_is_believed_by_an_option(tmp_path: Path) -> None:
    store, out = tmp_path / "store", tmp_path / "out.ndjson"
    load_again(tmp_path, "MSH|no", kind="points")
    export(store, names(store)[-1], out)
    with pytest.raises(RecordError, match="only HL7 v2 messages can be replayed with merges"):
        replay(store, out, SECRET, NOW, merges=True)


def load_again(folder: Path, text: str, kind: str = "hl7") -> None:
    """A quarantine file of a feed that is not believed, with one message."""
    from fedtwin_client.records.hl7.files import hl7_files

    (folder / "m.hl7").write_text(text + "\r" + result("9", "F9"))
    recipe = hl7_recipe("hl7", Whose(), "UTC")
    from dataclasses import replace

    import_source(
        hl7_files([folder / "m.hl7"], "hl7", Whose()),
        folder / "store",
        secret=SECRET,
        now=NOW,
        source="hl7",
        zone="UTC",
        recipe=replace(recipe, kind=kind),
    )


def test_a_live_merge_holds_at_once_and_moves_soon(tmp_path: Path) -> None:
    load(tmp_path, result("1", "F1"), result("2", "F2"))
    store = tmp_path / "store"
    with Consents(store) as said:
        said.replace({"fhir:Consent/1": (of("1"), [Statement(verdict="deny")])})
        said.add_objections([of("1")], NOW)
    with LiveStore(store, SECRET, lambda: NOW) as live:
        desk = live.desk("hl7", ZoneInfo("UTC"))
        reader = Hl7Reader(desk.reading, desk.pseudonyms, BELIEVED)
        for text in (MERGE, result("1", "F3")):
            versions = reader.read(read_message(text.encode(), Place("x", 1)))
            asyncio.run(live.keep(desk)(versions))
        assert merges_wait(store)
        # Who objected under one number is out under the other before anything is moved.
        with Consents(store) as said:
            assert not said.standing(of("2"), "opt_out", NOW).takes_part
        compact(store, datetime(2026, 3, 2, tzinfo=UTC))
    assert not merges_wait(store)
    assert set(held(tmp_path)) == {of("2")}
    assert held(tmp_path)[of("2")]["LOINC//2093-3"] == 3


def test_a_merge_that_is_found_while_another_is_written_is_not_forgotten() -> None:
    people = Pseudonyms(SECRET)
    one, two, three = (Identity("s", number) for number in "123")
    people.merge(one, two)
    written = dict(people.merges)
    people.merge(two, three)
    people.settled(written)
    assert people.take_merges() == {two: three}
