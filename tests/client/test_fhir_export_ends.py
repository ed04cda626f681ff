"""Exports that end otherwise than promised: gone, empty, with errors of the server's own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from fedtwin_client.records.fhir_server.downloads import Folder
from fedtwin_client.records.fhir_server.fetched import fetched
from fedtwin_client.store.imports import import_source
from fedtwin_protocol.errors import RecordError

from .fhir_double import NOW, Double, Say, double
from .fhir_exports import OBSERVATIONS, OPEN, export_of, lines, offers

SECRET = b"\x07" * 32


@pytest.fixture(autouse=True)
def shut() -> Iterator[None]:
    yield
    while OPEN:
        OPEN.pop().shut()


@pytest.fixture
def server() -> Iterator[Double]:
    with double() as found:
        yield found


@pytest.fixture
def elsewhere() -> Iterator[Double]:
    with double() as found:
        yield found


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
