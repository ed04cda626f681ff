"""The FHIR door: what is posted is kept before it is answered, or refused in words."""

import asyncio
import http.client
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from fedtwin_client.records.fhir.post import PostDoor, PostSettings
from fedtwin_client.records.pseudonyms import Identity, pseudonym
from fedtwin_protocol.errors import ConfigurationError, RecordError

from ..desks import SECRET, MemoryKeep, clock, make_desk

TOKEN = "a-token-of-more-than-twenty-letters"
SYSTEM = "http://h/mrn"
LOINC = "http://loinc.org"


def observation(**changes: Any) -> dict[str, Any]:
    return {
        "resourceType": "Observation",
        "status": "final",
        "subject": {"reference": "Patient/p1"},
        "code": {"coding": [{"system": LOINC, "code": "8867-4"}]},
        "effectiveDateTime": "2026-02-01T08:00:00Z",
        "valueQuantity": {"value": 71, "code": "/min"},
    } | changes


def patient(number: str, **changes: Any) -> dict[str, Any]:
    return {
        "resourceType": "Patient",
        "identifier": [{"system": SYSTEM, "value": number}],
        "birthDate": "1960-05-01",
    } | changes


class Answer(NamedTuple):
    status: int
    headers: Any
    body: dict[str, Any]

    @property
    def words(self) -> str:
        return " | ".join(issue["diagnostics"] for issue in self.body["issue"])


class Sender:
    def __init__(self, port: int) -> None:
        self._port = port

    async def post(
        self, body: Any, path: str = "/Observation", method: str = "POST", **headers: str
    ) -> Answer:
        return await asyncio.to_thread(self._post, body, path, method, headers)

    def _post(self, body: Any, path: str, method: str, headers: dict[str, str]) -> Answer:
        sent = {
            "Authorization": f"Bearer {TOKEN}",
            "Content-Type": "application/fhir+json",
        } | {name.replace("_", "-"): value for name, value in headers.items()}
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=20)
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        connection.request(method, path, data, sent)
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        body = json.loads(text) if text.startswith(b"{") else {}
        return Answer(answer.status, answer.headers, body)


def door(folder: Path, **changes: Any) -> PostDoor:
    token = folder / "token"
    token.write_text(TOKEN + "\n")
    token.chmod(0o600)
    return PostDoor(PostSettings(**{"token_file": token, "port": 0, **changes}), clock)


@asynccontextmanager
async def listening(made: PostDoor, keep: MemoryKeep, desk: Any = None) -> AsyncIterator[Sender]:
    task = asyncio.create_task(made.serve(desk or make_desk(made.name), keep))
    opened = asyncio.create_task(made.opened.wait())
    await asyncio.wait({task, opened}, return_when=asyncio.FIRST_COMPLETED)
    try:
        yield Sender(made.port)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def run(action: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(action(), 60))


def test_an_observation_is_answered_once_it_is_kept_and_never_doubles(tmp_path: Path) -> None:
    keep = MemoryKeep()

    async def play() -> None:
        async with listening(door(tmp_path), keep) as sender:
            first = await sender.post(observation())
            assert (first.status, first.words) == (201, "kept")
            again = await sender.post(observation())
            assert again.headers["Location"] == first.headers["Location"]
            mine = await sender.post(observation(id="o-1"))
            assert mine.headers["Location"] == "/Observation/o-1"
            assert len(keep.all()) == 2
            await sender.post(observation(id="o-1", valueQuantity={"value": 72, "code": "/min"}))
            assert {event.numeric_value for event in keep.all()} == {71, 72}
            gone = await sender.post(observation(id="o-1", status="entered-in-error"))
            assert (gone.status, len(keep.all())) == (201, 1)
            assert gone.words == "withdrawn (entered-in-error) | it makes no value here"

    run(play)
    (event,) = keep.all()
    assert event.subject_id == pseudonym(SECRET, Identity("fhir-post", "Patient/p1"))
    assert event.source.startswith("fhir-post:Observation/")


