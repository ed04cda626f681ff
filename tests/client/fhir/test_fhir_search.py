"""Paged search, and asking a server again and again, from servers that misbehave."""

import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from fedtwin_client.doors import read_doors
from fedtwin_client.records.fhir.server.downloads import Folder
from fedtwin_client.records.fhir.server.fetched import fetched
from fedtwin_client.records.fhir.server.paged import Search, Searched
from fedtwin_client.records.fhir.server.polling import Polled, PollingDoor
from fedtwin_client.records.fhir.server.web import Clock, Web
from fedtwin_client.records.moments import read_zone
from fedtwin_client.records.pseudonyms import Identity, Pseudonyms, pseudonym
from fedtwin_client.records.reading import Reading
from fedtwin_client.records.report import Tally
from fedtwin_client.records.source import Desk, Version
from fedtwin_client.store.imports import import_source
from fedtwin_client.store.live import LiveStore
from fedtwin_client.store.timeline import Timeline
from fedtwin_protocol.errors import ConfigurationError, RecordError

from .fhir_double import NOW, Asked, Double, Say, Ticking, double

SECRET = b"\x07" * 32
MRN = "http://h/mrn"


def observation(number: int, updated: str = "2026-03-01T11:00:00Z", **more: Any) -> dict[str, Any]:
    return {
        "resourceType": "Observation",
        "id": f"o{number}",
        "meta": {"lastUpdated": updated},
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": "2093-3"}]},
        "subject": {"reference": "Patient/p"},
        "effectiveDateTime": "2024-05-01",
        "valueQuantity": {"value": 200 + number, "unit": "mg/dL"},
    } | more


def bundle(*resources: Any, following: str | None = None) -> dict[str, Any]:
    links = [{"relation": "self", "url": "x"}]
    if following is not None:
        links.append({"relation": "next", "url": following})
    entries = [{"resource": one, "search": {"mode": "match"}} for one in resources]
    return {"resourceType": "Bundle", "type": "searchset", "link": links, "entry": entries}


@pytest.fixture
def web(server: Double) -> Iterator[Web]:
    clock = Ticking()
    with Web(server.base, Clock(now=clock.now, wait=clock.wait), timeout_s=5) as found:
        yield found


def search(web: Web, folder: Path, **wanted: Any) -> Search:
    chosen = Searched(**{"types": ("Observation",), "count": 2} | wanted)
    return Search(web, Folder(folder, None), chosen, lambda _: None)


def test_all_pages_come_in_and_twice_is_once(server: Double, web: Web, tmp_path: Path) -> None:
    server.on(
        "/fhir/Observation", Say(bundle(observation(1), observation(2), following="/fhir/p2"))
    )
    server.on("/fhir/p2", Say(bundle(observation(2), {"no": "type"}, following="p3")))
    server.on("/fhir/p3", Say(bundle(observation(3))))
    began = search(web, tmp_path / "d", since="2026-01-01", filters=("Observation?code=1",)).fetch()
    assert began == NOW.isoformat()
    (first,) = server.asked("/fhir/Observation")
    assert first.query == {"_lastUpdated": ["ge2026-01-01"], "_count": ["2"], "code": ["1"]}
    report = import_source(
        fetched(Folder(tmp_path / "d", None), "old", None),
        tmp_path / "s",
        secret=SECRET,
        now=NOW,
        source="old",
        zone="UTC",
    )
    assert report.events == 3
    assert report.reasons == {
        "no resourceType": 1,
        "an older version of a resource that comes twice": 1,
    }


def test_what_the_server_says_of_its_search_is_put_aside(
    server: Double, web: Web, tmp_path: Path
) -> None:
    issue = {"severity": "warning", "code": "suppressed", "diagnostics": "some were left out"}
    outcome = {"resourceType": "OperationOutcome", "issue": [issue]}
    server.on("/fhir/Observation", Say(bundle(observation(1), outcome)))
    search(web, tmp_path / "d").fetch()
    tally = Tally(quarantine=tmp_path / "aside.ndjson")
    reading = Reading(source="s", zone=read_zone("UTC"), now=NOW, tally=tally)
    desk = Desk(reading=reading, pseudonyms=Pseudonyms(SECRET), known={})
    list(fetched(Folder(tmp_path / "d", None), "s", None)(desk).versions())
    tally.close()
    assert tally.reasons["the server warns of what it sent"] == 1
    assert "some were left out" in (tmp_path / "aside.ndjson").read_text()


