"""Whatever a FHIR server answers, the node ends in a sentence; and its files stay sealed."""

import json
import ssl
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedtwin_client.at_rest.boxes import fresh_key
from fedtwin_client.at_rest.files import SealedWriter, open_file, read_whole, write_whole
from fedtwin_client.at_rest.keyring import Keyring
from fedtwin_client.fhir_import import make_fhir_key, read_fhir_key
from fedtwin_client.node.home import NodeHome
from fedtwin_client.node.sealing import make_keys, rotate, seal
from fedtwin_client.records.fhir.server.downloads import Folder
from fedtwin_client.records.fhir.server.export import Asked as Wanted
from fedtwin_client.records.fhir.server.export import Export
from fedtwin_client.records.fhir.server.paged import Search, Searched
from fedtwin_client.records.fhir.server.signing_in import SignedIn, discover
from fedtwin_client.records.fhir.server.web import Clock, Web, outcome_of, retry_after
from fedtwin_client.records.report import Place, Tally
from fedtwin_client.records.resources import resources_of
from fedtwin_protocol.errors import ConfigurationError, RecordError

from .fhir_double import NOW, Say, Ticking, double

NAMES = st.sampled_from(
    [
        *(
            "resourceType",
            "entry",
            "link",
            "relation",
            "url",
            "resource",
            "search",
            "mode",
            "total",
        ),
        *("output", "deleted", "error", "type", "count", "transactionTime", "issue", "details"),
        *("requiresAccessToken", "token_endpoint", "rest", "security", "extension", "request"),
        *("access_token", "token_type", "expires_in", "method", "response", "diagnostics"),
    ]
)
WORDS = st.sampled_from(
    [
        *(
            "Bundle",
            "next",
            "http://127.0.0.1:1/x",
            "/fhir/Observation",
            "//",
            "http://[",
            "Bearer",
        ),
        *("DELETE", "Observation/1", "https://u:p@h/", "data:x", "2026-03-01T10:00:00Z", ""),
    ]
)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 10**12) | st.floats() | st.text(max_size=6) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=5),
    max_leaves=15,
)
BODIES = ANYTHING.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=40)
QUICK = settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))