@pytest.mark.parametrize(
    ("body", "headers", "status", "words"),
    [
        (observation(), {"Authorization": "Bearer wrong"}, 401, "show the token"),
        (observation(), {"Authorization": f"Basic {TOKEN}"}, 401, "show the token"),
        (observation(), {"Content_Type": "text/plain"}, 415, "send application/fhir+json"),
        (observation(), {"Content_Encoding": "gzip"}, 415, "without compression"),
        (b"{", {}, 400, "expected a FHIR resource in JSON"),
        (b"\xff\xfe", {}, 400, "expected a FHIR resource in JSON"),
        (b"[" * 100_000, {}, 400, "expected a FHIR resource in JSON"),
        ({"resourceType": "Patient"}, {}, 400, "expected an Observation"),
        (observation(id="a b"), {}, 422, "an id that is none"),
        (observation(subject=None), {}, 422, "no patient"),
        (observation(effectiveDateTime="2026-13-01"), {}, 422, "a time that cannot be read"),
        (observation(effectiveDateTime="2026-04-01"), {}, 422, "lies in the future"),
        (observation(effectiveDateTime=None), {}, 422, "no time"),
        (observation(code={}), {}, 422, "no code"),
        (
            observation(valueQuantity={"value": 71, "unit": "mg"}),
            {},
            422,
            "unit 'mg' does not fit heart rate, kept in /min",
        ),
        (b" " * (16 * 1024 * 1024 + 1), {}, 413, "16 MiB"),
    ],
    ids=lambda given: None if isinstance(given, int | str) else "",
)
def test_what_is_refused_is_said_in_words_and_not_kept(
    tmp_path: Path, body: Any, headers: dict[str, str], status: int, words: str
) -> None:
    keep = MemoryKeep()

    async def play() -> None:
        async with listening(door(tmp_path), keep) as sender:
            answer = await sender.post(body, **headers)
            assert (answer.status, answer.body["resourceType"]) == (status, "OperationOutcome")
            assert words in answer.words

    run(play)
    assert keep.all() == []


def test_a_transaction_is_kept_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    keep = MemoryKeep()
    about = "urn:uuid:9d9f1c7e-0000-4000-8000-000000000001"
    entries: list[Any] = [
        {"fullUrl": about, "resource": patient("4711")},
        {"resource": observation(subject={"reference": about})},
    ]
    bundle = {"resourceType": "Bundle", "type": "transaction", "entry": entries}
    spoilt = bundle | {
        "entry": [
            *entries,
            {"resource": observation(subject={"reference": about}, code=None)},
            {"resource": {"resourceType": "Encounter"}},
            {"resource": patient("1"), "request": {"method": "DELETE"}},
            {},
        ]
    }

    async def play() -> None:
        desk = make_desk("fhir-post", quarantine=tmp_path / "quarantine.ndjson")
        async with listening(door(tmp_path, system=SYSTEM), keep, desk) as sender:
            refused = await sender.post(spoilt, "/")
            assert (refused.status, keep.all()) == (422, [])
            assert refused.words == (
                "entry 3: no code | entry 4: expected an Observation or a Patient | "
                "entry 5: expected POST or PUT as the entry's method | "
                "entry 6: an entry without a resource | nothing of the Bundle was kept"
            )
            batch = await sender.post(spoilt | {"type": "batch"}, "/")
            said = [entry["response"]["status"] for entry in batch.body["entry"]]
            assert said == ["201", "201", "422", "422", "422", "422"]
            assert (batch.body["type"], len(keep.all())) == ("batch-response", 2)
            kept = await sender.post(bundle, "/")
            assert (kept.status, kept.body["type"]) == (200, "transaction-response")
            assert len(keep.all()) == 2
            later = await sender.post(observation(id="x", subject={"reference": about}))
            assert later.status == 201  # by what an earlier Bundle said of the patient
            assert (await sender.post({"resourceType": "Bundle"}, "/")).status == 422
            wrong = await sender.post(bundle | {"entry": 5}, "/")
            assert (wrong.status, wrong.words) == (422, "expected a list as the Bundle's entry")

        desk.reading.tally.close()
        assert '"no code"' in (tmp_path / "quarantine.ndjson").read_text()

    run(play)
    number = Identity(SYSTEM, "4711")
    assert {event.subject_id for event in keep.all()} == {pseudonym(SECRET, number)}
    assert number in keep.learned.values()