def test_a_page_that_comes_half_is_asked_for_again(
    server: Double, web: Web, tmp_path: Path
) -> None:
    whole = Say(bundle(observation(1)))
    half = Say(whole.data[:100])
    server.on("/fhir/Observation", Say(whole.body, cut=80), half, Say(status=502), whole)
    search(web, tmp_path).fetch()
    assert len(server.asked("/fhir/Observation")) == 4
    assert Folder(tmp_path, None).contents(tmp_path / "output-000001-Observation.ndjson").lines == 1


def test_pages_elsewhere_are_not_followed(server: Double, web: Web, tmp_path: Path) -> None:
    with double() as elsewhere:
        away = f"{elsewhere.base}/p2"
        server.on("/fhir/Observation", Say(bundle(observation(1), following=away)))
        with pytest.raises(RecordError, match="pages are followed at"):
            search(web, tmp_path).fetch()
        assert elsewhere.requests == []


@pytest.mark.parametrize("target", ["/fhir/p2", "/fhir/Observation?_count=2"])
def test_pages_that_run_in_a_circle_are_refused(
    server: Double, web: Web, tmp_path: Path, target: str
) -> None:
    server.on("/fhir/Observation", Say(bundle(observation(1), following="/fhir/p2")))
    server.on("/fhir/p2", Say(bundle(observation(2), following=target)))
    with pytest.raises(RecordError, match="run in a circle"):
        search(web, tmp_path).fetch()
    assert len(server.requests) < 6


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (Say({"resourceType": "OperationOutcome", "issue": [{"diagnostics": "busy"}]}), "busy"),
        (Say({"resourceType": "Patient"}), "expected a Bundle .*, found Patient"),
        (Say([1]), "expected a JSON object"),
        (Say(b"<html>"), "something else"),
        (Say({"issue": [{"details": {"text": "no such"}}]}, status=400), "answers 400 .no such"),
    ],
)
def test_answers_that_are_no_pages_are_told(
    server: Double, web: Web, tmp_path: Path, answer: Say, said: str
) -> None:
    server.on("/fhir/Observation", answer)
    with pytest.raises(RecordError, match=said):
        search(web, tmp_path).fetch()


def test_a_server_that_gives_a_part_and_no_next_page_is_refused(
    server: Double, web: Web, tmp_path: Path
) -> None:
    server.on("/fhir/Observation", Say(bundle(observation(1)) | {"total": 7}))
    with pytest.raises(RecordError, match="there are 7, gives 1 and names no next page"):
        search(web, tmp_path).fetch()
    server.on("/fhir/Observation", Say(bundle(observation(1)) | {"total": 1}))
    search(web, tmp_path).fetch()


def test_a_killed_search_goes_on_or_starts_a_type_anew(
    server: Double, web: Web, tmp_path: Path
) -> None:
    server.on("/fhir/Condition", Say(bundle()))
    server.on("/fhir/Observation", Say(bundle(observation(1), following="/fhir/p2")))
    server.on("/fhir/p2", Say(status=403))
    kinds = ("Condition", "Observation")
    with pytest.raises(RecordError, match="answers 403"):
        search(web, tmp_path, types=kinds).fetch()
    server.on("/fhir/p2", Say(bundle(observation(2))))
    search(web, tmp_path, types=kinds).fetch()
    assert (len(server.asked("/fhir/Condition")), len(server.asked("/fhir/Observation"))) == (1, 2)
    assert len(Folder(tmp_path, None).files("output-*")) == 4


def test_types_are_checked(web: Web, tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="expected a FHIR resource type"):
        search(web, tmp_path, types=("../x",))
    with pytest.raises(RecordError, match="name the resource types"):
        search(web, tmp_path, types=())