@QUICK
@given(body=BODIES, status=st.sampled_from([200, 204, 302, 400, 401, 500]))
def test_whatever_is_answered_it_ends_in_a_sentence(
    body: bytes, status: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    clock = Ticking()
    folder = Folder(tmp_path_factory.mktemp("d"), None)
    with double() as server:
        headers = {"Content-Location": f"{server.base}/s", "Location": "/fhir/elsewhere"}
        for path in (
            *("Patient/$export", "s", "Observation", "elsewhere", "metadata"),
            ".well-known/smart-configuration",
        ):
            server.on(f"/fhir/{path}", Say(body, status=status, headers=headers))
        server.on("/fhir/Patient/$export", Say(body, status=202, headers=headers))
        with Web(server.base, Clock(now=clock.now, wait=clock.wait), timeout_s=5) as web:
            for attempt in (
                lambda: discover(web),
                lambda: Export(web, folder, Wanted(), lambda _: None).fetch(),
                lambda: Search(web, folder, Searched(types=("Observation",)), print).fetch(),
            ):
                with suppress(RecordError):
                    attempt()


@QUICK
@given(value=ANYTHING, text=st.text(max_size=30))
def test_small_parts_take_anything(value: Any, text: str) -> None:
    outcome_of(json.dumps(value).encode())
    waiting = retry_after({"retry-after": text}, NOW)
    assert waiting is None or 0 <= waiting <= 600
    tally = Tally(quarantine=None)
    if isinstance(value, dict):
        found = list(resources_of(value, Place("f", 1), tally))
        assert found or tally.reasons or value.get("entry") == []


def test_a_token_that_is_none_is_refused() -> None:
    from fedtwin_client.records.fhir.server.keys import make_key

    clock = Ticking()
    with double() as server:
        server.on(
            "/fhir/.well-known/smart-configuration", Say({"token_endpoint": f"{server.base}/t"})
        )
        with Web(server.base, Clock(now=clock.now, wait=clock.wait), timeout_s=5) as web:
            tokens = SignedIn(web, discover(web), key=make_key("ES384"), client_id="x", scopes="s")
            for said, why in (
                ({"access_token": "a\nb", "token_type": "bearer"}, "without an access token"),
                ({"access_token": 5, "token_type": "bearer"}, "without an access token"),
                ({"access_token": "a", "token_type": "mac"}, "no bearer token"),
                ([], "a JSON object"),
            ):
                server.on("/fhir/t", Say(said))
                with pytest.raises(RecordError, match=why):
                    tokens.token()
            for life in (None, -1, "x", 10**9):
                server.on(
                    "/fhir/t",
                    Say({"access_token": "a", "token_type": "Bearer", "expires_in": life}),
                )
                tokens.renew()
                assert tokens.token() == "a"


def test_a_server_whose_certificate_nobody_vouches_for_is_not_spoken_to(tmp_path: Path) -> None:
    """Unless the hospital's CA is named."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "fhir")])
    address = x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))])
    today = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(today - timedelta(days=1))
        .not_valid_after(today + timedelta(days=1))
        .add_extension(address, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    ca = tmp_path / "ca.crt"
    ca.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (tmp_path / "key").write_bytes(key.private_bytes(serialization.Encoding.PEM, *private))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(ca, tmp_path / "key")
    clock = Ticking()
    time = Clock(now=clock.now, wait=clock.wait)
    with double(context) as server:
        server.on("/fhir/metadata", Say({"resourceType": "CapabilityStatement"}))
        with (
            Web(server.base, time) as web,
            pytest.raises(RecordError, match=r"is not trusted.*--ca"),
        ):
            discover(web)
        assert (server.requests, clock.waits) == ([], [])
        with Web(server.base, time, ca=ca) as web:
            assert discover(web).token_url is None


def test_a_file_that_broke_off_goes_on_after_its_last_whole_piece(tmp_path: Path) -> None:
    """Cut anywhere, also inside the length of a piece: nothing is lost and nothing is doubled."""
    keyring = Keyring(keys={"k": fresh_key()})
    text = bytes(range(256)) * 1024  # four pieces of 64 KiB
    path, name = tmp_path / "f.part", "f"
    writer = SealedWriter(path, keyring, name=name)
    writer.write(text)
    writer.leave()
    whole = path.read_bytes()
    for cut in (0, 5, 17, 19, 40, 65_000, 65_600, 131_200, len(whole) - 1, len(whole)):
        path.write_bytes(whole[:cut])
        again = SealedWriter(path, keyring, name=name, resume=True)
        assert again.length % 65_536 == 0
        again.write(text[again.length :] + b"end")
        again.close()
        path.replace(tmp_path / name)
        with open_file(tmp_path / name, keyring) as file:
            assert file.read() == text + b"end"


def test_short_files_are_written_whole(tmp_path: Path) -> None:
    keyring = Keyring(keys={"k": fresh_key()})
    for key in (None, keyring):
        write_whole(tmp_path / "f", b"secret", key)
        assert (tmp_path / "f").stat().st_mode & 0o077 == 0
        assert read_whole(tmp_path / "f", key) == b"secret"
    assert b"secret" not in (tmp_path / "f").read_bytes()
    with pytest.raises(ConfigurationError, match="does not open"):
        read_whole(tmp_path / "f", Keyring(keys={"k": fresh_key()}))


def test_keys_and_downloads_are_sealed_and_rotated_with_the_node(tmp_path: Path) -> None:
    home = NodeHome(folder=tmp_path / "node")
    home.folder.mkdir(mode=0o700)
    settings_of = {"consortium": "demo", "site": "st-olav", "coordinator": "localhost:1"}
    home.settings_file.write_text(yaml.safe_dump(settings_of))
    key = make_fhir_key(home, "epic", "ES384")
    downloads = home.records / "downloads" / "epic"
    Folder(downloads, None).write("output-00001-Patient.ndjson", b"Amy Shaw")
    (downloads / "output-00002-Patient.ndjson.part").write_bytes(b"Amy")
    make_keys(home)
    seal(home, take_plain=True)
    for _ in range(2):
        files = [path for path in home.folder.rglob("*") if path.is_file()]
        held = b"".join(path.read_bytes() for path in files)
        assert b"Amy" not in held
        assert b"PRIVATE" not in held
        assert read_fhir_key(home, "epic").kid == key.kid
        assert not list(downloads.glob("*.part"))
        rotate(home)
