"""Exports of servers that keep to the standard loosely, or break down on the way.

What can be understood is; what is not whole is asked for again, and then refused, because a night's
changes that are passed over are never asked for again.
"""

import gzip
import json
import resource
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from fedtwin_client.at_rest.boxes import fresh_key
from fedtwin_client.at_rest.keyring import Keyring
from fedtwin_client.records.fhir.server.downloads import Folder
from fedtwin_client.records.fhir.server.fetched import fetched
from fedtwin_client.store.imports import import_source
from fedtwin_protocol.errors import RecordError

from .fhir_double import NOW, Asked, Double, Say, Ticking, gives_tokens
from .fhir_exports import KEY, OBSERVATIONS, PATIENTS, SECRET, export_of, offers

ALL = 903


def came_in(
    server: Double, folder: Path, clock: Ticking | None = None, keyring: Keyring | None = None
) -> int:
    """Fetch and import; how many events that made. Nothing may be put aside."""
    export_of(server, folder / "downloads", clock, keyring).fetch()
    report = import_source(
        fetched(Folder(folder / "downloads", keyring), "epic", None),
        folder / "store",
        secret=SECRET,
        now=NOW,
        source="epic",
        zone="UTC",
    )
    assert not report.reasons
    return report.events


def without_counts(server: Double) -> list[dict[str, Any]]:
    return [
        {"type": kind, "url": f"{server.origin}/files/{name}"}
        for kind, name in (("Patient", "p"), ("Observation", "o"))
    ]


def in_seconds(seconds: int) -> str:
    return f"{NOW + timedelta(seconds=seconds):%a, %d %b %Y %H:%M:%S} GMT"


def test_waits_that_are_written_as_dates(server: Double, tmp_path: Path) -> None:
    offers(server)
    started = server.routes["/fhir/Patient/$export"]
    busy = Say(status=429, headers={"Retry-After": in_seconds(90)})
    server.on("/fhir/Patient/$export", busy, Say(status=500), *started)  # type: ignore[misc]
    server.on(
        "/files/o",
        Say(status=503, headers={"Retry-After": in_seconds(400)}),
        Say(OBSERVATIONS),
    )
    clock = Ticking()
    assert came_in(server, tmp_path, clock) == ALL
    assert clock.waits == [90, 2, 7, 7, pytest.approx(400 - 106)]


@pytest.mark.parametrize("where", ["/fhir/status/1", "../status/1"])
def test_relative_addresses(server: Double, tmp_path: Path, where: str) -> None:
    offers(
        server,
        output=[
            {"type": "Patient", "url": "/files/p"},
            {"type": "Observation", "url": "../../files/o"},
        ],
    )
    answer = Say(status=202, headers={"Content-Location": where})
    server.on("/fhir/Patient/$export", answer)
    assert came_in(server, tmp_path) == ALL


def test_byte_order_marks_and_other_line_ends(server: Double, tmp_path: Path) -> None:
    offers(server)
    server.on("/files/p", Say(b"\xef\xbb\xbf" + PATIENTS))
    server.on("/files/o", Say(b"\xef\xbb\xbf" + OBSERVATIONS.replace(b"\n", b"\r\n").rstrip()))
    assert came_in(server, tmp_path) == ALL


@pytest.mark.parametrize("sealed", [False, True])
@pytest.mark.parametrize(
    "headers", [{"Content-Encoding": "gzip"}, {"Content-Type": "application/gzip"}, {}]
)
def test_gzipped_files_said_or_not(
    server: Double, tmp_path: Path, headers: dict[str, str], sealed: bool
) -> None:
    offers(server, output=without_counts(server))
    server.on("/files/p", Say(gzip.compress(PATIENTS), headers=headers))
    server.on("/files/o", Say(gzip.compress(OBSERVATIONS), headers=headers))
    keyring = Keyring(keys={"k": fresh_key()}) if sealed else None
    assert came_in(server, tmp_path, keyring=keyring) == ALL