class Kept:
    """What a door hands over."""

    def __init__(self) -> None:
        self.versions: list[Version] = []
        self.learned: dict[str, Identity] = {}

    async def __call__(
        self,
        versions: Sequence[Version],
        learned: Mapping[str, Identity] | None = None,
        consents: Any = None,
    ) -> None:
        self.versions += versions
        self.learned |= learned or {}

    @property
    def origins(self) -> list[str]:
        return [f"{one.origin.partition(':')[2]} {len(list(one.events))}" for one in self.versions]


def desk() -> Desk:
    tally = Tally(quarantine=None)
    reading = Reading(source="live", zone=read_zone("UTC"), now=NOW, tally=tally)
    return Desk(reading=reading, pseudonyms=Pseudonyms(SECRET), known={})


def door(server: Double, folder: Path, **options: Any) -> PollingDoor:
    return PollingDoor(
        "live",
        lambda clock: Web(server.base, clock, timeout_s=5),
        Folder(folder, None),
        Polled(
            **{"types": ("Observation",), "since": "2026-03-01T10:00:00Z", "every_s": 0.01}
            | options
        ),
        lambda: NOW,
    )


def ask(made: PollingDoor, web: Web, place: Desk, kept: Kept, kind: str = "Observation") -> None:
    asyncio.run(made.ask(kind, web, place, kept))


def test_changes_are_asked_for_with_an_overlap_and_kept_once(
    server: Double, web: Web, tmp_path: Path
) -> None:
    kept, place = Kept(), desk()
    made = door(server, tmp_path)
    server.on("/fhir/Observation", Say(bundle(observation(1))))
    ask(made, web, place, kept)
    ask(made, web, place, kept)
    changed = observation(1, "2026-03-01T11:30:00.5Z", status="amended")
    server.on("/fhir/Observation", Say(bundle(observation(1), changed)))
    ask(made, web, place, kept)
    assert kept.origins == ["Observation/o1 1"] * 2
    asked = [one.query["_lastUpdated"][0] for one in server.asked("/fhir/Observation")]
    assert asked == [
        "ge2026-03-01T09:55:00.000+00:00",
        "ge2026-03-01T10:55:00.000+00:00",
        "ge2026-03-01T10:55:00.000+00:00",
    ]
    again = door(server, tmp_path)
    ask(again, web, place, Kept())
    assert server.requests[-2].query["_lastUpdated"] == ["ge2026-03-01T11:25:00.500+00:00"]


def test_nothing_is_remembered_of_a_round_that_failed(
    server: Double, web: Web, tmp_path: Path
) -> None:
    made, kept, place = door(server, tmp_path), Kept(), desk()
    server.on("/fhir/Observation", Say(bundle(observation(1), following="/fhir/p2")))
    server.on("/fhir/p2", Say(status=403))
    with pytest.raises(RecordError, match="403"):
        ask(made, web, place, kept)
    assert not (tmp_path / "polling.json").exists()


def test_deletions_come_from_the_history_where_there_is_one(
    server: Double, web: Web, tmp_path: Path
) -> None:
    made, kept, place = door(server, tmp_path), Kept(), desk()
    server.on("/fhir/Observation", Say(bundle(observation(1))))
    gone = {
        "resourceType": "Bundle",
        "type": "history",
        "entry": [
            {
                "request": {"method": "DELETE", "url": "Observation/o9"},
                "response": {"status": "204", "lastModified": "2026-03-01T11:10:00Z"},
            },
            {"resource": observation(5), "request": {"method": "PUT", "url": "Observation/o5"}},
        ],
    }
    server.on("/fhir/Observation/_history", Say(gone))
    ask(made, web, place, kept)
    ask(made, web, place, kept)
    assert kept.origins == ["Observation/o1 1", "Observation/o9 0"]
    server.on("/fhir/Observation/_history", Say(status=404))
    other = door(server, tmp_path / "other")
    ask(other, web, place, kept)
    ask(other, web, place, kept)
    assert len(server.asked("/fhir/Observation/_history")) == 3


