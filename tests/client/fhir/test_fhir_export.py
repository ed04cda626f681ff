"""Bulk Data export from a server that behaves, and from one that does not."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from fedtwin_client.at_rest.boxes import fresh_key
from fedtwin_client.at_rest.keyring import Keyring
from fedtwin_client.records.fhir.server.downloads import Folder
from fedtwin_client.records.fhir.server.export import Asked as Wanted
from fedtwin_client.records.fhir.server.export import Export
from fedtwin_client.records.fhir.server.fetched import fetched
from fedtwin_client.records.fhir.server.signing_in import SignedIn, discover
from fedtwin_client.store.imports import import_source
from fedtwin_client.store.timeline import Timeline
from fedtwin_protocol.errors import RecordError

from .fhir_double import NOW, Asked, Double, Say, Ticking, gives_tokens, needs_token
from .fhir_exports import (
    KEY,
    OBSERVATIONS,
    PATIENTS,
    SECRET,
    export_of,
    lines,
    offers,
    opened,
    patient,
)


def test_an_export_is_fetched_imported_and_tidied_up(server: Double, tmp_path: Path) -> None:
    gives_tokens(server, KEY.jwks())
    offers(server, token=True)
    server.on("/files/p", needs_token(Say(PATIENTS), "secret-1"))
    clock = Ticking()
    export = export_of(
        server, tmp_path / "d", clock, since="2026-01-01T00:00:00Z", types=("Patient",)
    )
    assert export.fetch().transactionTime == "2026-03-01T10:00:00Z"
    (kickoff,) = server.asked("/fhir/Patient/$export")
    assert kickoff.headers["prefer"] == "respond-async"
    assert kickoff.query["_since"] == ["2026-01-01T00:00:00Z"]
    assert kickoff.query["_type"] == ["Patient"]
    assert clock.waits == [7.0, 7.0]
    folder = Folder(tmp_path / "d", None)
    report = import_source(
        fetched(folder, "epic", None),
        tmp_path / "s",
        secret=SECRET,
        now=NOW,
        source="epic",
        zone="UTC",
    )
    assert (report.events, report.patients, report.unused) == (903, 3, 0)
    assert export.finish() is None
    assert server.requests[-1].method == "DELETE"
    assert list((tmp_path / "d").iterdir()) == []


def test_nothing_goes_to_the_disk_in_plain_where_the_node_is_encrypted(
    server: Double, tmp_path: Path
) -> None:
    """And a file that broke off inside is gone on with after its last whole piece."""
    keyring = Keyring(keys={"k": fresh_key()})
    offers(server)
    whole = OBSERVATIONS
    starts = []

    def part(request: Asked) -> Say:
        wanted = request.headers.get("range")
        starts.append(wanted)
        if wanted is None:
            return Say(whole, cut=150_000)
        start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        headers = {"Content-Range": f"bytes {start}-{len(whole) - 1}/{len(whole)}"}
        return Say(whole[start:], status=206, headers=headers)

    server.on("/files/o", part)
    export_of(server, tmp_path / "d", keyring=keyring).fetch()
    assert starts == [None, "bytes=131072-"]
    for path in (tmp_path / "d").iterdir():
        assert b"Observation" not in path.read_bytes(), path
    folder = Folder(tmp_path / "d", keyring)
    (file,) = folder.files("output-00002-*")
    with folder.open(file) as stream:
        assert stream.read() == whole


@pytest.mark.parametrize("encrypted", [False, True])
def test_a_killed_command_goes_on_where_it_was(
    server: Double, tmp_path: Path, encrypted: bool
) -> None:
    keyring = Keyring(keys={"k": fresh_key()}) if encrypted else None
    offers(server)
    server.on("/files/o", Say(OBSERVATIONS, status=403))
    with pytest.raises(RecordError, match="does not allow it"):
        export_of(server, tmp_path, keyring=keyring).fetch()
    server.on("/files/o", Say(OBSERVATIONS))
    export_of(server, tmp_path, keyring=keyring).fetch()
    assert len(server.asked("/fhir/Patient/$export")) == 1
    assert len(server.asked("/files/p")) == 1
    whole = tmp_path / "output-00002-Observation.ndjson"
    assert Folder(tmp_path, keyring).contents(whole) == (900, True)


def test_another_request_drops_what_was_begun(server: Double, tmp_path: Path) -> None:
    offers(server)
    server.on("/files/o", Say(status=403))
    with pytest.raises(RecordError):
        export_of(server, tmp_path).fetch()
    server.on("/files/o", Say(OBSERVATIONS))
    export_of(server, tmp_path, types=("Patient", "Observation")).fetch()
    assert len(server.asked("/fhir/Patient/$export")) == 2
    assert [one.method for one in server.asked("/fhir/status/1")].count("DELETE") == 1


def test_an_export_that_the_server_forgot_is_started_anew(server: Double, tmp_path: Path) -> None:
    offers(server)
    normal = server.routes["/fhir/status/1"]
    server.on("/fhir/status/1", Say({"issue": [{"diagnostics": "no space"}]}, status=500))
    with pytest.raises(RecordError, match="failed at the server: status 500"):
        export_of(server, tmp_path).fetch()
    server.routes["/fhir/status/1"] = normal
    export_of(server, tmp_path).fetch()
    assert len(server.asked("/fhir/Patient/$export")) == 2


def test_busy_servers_are_asked_again_after_what_they_say(server: Double, tmp_path: Path) -> None:
    offers(server)
    start = Say(status=202, headers={"Content-Location": "/fhir/status/1"})
    server.on("/fhir/Patient/$export", Say(status=429, headers={"Retry-After": "30"}), start)
    server.on("/files/p", Say(status=503), Say(b"", status=500), Say(PATIENTS))
    clock = Ticking()
    export_of(server, tmp_path, clock).fetch()
    assert clock.waits == [30.0, 7.0, 7.0, 2.0, 4.0]


def test_a_server_that_stays_down_ends_in_a_sentence(server: Double, tmp_path: Path) -> None:
    offers(server)
    server.on("/files/p", Say(status=503))
    with pytest.raises(RecordError, match="/files/p answers 503"):
        export_of(server, tmp_path).fetch()
    assert len(server.asked("/files/p")) == 6


@pytest.mark.parametrize("off", [timedelta(hours=-2), timedelta(minutes=20)])
def test_a_clock_that_differs_is_allowed_for(
    server: Double, tmp_path: Path, off: timedelta
) -> None:
    gives_tokens(server, KEY.jwks())
    offers(server, token=True)
    server.date = NOW + off
    said: list[str] = []
    with opened(server, Ticking()) as web:
        SignedIn(web, discover(web), key=KEY, client_id="node", scopes="s", told=said.append)
        Export(web, Folder(tmp_path, None), Wanted(), said.append).fetch()
    assert said[0].startswith(
        f"the server's clock differs from this machine's by {off.total_seconds():+.0f}"
    )


@pytest.mark.parametrize("count", [2, 4])
def test_a_file_that_has_not_what_the_manifest_says_is_fetched_again_then_refused(
    server: Double, tmp_path: Path, count: int
) -> None:
    offers(server)
    server.on("/files/p", Say(lines(*[patient(1)] * count)), Say(PATIENTS))
    export_of(server, tmp_path / "a").fetch()
    server.on("/files/p", Say(lines(*[patient(1)] * count)))
    with pytest.raises(RecordError, match=f"promises 3 resources .*, which has {count}, twice"):
        export_of(server, tmp_path / "b").fetch()
    server.on("/files/p", Say(PATIENTS))
    export_of(server, tmp_path / "b").fetch()
    assert len(server.asked("/fhir/Patient/$export")) == 3


@pytest.mark.parametrize(
    ("status", "linked"), [(404, False), (410, False), (401, True), (403, True), (410, True)]
)
def test_files_that_are_gone_are_exported_anew(
    server: Double, elsewhere: Double, tmp_path: Path, status: int, linked: bool
) -> None:
    """Links run out, also while a command was off; what was begun then leads nowhere."""
    holds = elsewhere if linked else server
    offers(server, output=[{"type": "Observation", "url": f"{holds.origin}/files/o"}])
    holds.on("/files/o", Say(OBSERVATIONS, cut=90_000), Say(status=status))
    with pytest.raises(RecordError, match=f"/files/o .* is no longer there: status {status}"):
        export_of(server, tmp_path).fetch()
    assert [one.method for one in server.asked("/fhir/status/1")].count("DELETE") == 1
    holds.on("/files/o", Say(OBSERVATIONS))
    export_of(server, tmp_path).fetch()
    assert len(server.asked("/fhir/Patient/$export")) == 2


def test_an_account_of_errors_need_not_be_as_long_as_promised(
    server: Double, tmp_path: Path
) -> None:
    error = {"type": "OperationOutcome", "url": f"{server.origin}/files/e", "count": 50}
    offers(server, error=[error])
    server.on("/files/e", Say(lines({"resourceType": "OperationOutcome", "issue": []})))
    export_of(server, tmp_path).fetch()
    assert (tmp_path / "error-00001-OperationOutcome.ndjson").exists()


def test_a_server_that_sends_nothing_is_told(server: Double, tmp_path: Path) -> None:
    offers(server, output=[])
    export_of(server, tmp_path / "d").fetch()
    report = import_source(
        fetched(Folder(tmp_path / "d", None), "epic", None),
        tmp_path / "s",
        secret=SECRET,
        now=NOW,
        source="epic",
        zone="UTC",
    )
    (note,) = report.notes
    assert note.startswith("the server sent nothing: nothing has changed, or the group")


def test_a_server_without_parts_of_files_gives_them_whole(server: Double, tmp_path: Path) -> None:
    offers(server)
    server.on("/files/o", Say(OBSERVATIONS, cut=90_000), Say(OBSERVATIONS))
    export_of(server, tmp_path).fetch()
    assert (tmp_path / "output-00002-Observation.ndjson").read_bytes() == OBSERVATIONS


def test_deletions_take_out_and_the_servers_errors_are_put_aside(
    server: Double, tmp_path: Path
) -> None:
    offers(server)
    store = tmp_path / "s"

    def load(folder: Path) -> Any:
        export_of(server, folder).fetch()
        return import_source(
            fetched(Folder(folder, None), "epic", None),
            store,
            secret=SECRET,
            now=NOW,
            source="epic",
            zone="UTC",
        )

    load(tmp_path / "a")
    gone = {
        "resourceType": "Bundle",
        "type": "transaction",
        "entry": [
            {"request": {"method": "DELETE", "url": f"Observation/o{number}"}}
            for number in range(5)
        ]
        + [{"request": {"method": "DELETE", "url": "Device/1"}}],
    }
    outcome = {
        "resourceType": "OperationOutcome",
        "issue": [{"severity": "error", "code": "exception", "diagnostics": "one was left out"}],
    }
    offers(
        server,
        output=[],
        deleted=[{"type": "Bundle", "url": f"{server.origin}/files/d", "count": 1}],
        error=[{"type": "OperationOutcome", "url": f"{server.origin}/files/e"}],
    )
    server.on("/files/d", Say(lines(gone)))
    server.on("/files/e", Say(lines(outcome)))
    report = load(tmp_path / "b")
    assert (report.withdrawn, Timeline.open(store).rows) == (5, 898)
    assert report.reasons == {
        "the server could not export something": 1,
        "deletion of a Device, a type that is not read": 1,
    }
    assert report.read == {"deletion": 6}


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ({"output": "x"}, "the manifest of the export is not one: output"),
        ({"output": [{"url": "x", "type": "../../etc"}]}, "not one: output.0.type"),
        ({"transactionTime": None}, "not one: transactionTime"),
        ({"output": [{"type": "Patient", "url": "mailto:x"}]}, "expected an address"),
    ],
)
def test_a_manifest_that_is_none_is_refused(
    server: Double, tmp_path: Path, broken: dict[str, Any], said: str
) -> None:
    offers(server, **broken)
    with pytest.raises(RecordError, match=said):
        export_of(server, tmp_path).fetch()


def test_pages_of_a_manifest_are_followed_but_not_in_a_circle(
    server: Double, tmp_path: Path
) -> None:
    following = [{"relation": "next", "url": f"{server.base}/page2"}]
    offers(server, link=following, output=[])
    page = {
        "transactionTime": "2026-03-01T10:00:00Z",
        "output": [{"type": "Patient", "url": f"{server.origin}/files/p", "count": 3}],
    }
    server.on("/fhir/page2", Say(page))
    assert len(export_of(server, tmp_path / "a").fetch().output) == 1
    server.on("/fhir/page2", Say(page | {"link": following}))
    with pytest.raises(RecordError, match="runs in a circle"):
        export_of(server, tmp_path / "b").fetch()
