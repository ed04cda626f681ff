"""Tokens, keys and addresses of a Bulk Data server: what is shown to whom."""

from pathlib import Path
from typing import Any

import pytest

from fedtwin_client.at_rest.boxes import fresh_key
from fedtwin_client.at_rest.keyring import Keyring
from fedtwin_client.records.fhir.server.keys import FhirKey, keep_key, make_key, read_key
from fedtwin_client.records.fhir.server.signing_in import SignedIn, discover
from fedtwin_client.records.fhir.server.web import Clock, Web
from fedtwin_protocol.errors import ConfigurationError, RecordError

from .fhir_double import Double, Say, Ticking, gives_tokens, needs_token
from .fhir_exports import KEY, OBSERVATIONS, PATIENTS, export_of, offers, opened


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
