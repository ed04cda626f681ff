"""A FHIR server that is not ours: Medplum's router, and its validator for what we write."""

import asyncio
import json
import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from fedtwin.demo.synthetic import make_hospitals
from fedtwin_client.records.fhir.server.downloads import Folder
from fedtwin_client.records.fhir.server.fetched import fetched
from fedtwin_client.records.fhir.server.paged import Search, Searched
from fedtwin_client.records.fhir.server.polling import Polled, PollingDoor
from fedtwin_client.records.fhir.server.web import Clock, Web
from fedtwin_client.records.moments import read_zone
from fedtwin_client.store.imports import import_fhir, import_source
from fedtwin_client.store.live import LiveStore
from fedtwin_client.store.timeline import Timeline
from fedtwin_protocol.errors import RecordError

pytestmark = pytest.mark.interoperability
PACKAGES = Path(__file__).parents[2] / ".interoperability"
SECRET = b"\x07" * 32
KINDS = ("Patient", "Observation", "Condition")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of the server, running in a process of its own."""
    node = shutil.which("node")
    if node is None or not (PACKAGES / "node_modules").is_dir():
        pytest.skip("Node.js or Medplum's packages are not here: run scripts/interoperability")
    shim = Path(__file__).with_name("medplum.mjs")
    command = [node, str(shim), str(PACKAGES)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = process.stdout.readline().strip()
        assert port.isdigit(), "the server did not start"
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The export of one synthetic hospital, as the demo writes it, whole lines alone."""
    folder = tmp_path_factory.mktemp("synthetic")
    make_hospitals(folder, seed=3, patients_per_hospital=30, sites=2)
    found = sorted(path for path in folder.glob("*/*.ndjson"))
    return found[0].parent


def resources(folder: Path) -> list[dict[str, Any]]:
    found = []
    for path in sorted(folder.glob("*.ndjson")):
        for line in path.read_text().splitlines():
            try:
                found.append(json.loads(line))
            except ValueError:
                continue  # damaged on purpose, as real exports are
    return found


@pytest.fixture(scope="module")
def filled(server: str, written: Path) -> str:
    """The server with the hospital's resources under their own ids."""
    with httpx.Client(trust_env=False, timeout=30) as web:
        for one in resources(written):
            if one["resourceType"] in KINDS:
                put = web.put(f"{server}/fhir/{one['resourceType']}/{one['id']}", json=one)
                assert put.status_code in {200, 201}, put.text
    return f"{server}/fhir"


def opened(base: str) -> Web:
    return Web(base, Clock(now=lambda: datetime.now(UTC), wait=lambda _: None))


def events(store: Path) -> list[tuple[Any, ...]]:
    rows = Timeline.open(store).events().to_pylist()
    return sorted(
        (row["subject_id"], str(row["time"]), row["code"], row["numeric_value"]) for row in rows
    )


def test_a_search_brings_what_the_files_bring(filled: str, written: Path, tmp_path: Path) -> None:
    now = datetime.now(UTC)
    with opened(filled) as web:
        folder = Folder(tmp_path / "d", None)
        Search(web, folder, Searched(types=KINDS, count=1000), lambda _: None).fetch()
    options: dict[str, Any] = {"secret": SECRET, "now": now, "source": "x", "zone": "UTC"}
    import_source(fetched(folder, "x", None), tmp_path / "a", **options)
    lines = [json.dumps(one) + "\n" for one in resources(written) if one["resourceType"] in KINDS]
    (tmp_path / "whole.ndjson").write_text("".join(lines))
    import_fhir([tmp_path / "whole.ndjson"], tmp_path / "b", secret=SECRET, now=now, server="x")
    assert events(tmp_path / "a") == events(tmp_path / "b")
    assert len(events(tmp_path / "a")) > 100


def test_a_server_that_does_not_page_is_found_out(filled: str, tmp_path: Path) -> None:
    """Its repository in memory cuts at _count and names no next page."""
    with opened(filled) as web:
        search = Search(web, Folder(tmp_path, None), Searched(types=KINDS, count=5), lambda _: None)
        with pytest.raises(RecordError, match="names no next page"):
            search.fetch()


def test_changes_come_in_live(filled: str, tmp_path: Path) -> None:
    def now() -> datetime:
        return datetime.now(UTC)

    asked = Polled(
        types=KINDS, since=now().isoformat(timespec="milliseconds"), every_s=0.05, count=1000
    )
    door = PollingDoor(
        "x", lambda clock: Web(filled, clock), Folder(tmp_path / "d", None), asked, now
    )
    fresh = {
        "resourceType": "Observation",
        "id": "fresh",
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": "2093-3"}]},
        "subject": {"reference": "Patient/fresh"},
        "effectiveDateTime": "2024-05-01",
        "valueQuantity": {"value": 200, "unit": "mg/dL"},
    }

    async def run(store: LiveStore) -> None:
        place = store.desk("x", read_zone("UTC"))
        task = asyncio.create_task(door.serve(place, store.keep(place)))
        async with asyncio.timeout(30), httpx.AsyncClient(trust_env=False) as web:
            answer = await web.put(f"{filled}/Observation/fresh", json=fresh)
            assert answer.status_code in {200, 201}, answer.text
            while not any(event[2] == "LOINC//2093-3" for event in events(tmp_path / "s")):
                assert not task.done(), task
                await asyncio.sleep(0.1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    with LiveStore(tmp_path / "s", SECRET, now) as store:
        import_fhir([_one(tmp_path)], tmp_path / "s", secret=SECRET, now=now(), server="other")
        asyncio.run(run(store))


def _one(folder: Path) -> Path:
    path = folder / "one.ndjson"
    path.write_text('{"resourceType": "Patient", "id": "z", "gender": "male"}\n')
    return path


def test_what_we_write_is_valid_by_their_rules(server: str, written: Path) -> None:
    """Every whole resource of a synthetic hospital, except where it is wrong on purpose."""
    made = resources(written)
    lines = "".join(json.dumps(one) + "\n" for one in made)
    with httpx.Client(trust_env=False, timeout=60) as web:
        said = web.post(f"{server}/validate", content=lines).json()
    wrong = {f"{one['resourceType']}: {word}" for one, word in zip(made, said, strict=True) if word}
    assert len(said) > 100
    assert wrong == set()