def test_a_patient_never_seen_is_asked_for_at_the_server_alone(
    server: Double, web: Web, tmp_path: Path
) -> None:
    made, kept, place = door(server, tmp_path, systems=MRN), Kept(), desk()
    away = observation(2, subject={"reference": "https://elsewhere.example/Patient/q"})
    odd = observation(3, subject={"reference": "Patient/../../token"})
    server.on("/fhir/Observation", Say(bundle(observation(1), away, odd)))
    person = {"resourceType": "Patient", "id": "p", "identifier": [{"system": MRN, "value": "77"}]}
    server.on("/fhir/Patient/p", Say(person))
    ask(made, web, place, kept)
    events = [event for one in kept.versions for event in one.events]
    assert [event.subject_id for event in events] == [pseudonym(SECRET, Identity(MRN, "77"))]
    assert {one.path for one in server.requests} == {
        "/fhir/Observation",
        "/fhir/Observation/_history",
        "/fhir/Patient/p",
    }
    assert place.reading.tally.reasons == {
        "refers to a patient that is not known": 1,
        "refers to a patient by a search, or by no address that can be": 1,
    }


def test_the_door_keeps_what_comes_until_it_is_shut(server: Double, tmp_path: Path) -> None:
    """Over the real live store: what came in is in the timeline, once."""
    numbers = iter(range(1, 1000))

    def fresh(_: Asked) -> Say:
        number = next(numbers)
        return Say(bundle(*(observation(one) for one in range(1, min(number, 4)))))

    server.on("/fhir/Observation", fresh)

    async def run(store: LiveStore) -> None:
        place = store.desk("live", read_zone("UTC"))
        task = asyncio.create_task(door(server, tmp_path / "d").serve(place, store.keep(place)))
        async with asyncio.timeout(20):
            while len(server.asked("/fhir/Observation")) < 6:
                await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    with LiveStore(tmp_path / "s", SECRET, lambda: NOW) as store:
        asyncio.run(run(store))
    events = Timeline.open(tmp_path / "s").events().to_pylist()
    assert sorted(event["source"] for event in events) == [
        f"live:Observation/o{number}#0" for number in (1, 2, 3)
    ]


def test_a_door_of_the_nodes_file_asks_and_keeps(server: Double, tmp_path: Path) -> None:
    server.on("/fhir/Observation", Say(bundle(observation(1))))
    settings = {"kind": "fhir-poll", "url": server.base, "types": ["Observation"], "every_s": 0.01}
    (tmp_path / "doors.yaml").write_text(json.dumps({"doors": {"ward": settings}}))
    opened = read_doors(tmp_path, lambda: NOW)["ward"].door

    async def run(store: LiveStore) -> None:
        place = store.desk("ward", read_zone("UTC"))
        task = asyncio.create_task(opened.serve(place, store.keep(place)))
        async with asyncio.timeout(20):
            while len(server.asked("/fhir/Observation")) < 2:
                await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    with LiveStore(tmp_path / "records", SECRET, lambda: NOW) as store:
        asyncio.run(run(store))
    (event,) = Timeline.open(tmp_path / "records").events().to_pylist()
    assert event["source"] == "ward:Observation/o1#0"
    (tmp_path / "doors.yaml").write_text(json.dumps({"doors": {"ward": settings | {"types": []}}}))
    with pytest.raises(ConfigurationError, match="door 'ward': name the resource types"):
        read_doors(tmp_path, lambda: NOW)


def test_a_door_waits_no_longer_than_it_is_open(server: Double, tmp_path: Path) -> None:
    server.on("/fhir/Observation", Say(status=503, headers={"Retry-After": "500"}))

    async def run() -> None:
        task = asyncio.create_task(door(server, tmp_path).serve(desk(), Kept()))
        async with asyncio.timeout(20):
            while not server.requests:
                await asyncio.sleep(0.01)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    asyncio.run(run())


@pytest.mark.parametrize("state", ["{", "[]", '{"Observation": 3}', '{"Observation": "soon"}'])
def test_a_damaged_memory_is_made_anew(
    server: Double, web: Web, tmp_path: Path, state: str
) -> None:
    (tmp_path / "polling.json").write_text(state)
    server.on("/fhir/Observation", Say(bundle(observation(1))))
    ask(door(server, tmp_path, overlap=timedelta()), web, desk(), Kept())
    known = json.loads((tmp_path / "polling.json").read_text())
    assert known == {"Observation": "2026-03-01T11:00:00Z"}
