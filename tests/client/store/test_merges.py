"""Patients under several identifiers: one timeline, from every source, and two again if need be."""

import asyncio
import json
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from fedtwin_client.records.consent import Statement
from fedtwin_client.records.merges import Merges
from fedtwin_client.records.moments import read_zone
from fedtwin_client.records.pseudonyms import Identity, Pseudonyms, pseudonym
from fedtwin_client.records.report import ImportReport
from fedtwin_client.records.source import Version
from fedtwin_client.store import merging
from fedtwin_client.store.compaction import compact
from fedtwin_client.store.consents import Consents
from fedtwin_client.store.erasure import erase_patient
from fedtwin_client.store.imports import import_fhir, import_table
from fedtwin_client.store.live import LiveStore
from fedtwin_client.store.merging import finish_merges, unmerge
from fedtwin_client.store.timeline import Timeline
from fedtwin_protocol.errors import RecordError

NOW = datetime(2026, 3, 1, tzinfo=UTC)
SECRET = b"\x07" * 32
MRN, OLD = "http://h/mrn", "http://h/old"


def patient(number: str, *links: tuple[str, str], **more: Any) -> dict[str, Any]:
    linked = [{"type": kind, "other": {"reference": f"Patient/{to}"}} for kind, to in links]
    return {
        "resourceType": "Patient",
        "id": number,
        "birthDate": "1960-02-03",
        "link": linked,
    } | more


def mrn(*numbers: tuple[str, str]) -> dict[str, Any]:
    return {"identifier": [{"system": system, "value": value} for system, value in numbers]}


def observation(number: int, who: str) -> dict[str, Any]:
    return {
        "resourceType": "Observation",
        "id": f"{who}-{number}",
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": "2093-3"}]},
        "subject": {"reference": f"Patient/{who}"},
        "effectiveDateTime": "2024-05-01",
        "valueQuantity": {"value": 200, "unit": "mg/dL"},
    }


def load(folder: Path, *resources: dict[str, Any], **options: Any) -> ImportReport:
    file = folder / "records.ndjson"
    file.write_text("".join(json.dumps(item) + "\n" for item in resources))
    return import_fhir([file], folder / "store", secret=SECRET, now=NOW, **options)


def of(number: str) -> int:
    return pseudonym(SECRET, Identity("fhir", f"Patient/{number}"))


def held(folder: Path) -> dict[int, Counter[str]]:
    """How often each patient has each code."""
    found: dict[int, Counter[str]] = {}
    for event in Timeline.open(folder / "store").events().to_pylist():
        found.setdefault(event["subject_id"], Counter())[event["code"]] += 1
    return found


@pytest.mark.parametrize(
    ("links", "whole"),
    [
        ({"a": [("replaced-by", "b")]}, "b"),
        ({"b": [("replaces", "a")]}, "b"),
        ({"a": [("replaced-by", "b")], "b": [("replaces", "a")]}, "b"),
        ({"a": [("refer", "b")]}, "b"),
        ({"a": [("seealso", "b")], "b": [("seealso", "a")]}, "a"),
        ({"b": [("seealso", "a")]}, "a"),
    ],
)
@pytest.mark.parametrize("order", ["ab", "ba"])
def test_linked_patients_are_one_timeline(
    tmp_path: Path, links: dict[str, Any], whole: str, order: str
) -> None:
    people = [patient(one, *links.get(one, [])) for one in order]
    report = load(tmp_path, observation(1, "a"), observation(2, "b"), *people)
    assert held(tmp_path) == {of(whole): Counter({"LOINC//2093-3": 2, "MEDS_BIRTH": 1})}
    assert report.notes == {"patients found to be one with another": 1}
    assert report.patients == 1


def test_a_link_that_is_met_late_joins_them_as_one_that_is_met_first(tmp_path: Path) -> None:
    people = [patient("a", ("replaced-by", "b")), patient("b")]
    others = [observation(number, "ab"[number % 2]) for number in range(2_000)]
    others[7]["valueQuantity"] = {"value": "much", "unit": "mg/dL"}
    found = []
    for name, resources in (("first", [*people, *others]), ("late", [*others, *people])):
        (tmp_path / name).mkdir()
        report = load(tmp_path / name, *resources)
        assert report.quarantine is not None
        aside = [json.loads(line) for line in report.quarantine.read_text().splitlines()]
        folder = tmp_path / name / "store" / "quarantine"
        found.append(
            (
                held(tmp_path / name),
                Timeline.open(tmp_path / name / "store").events().to_pylist(),
                (report.events, report.patients, report.read, report.reasons, report.notes),
                [(line["reason"], line["raw"]) for line in aside],
                sorted(file.suffix for file in folder.iterdir()),
            )
        )
    assert found[0] == found[1]
    assert set(found[1][0]) == {of("b")}