@pytest.mark.parametrize("kind", ["batch", "transaction"])
def test_who_posts_is_not_believed_that_two_patients_are_one(tmp_path: Path, kind: str) -> None:
    keep = MemoryKeep()
    desk = make_desk("fhir-post")
    people = (
        {"resourceType": "Patient", "id": "b", "birthDate": "1950-01-01"},
        {
            "resourceType": "Patient",
            "id": "a",
            "birthDate": "1960-05-01",
            "link": [{"type": "replaced-by", "other": {"reference": "Patient/b"}}],
        },
    )

    async def play() -> None:
        async with listening(door(tmp_path), keep, desk) as sender:
            bundle = {
                "resourceType": "Bundle",
                "type": kind,
                "entry": [{"resource": one} for one in people],
            }
            answer = await sender.post(bundle, "/")
            assert answer.status == 200, answer
            assert "make two patients one" in json.dumps(answer.body)

    run(play)
    assert desk.pseudonyms.merges == {}
    assert desk.pseudonyms.of(Identity("fhir-post", "Patient/a")) == pseudonym(
        SECRET, Identity("fhir-post", "Patient/a")
    )


def test_a_keep_that_fails_is_told_to_the_sender(tmp_path: Path) -> None:
    keep = MemoryKeep(failures=1)

    async def play() -> None:
        async with listening(door(tmp_path), keep) as sender:
            first = await sender.post(observation())
            assert (first.status, first.headers["Retry-After"]) == (503, "30")
            assert "send it again later" in first.words
            assert (await sender.post(observation())).status == 201

    run(play)
    assert len(keep.all()) == 1


def test_what_it_can_do_and_what_it_does_not_know(tmp_path: Path) -> None:
    async def play() -> None:
        async with listening(door(tmp_path), MemoryKeep()) as sender:
            can = await sender.post(b"", "/metadata", "GET", Authorization="")
            assert can.body["resourceType"] == "CapabilityStatement"
            assert can.body["rest"][0]["resource"][0]["type"] == "Observation"
            assert (await sender.post({}, "/Patient")).status == 404
            assert (await sender.post({}, "/Observation", "GET")).status == 405

    run(play)


def test_the_log_holds_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(MemoryKeep):
        async def __call__(self, *_: Any, **__: Any) -> None:
            raise KeyError("Meier, Anna")

    async def play() -> None:
        async with listening(door(tmp_path), MemoryKeep()) as sender:
            await sender.post(observation(subject={"display": "Meier, Anna"}))
        async with listening(door(tmp_path), Broken()) as sender:
            assert (await sender.post(observation())).status == 500

    with caplog.at_level(logging.DEBUG):
        run(play)
    assert "a fault of the program: KeyError" in caplog.text
    assert "Meier" not in caplog.text
    assert TOKEN not in caplog.text


def test_settings_that_would_not_be_safe(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="expected a loopback address"):
        door(tmp_path, host="0.0.0.0")
    with pytest.raises(ConfigurationError, match="cannot read the senders' token"):
        door(tmp_path, token_file=tmp_path / "none")
    weak = tmp_path / "weak"
    weak.write_text("short")
    weak.chmod(0o600)
    with pytest.raises(ConfigurationError, match="20 characters or more"):
        door(tmp_path, token_file=weak)
    weak.write_text(TOKEN)
    weak.chmod(0o644)
    with pytest.raises(ConfigurationError, match="others can read the senders' token"):
        door(tmp_path, token_file=weak)


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    async def play() -> None:
        first = door(tmp_path)
        async with listening(first, MemoryKeep()):
            second = door(tmp_path, port=first.port)
            with pytest.raises(RecordError, match=f"cannot listen on 127.0.0.1:{first.port}"):
                await second.serve(make_desk("fhir-post"), MemoryKeep())

    run(play)
