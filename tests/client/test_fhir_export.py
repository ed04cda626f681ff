"""Bulk Data export from a server that behaves, and from one that does not."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from fedtwin_client.at_rest.boxes import fresh_key
from fedtwin_client.at_rest.keyring import Keyring
from fedtwin_client.records.fhir_server.downloads import Folder
from fedtwin_client.records.fhir_server.export import Asked as Wanted
from fedtwin_client.records.fhir_server.export import Export
from fedtwin_client.records.fhir_server.fetched import fetched
from fedtwin_client.records.fhir_server.keys import FhirKey, keep_key, make_key, read_key
from fedtwin_client.records.fhir_server.signing_in import SignedIn, discover
from fedtwin_client.records.fhir_server.web import Clock, Web
from fedtwin_client.store.imports import import_source
from fedtwin_client.store.timeline import Timeline
from fedtwin_protocol.errors import ConfigurationError, RecordError

from .fhir_double import NOW, Asked, Double, Say, Ticking, double, gives_tokens, needs_token
from .fhir_exports import (
    KEY,
    OBSERVATIONS,
    OPEN,
    PATIENTS,
    export_of,
    lines,
    offers,
    opened,
    patient,
)

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
    assert Folder(tmp_path, keyring).lines(tmp_path / "output-00002-Observation.ndjson") == 900


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


def test_a_token_that_runs_out_is_renewed_before_and_after(server: Double, tmp_path: Path) -> None:
    gives_tokens(server, KEY.jwks(), life=10)
    offers(server, token=True)
    clock = Ticking()
    export_of(server, tmp_path, clock).fetch()  # 14 seconds of waiting
    assert len(server.asked("/token")) == 2
    last = [one.token for one in server.asked("/files/o")]
    assert last == ["Bearer secret-2"]


def test_a_token_that_is_refused_is_renewed_once(server: Double, tmp_path: Path) -> None:
    gives_tokens(server, KEY.jwks())
    offers(server, token=True)
    server.on("/files/o", needs_token(Say(OBSERVATIONS), "secret-2"))
    export_of(server, tmp_path / "a").fetch()
    server.on("/files/o", Say(status=401))
    with pytest.raises(RecordError, match="does not take the token"):
        export_of(server, tmp_path / "b").fetch()


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


class TestTheTokenGoesNowhereElse:
    """Row 37 of the threats: a server, or who stands in its place, names another host."""

    def test_files_elsewhere_that_want_the_token_are_not_asked(
        self, server: Double, elsewhere: Double, tmp_path: Path
    ) -> None:
        gives_tokens(server, KEY.jwks())
        offers(server, token=True, output=[{"type": "Patient", "url": f"{elsewhere.origin}/f"}])
        with pytest.raises(RecordError, match=r"wants its token shown to .* for .* alone"):
            export_of(server, tmp_path).fetch()
        assert elsewhere.requests == []

    def test_files_elsewhere_that_want_none_get_none(
        self, server: Double, elsewhere: Double, tmp_path: Path
    ) -> None:
        gives_tokens(server, KEY.jwks())
        offers(server, output=[{"type": "Patient", "url": f"{elsewhere.origin}/f", "count": 3}])
        elsewhere.on("/f", Say(PATIENTS))
        export_of(server, tmp_path).fetch()
        assert [one.token for one in elsewhere.requests] == [None]
        assert "secret" not in str(elsewhere.requests)

    def test_redirects_to_another_host_do_not_carry_it(
        self, server: Double, elsewhere: Double, tmp_path: Path
    ) -> None:
        gives_tokens(server, KEY.jwks())
        offers(server, token=True)
        for path, target in (("/files/p", "/p"), ("/files/o", "/o")):
            server.on(path, Say(status=307, headers={"Location": f"{elsewhere.origin}{target}"}))
        elsewhere.on("/p", Say(PATIENTS))
        elsewhere.on("/o", Say(OBSERVATIONS))
        export_of(server, tmp_path).fetch()
        assert {one.token for one in server.asked("/files/p")} == {"Bearer secret-1"}
        assert [one.token for one in elsewhere.requests] == [None, None]

    def test_a_status_address_elsewhere_is_not_asked(
        self, server: Double, elsewhere: Double, tmp_path: Path
    ) -> None:
        gives_tokens(server, KEY.jwks())
        offers(server)
        there = {"Content-Location": f"{elsewhere.origin}/status"}
        server.on("/fhir/Patient/$export", Say(status=202, headers=there))
        with pytest.raises(RecordError, match="the token is for the server itself alone"):
            export_of(server, tmp_path).fetch()
        assert elsewhere.requests == []

    def test_what_is_signed_is_not_sent_on(
        self, server: Double, elsewhere: Double, tmp_path: Path
    ) -> None:
        gives_tokens(server, KEY.jwks())
        offers(server)
        server.on("/token", Say(status=307, headers={"Location": f"{elsewhere.origin}/token"}))
        with pytest.raises(RecordError, match=r"gives no token .status 307"):
            export_of(server, tmp_path).fetch()
        assert elsewhere.requests == []

    @pytest.mark.parametrize("url", ["http://fhir.example.org/f", "ftp://x/f", "https://u:p@x/f"])
    def test_addresses_that_nobody_may_ask_are_refused(
        self, server: Double, tmp_path: Path, url: str
    ) -> None:
        offers(server, output=[{"type": "Patient", "url": url}])
        with pytest.raises(RecordError, match=r"not encrypted|expected an address"):
            export_of(server, tmp_path).fetch()


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ({"output": "x"}, "the manifest of the export is not one: output"),
        ({"output": [{"url": "x", "type": "../../etc"}]}, "not one: output.0.type"),
        ({"transactionTime": None}, "not one: transactionTime"),
        ({"output": [{"type": "Patient", "url": "files/p"}]}, "expected an address"),
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


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://fhir.example.org/r4", "is not encrypted"),
        ("fhir.example.org", "expected an address"),
        ("https://user:word@fhir.example.org", "without a user's name"),
        ("https://fhir.example.org/r4?x=1", "without '\\?'"),
        ("https://fhir.example.org:99999/", "expected a port"),
    ],
)
def test_addresses_of_servers_are_checked(url: str, said: str) -> None:
    clock = Ticking()
    with pytest.raises(RecordError, match=said):
        Web(url, Clock(now=clock.now, wait=clock.wait))


def test_a_server_that_is_none_is_told_in_a_sentence(server: Double) -> None:
    with opened(server, Ticking()) as web:
        with pytest.raises(RecordError, match="metadata answers 404: nothing is there"):
            discover(web)
        server.on("/fhir/metadata", Say(b"<html>hello</html>"))
        with pytest.raises(RecordError, match="is this the address of a FHIR server"):
            discover(web)
        server.on("/fhir/metadata", Say({"resourceType": "CapabilityStatement"}))
        with pytest.raises(RecordError, match="names no place that gives tokens"):
            SignedIn(web, discover(web), key=KEY, client_id="x", scopes="s")


def test_an_older_server_declares_its_token_endpoint_in_its_statement(server: Double) -> None:
    address = "http://fhir-registry.smarthealthit.org/StructureDefinition/oauth-uris"
    inner = [{"url": "token", "valueUri": "https://auth.example.org/token"}]
    security = {"extension": [{"url": address, "extension": inner}]}
    server.on("/fhir/metadata", Say({"rest": [{"mode": "server", "security": security}]}))
    with opened(server, Ticking()) as web:
        assert discover(web).token_url == "https://auth.example.org/token"


@pytest.mark.parametrize("algorithm", ["ES384", "RS384"])
def test_keys_sign_in_and_are_kept_apart_from_others(
    server: Double, tmp_path: Path, algorithm: Any
) -> None:
    key = make_key(algorithm)
    keyring = Keyring(keys={"k": fresh_key()})
    path = tmp_path / "epic.key.pem"
    keep_key(path, key, keyring)
    assert b"PRIVATE" not in path.read_bytes()
    with pytest.raises(ConfigurationError, match="is there already"):
        keep_key(path, key, keyring)
    again = read_key(path, keyring)
    assert (again.kid, again.algorithm) == (key.kid, algorithm)
    assert set(key.jwks()["keys"][0]) & {"d", "p", "q", "dp"} == set()
    gives_tokens(server, key.jwks())
    with opened(server, Ticking()) as web:
        tokens = SignedIn(web, discover(web), key=again, client_id="node", scopes="system/*.rs")
        assert tokens.token() == "secret-1"
        other = SignedIn(web, discover(web), key=again, client_id="x", scopes="system/x.read")
        with pytest.raises(RecordError, match=rf"kid {key.kid}.*system/x.read.*granted"):
            other.token()
    path.chmod(0o644)
    with pytest.raises(ConfigurationError, match="is open to others"):
        read_key(path, keyring)


def test_a_key_of_another_kind_is_refused(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric import ec

    with pytest.raises(ConfigurationError, match="expected a key on the curve P-384"):
        FhirKey(ec.generate_private_key(ec.SECP256R1()))
    (tmp_path / "k").write_bytes(b"no key")
    (tmp_path / "k").chmod(0o600)
    with pytest.raises(ConfigurationError, match="as a private key in PEM"):
        read_key(tmp_path / "k", None)