def test_patients_that_replace_each_other_are_one(tmp_path: Path) -> None:
    load(
        tmp_path,
        patient("a", ("replaced-by", "b")),
        patient("b", ("replaced-by", "a")),
        observation(1, "a"),
        observation(2, "b"),
    )
    assert held(tmp_path) == {of("b"): Counter({"LOINC//2093-3": 2, "MEDS_BIRTH": 1})}


def test_what_was_imported_before_moves_and_what_comes_later_follows(tmp_path: Path) -> None:
    load(tmp_path, patient("a"), patient("b"), observation(1, "a"), observation(2, "b"))
    assert set(held(tmp_path)) == {of("a"), of("b")}
    load(tmp_path, patient("a", ("replaced-by", "b")))
    load(tmp_path, observation(3, "a"))
    assert held(tmp_path) == {of("b"): Counter({"LOINC//2093-3": 3, "MEDS_BIRTH": 1})}
    again = load(tmp_path, patient("a", ("replaced-by", "b")), observation(1, "a"))
    assert again.notes == {}
    assert held(tmp_path) == {of("b"): Counter({"LOINC//2093-3": 3, "MEDS_BIRTH": 1})}


def test_chains_lead_to_the_last(tmp_path: Path) -> None:
    load(tmp_path, patient("a", ("replaced-by", "b")), patient("b"), observation(1, "a"))
    load(tmp_path, patient("b", ("replaced-by", "c")), patient("c"), observation(2, "c"))
    assert held(tmp_path) == {of("c"): Counter({"LOINC//2093-3": 2, "MEDS_BIRTH": 1})}


def test_unmerging_brings_back_what_was_moved_and_keeps_them_apart(tmp_path: Path) -> None:
    load(tmp_path, patient("a"), patient("b"), observation(1, "a"), observation(2, "b"))
    before = held(tmp_path)
    linked = patient("a", ("replaced-by", "b"))
    load(tmp_path, linked)
    with Consents(tmp_path / "store") as consents:
        consents.add_objections([of("b")], NOW)
    assert unmerge(tmp_path / "store", of("a"), NOW) == 1  # the birth is the other's by now
    report = load(tmp_path, linked)
    assert report.notes == {"two patients whom a person keeps apart": 1}
    assert held(tmp_path) == before
    with Consents(tmp_path / "store") as consents:
        assert consents.standing(of("a"), "opt_out", NOW).objected
    with pytest.raises(RecordError, match="was not merged"):
        unmerge(tmp_path / "store", of("a"), NOW)


def test_consents_and_objections_of_one_hold_for_the_whole(tmp_path: Path) -> None:
    load(tmp_path, patient("a"), patient("b"))
    deny = {"fhir:Consent/1": (of("a"), [Statement(verdict="deny")])}
    with Consents(tmp_path / "store") as consents:
        consents.replace(deny)
        consents.add_objections([of("a")], NOW)
    load(tmp_path, patient("a", ("replaced-by", "b")))
    with Consents(tmp_path / "store") as consents:
        found = consents.standing(of("b"), "opt_out", NOW)
    assert (found.verdicts, bool(found.objected), found.takes_part) == (("deny",), True, False)


def test_erasing_one_erases_the_person_and_no_import_brings_them_back(tmp_path: Path) -> None:
    everything = [patient("a", ("replaced-by", "b")), patient("b"), observation(1, "a")]
    load(tmp_path, *everything, patient("c"))
    erase_patient(tmp_path / "store", of("b"), NOW)
    assert set(held(tmp_path)) == {of("c")}
    assert Merges(tmp_path / "store").all() == []
    report = load(tmp_path, *everything, observation(2, "b"))
    assert set(held(tmp_path)) == {of("c")}
    assert report.notes["a patient who is erased here is one with another"] == 1


def test_a_link_to_somebody_erased_merges_nobody(tmp_path: Path) -> None:
    load(tmp_path, patient("a"), patient("b"))
    erase_patient(tmp_path / "store", of("a"), NOW)
    load(tmp_path, patient("a", ("replaced-by", "b")), patient("b"), observation(1, "a"))
    assert held(tmp_path) == {of("b"): Counter({"MEDS_BIRTH": 1})}


def test_links_that_lead_nowhere_are_told(tmp_path: Path) -> None:
    odd = [{"type": "x", "other": {"reference": "Patient/b"}}, {"other": 3}, None, {}]
    report = load(
        tmp_path,
        patient("a", link=odd),
        patient("b", ("replaced-by", "z"), **mrn((MRN, "2"))),
        patient("c", link="x"),
        identifier_system=MRN,
    )
    assert report.notes == {"a link to a Patient that is not known": 1}
    report = load(tmp_path, patient("a", link=odd))
    assert report.notes == {"a link to something else than a Patient": 4}