@pytest.mark.parametrize(
    "half",
    [
        OBSERVATIONS[:100_000],
        gzip.compress(OBSERVATIONS, mtime=0)[:3_000],
        gzip.compress(b"x", mtime=0)[:-1],
    ],
    ids=["plain", "packed", "packed short"],
)
def test_a_file_that_ends_within_a_resource_is_asked_for_again_then_refused(
    server: Double, tmp_path: Path, half: bytes
) -> None:
    """The manifest says no numbers, and nothing on the way says that it was cut off."""
    offers(server, output=without_counts(server))
    server.on("/files/o", Say(half), Say(OBSERVATIONS))
    assert came_in(server, tmp_path / "a") == ALL
    server.on("/files/o", Say(half))
    with pytest.raises(RecordError, match=r"file output 2 of 2 .* breaks off .*, twice; nothing"):
        came_in(server, tmp_path / "b")


def test_a_web_page_in_place_of_a_file_is_no_file(server: Double, tmp_path: Path) -> None:
    offers(server, output=without_counts(server))
    server.on("/files/o", Say(b"\n<!DOCTYPE html><title>Please sign in</title>\n"))
    with pytest.raises(RecordError, match=r"no longer there: a web page came in its place"):
        came_in(server, tmp_path)


def test_nothing_written_as_null(server: Double, tmp_path: Path) -> None:
    offers(server, error=None, deleted=None, link=None)
    assert came_in(server, tmp_path) == ALL


def test_a_manifest_that_comes_half_is_asked_for_again(server: Double, tmp_path: Path) -> None:
    whole = {
        "transactionTime": "2026-03-01T10:00:00Z",
        "requiresAccessToken": False,
        "output": without_counts(server),
        "link": [{"relation": "next", "url": f"{server.base}/page2"}],
    }
    rest = {"transactionTime": "2026-03-01T10:00:00Z", "output": []}
    offers(server)
    server.on("/fhir/status/1", Say(json.dumps(whole).encode()[:90]), Say(whole))
    server.on("/fhir/page2", Say(b"{"), Say(rest))
    assert came_in(server, tmp_path) == ALL
    server.on("/fhir/status/1", Say(b"{"))
    with pytest.raises(RecordError, match="expected JSON from"):
        came_in(server, tmp_path / "never")


def test_a_file_outlives_several_tokens(server: Double, tmp_path: Path) -> None:
    """Each token is taken once, and each answer breaks off."""
    gives_tokens(server, KEY.jwks())
    offers(server, token=True)
    used = set[str | None]()

    def part(request: Asked) -> Say:
        if request.token in used:
            return Say(status=401)
        used.add(request.token)
        start = int(request.headers.get("range", "bytes=0-")[6:-1])
        spans = {"Content-Range": f"bytes {start}-{len(OBSERVATIONS) - 1}/{len(OBSERVATIONS)}"}
        rest = OBSERVATIONS[start:]
        answer = {"status": 206, "headers": spans} if start else {}
        return Say(rest, cut=70_000 if len(rest) > 70_000 else None, **answer)

    server.on("/files/o", part)
    assert came_in(server, tmp_path) == ALL
    assert len(used) == 4


@pytest.mark.parametrize("sealed", [False, True])
@pytest.mark.parametrize("size", [0, 500, 70_000, 200_000])
def test_a_full_disk_is_said_and_the_next_try_goes_on(
    server: Double, tmp_path: Path, sealed: bool, size: int
) -> None:
    """A limit on the size of a file stands for the disk."""
    offers(server)
    keyring = Keyring(keys={"k": fresh_key()}) if sealed else None
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        with pytest.raises(RecordError, match=r"cannot write to .*: no room is left: free some"):
            came_in(server, tmp_path, keyring=keyring)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert came_in(server, tmp_path, keyring=keyring) == ALL