def test_of_several_systems_the_first_counts_and_the_others_lead_to_it(tmp_path: Path) -> None:
    both = [MRN, OLD]
    load(tmp_path, patient("q", **mrn((OLD, "o7"))), observation(1, "q"), identifier_system=both)
    known_by_old = pseudonym(SECRET, Identity(OLD, "o7"))
    assert set(held(tmp_path)) == {known_by_old}
    table = tmp_path / "t.csv"
    table.write_text("id,day,chol\no7,2024-01-01,200\n")
    mapping = tmp_path / "t.yaml"
    mapping.write_text(
        f"name: t\nsubject: {{column: id, system: '{OLD}'}}\ntime: {{column: day}}\n"
        "columns: {chol: {code: LOINC//2093-3, unit: mg/dL}}\n"
    )
    load(tmp_path, patient("p", **mrn((OLD, "o7"), (MRN, "7"))), identifier_system=both)
    import_table(table, mapping, tmp_path / "store", secret=SECRET, now=NOW)
    found = held(tmp_path)
    assert set(found) == {pseudonym(SECRET, Identity(MRN, "7"))}
    assert sum(found.popitem()[1].values()) == 4


def test_a_number_that_two_patients_share_does_not_make_them_one(tmp_path: Path) -> None:
    report = load(
        tmp_path,
        patient("p", **mrn((MRN, "1"), (OLD, "0000"))),
        patient("q", **mrn((MRN, "2"), (OLD, "0000"))),
        identifier_system=[MRN, OLD],
    )
    assert len(held(tmp_path)) == 2
    assert report.notes == {
        "patients found to be one with another": 1,
        f"an identifier of system {OLD} that stands for another patient": 1,
    }


def test_without_any_of_the_systems_nobody_is_guessed(tmp_path: Path) -> None:
    report = load(tmp_path, patient("p"), identifier_system=[MRN, OLD])
    assert report.reasons == {f"expected one identifier of system {MRN} or {OLD}, found 0": 1}


def test_a_kill_between_noting_and_moving_is_made_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(tmp_path, patient("a"), patient("b"), observation(1, "a"))

    def killed(*_: Any) -> Any:
        raise RecordError("no power")

    with monkeypatch.context() as patch:
        patch.setattr(merging, "move", killed)
        with pytest.raises(RecordError, match="no power"):
            load(tmp_path, patient("a", ("replaced-by", "b")))
    assert of("a") in held(tmp_path)
    load(tmp_path, patient("c"))
    assert held(tmp_path)[of("b")] == Counter({"LOINC//2093-3": 1, "MEDS_BIRTH": 1})
    assert of("a") not in held(tmp_path)


def test_live_records_follow_a_merge_that_an_import_makes_meanwhile(tmp_path: Path) -> None:
    load(tmp_path, patient("a"), patient("b"))

    def observed(store: LiveStore, number: int) -> None:
        async def run() -> None:
            desk = store.desk("fhir", read_zone("UTC"))
            subject = desk.pseudonyms.of(Identity("fhir", "Patient/a"))
            origin = f"fhir:Observation/{number}"
            from fedtwin_client.records.events import Event

            event = Event(
                subject_id=subject,
                time=NOW,
                code="LOINC//1",
                source=f"{origin}#0",
                available_time=NOW,
            )
            await store.keep(desk)([Version(origin=origin, updated=None, events=[event])])

        asyncio.run(run())

    with LiveStore(tmp_path / "store", SECRET, lambda: NOW) as store:
        observed(store, 1)
        load(tmp_path, patient("a", ("replaced-by", "b")))
        observed(store, 2)  # the store was opened before, and does not know
        compact(tmp_path / "store", NOW)
    assert held(tmp_path) == {of("b"): Counter({"LOINC//1": 2, "MEDS_BIRTH": 1})}


def test_a_live_merge_is_durable_and_moves_at_the_next_writing(tmp_path: Path) -> None:
    load(tmp_path, patient("a"), patient("b"), observation(1, "a"))
    with LiveStore(tmp_path / "store", SECRET, lambda: NOW) as store:
        desk = store.desk("fhir", read_zone("UTC"))
        one, into = (Identity("fhir", f"Patient/{name}") for name in "ab")
        assert desk.pseudonyms.merge(one, into) is None
        asyncio.run(store.keep(desk)([]))
    assert [merge.into for merge in Merges(tmp_path / "store").all()] == [of("b")]
    compact(tmp_path / "store", NOW)
    assert of("a") not in held(tmp_path)


def test_moving_nothing_is_nothing(tmp_path: Path) -> None:
    from fedtwin_client.store.manifest import Manifest

    state = Manifest()
    assert finish_merges(tmp_path, state) == state
    people = Pseudonyms(SECRET)
    assert people.merge(Identity("s", "1"), Identity("s", "1")) is None
    assert people.take_merges() == {}
