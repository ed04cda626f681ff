"""Who is not let in, by a coordinator as a real process; its log says why, and it lives on."""

import asyncio
import random
import re
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fedtwin.demo.consortium import LocalConsortium
from fedtwin_protocol.channel import grpc, method
from fedtwin_protocol.credentials import (
    Credentials,
    certificates_to_pem,
    load_credentials,
    load_key,
    new_key_and_request,
)
from fedtwin_protocol.identity import certificates_from_pem
from fedtwin_protocol.invitation import Invitation, read_invitation
from fedtwin_protocol.v1 import exchange_pb2 as pb
from fedtwin_server.authority import create_authority
from fedtwin_server.certificates import Holder, Signer, leaf_certificate, requested_key

Code = grpc.StatusCode
OUR_CLASSES = ("fedtwin_", "exchange_pb2", "FromSite", "DecodeError", "Traceback", "Exception")


@dataclass
class Open:
    """A coordinator with the site alpha, and what its log said since the last look."""

    consortium: LocalConsortium
    seen: int = 0

    @property
    def address(self) -> str:
        return f"localhost:{self.consortium.port}"

    @property
    def home(self) -> Path:
        return self.consortium.server

    @property
    def site(self) -> Credentials:
        return load_credentials(self.consortium.site("alpha") / "identity")

    def new_log(self) -> str:
        text = (self.consortium.folder / "coordinator.log").read_text()
        self.seen, start = len(text), self.seen
        return text[start:]

    def logged(self, sentence: str, patience_s: float = 10.0) -> str:
        """Wait for a sentence in the log's new part; returns that part."""
        deadline, text = time.monotonic() + patience_s, ""
        while sentence not in text:
            assert time.monotonic() < deadline, f"expected {sentence!r} in the log, got {text!r}"
            time.sleep(0.02)
            text += self.new_log()
        return text


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalConsortium]:
    folder = tmp_path_factory.mktemp("refused") / "consortium"
    with LocalConsortium(folder=folder) as made:
        made.open()
        made.enrol("alpha")
        yield made


@pytest.fixture
def door(running: LocalConsortium, ask: Callable) -> Iterator[Open]:
    """Whatever a test does to it, the coordinator serves the good site afterwards."""
    door = Open(running)
    door.new_log()
    yield door
    assert ask(door.address, door.site) == (Code.OK, b"")


def handshake(door: Open, certificate: Credentials | None, highest: ssl.TLSVersion) -> str:
    """Shake hands as another program would; returns what came of it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=door.site.roots_pem.decode())
    context.maximum_version = highest
    context.set_alpn_protocols(["h2"])
    if certificate is not None:
        pair = door.consortium.folder / "pair.pem"
        pair.write_bytes(certificate.key_pem + certificate.chain_pem)
        context.load_cert_chain(pair)
    try:
        with (
            socket.create_connection(("localhost", door.consortium.port), 5) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as secure,
        ):
            secure.settimeout(5)
            return "served" if secure.recv(1) else "closed"
    except (ssl.SSLError, ConnectionError):
        return "closed"


def test_the_good_site_is_served(door: Open) -> None:
    """Otherwise the refusals below would show nothing."""
    assert handshake(door, door.site, ssl.TLSVersion.TLSv1_3) == "served"


def test_no_certificate(door: Open) -> None:
    assert handshake(door, None, ssl.TLSVersion.TLSv1_3) == "closed"
    door.logged("refused a connection while it was set up: the peer showed no certificate")


def test_tls_1_2(door: Open) -> None:
    assert handshake(door, door.site, ssl.TLSVersion.TLSv1_2) == "closed"
    door.logged("refused a connection while it was set up: the peer offered no TLS 1.3")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
@pytest.mark.parametrize(
    ("option", "agreed"), [("-tls1_1", b"(NONE)"), ("-tls1_2", b"(NONE)"), ("-tls1_3", b"TLSv1.3")]
)
def test_openssl_can_agree_on_tls_1_3_only(door: Open, option: str, agreed: bytes) -> None:
    pair = str(door.consortium.site("alpha") / "identity" / "credentials.pem")
    words = ["-connect", door.address, "-alpn", "h2", "-cert", pair, "-key", pair]
    done = subprocess.run(
        ["openssl", "s_client", option, "-cipher", "ALL@SECLEVEL=0", *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=20,
        check=False,
    )
    found = re.search(rb"New, (\S+), Cipher", done.stdout)
    assert found is not None
    assert found[1] == agreed


def test_plaintext(door: Open) -> None:
    with socket.create_connection(("localhost", door.consortium.port), 5) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        plain.settimeout(5)
        assert plain.recv(100) == b""
    door.logged("refused a connection while it was set up: the peer does not speak TLS")


def expired(door: Open, issue: Callable) -> Credentials:
    credentials = issue(door.home, "site", "alpha", lifetime=timedelta(seconds=1))
    time.sleep(1.2)
    return credentials


def future(door: Open, issue: Callable) -> Credentials:
    return issue(door.home, "site", "alpha", now=datetime.now(UTC) + timedelta(hours=2))


def of_another_ca(door: Open, issue: Callable) -> Credentials:
    """Another CA that calls itself by the same name."""
    home = door.consortium.folder / "impostor"
    create_authority(
        home,
        consortium=door.consortium.name,
        addresses=["localhost"],
        now=datetime.now(UTC),
        root_folder=home / "offline",
    )
    forged = issue(home, "site", "alpha")
    return replace(forged, roots_pem=door.site.roots_pem)


def of_the_coordinator(door: Open, issue: Callable) -> Credentials:
    del issue
    return load_credentials(door.home / "coordinator")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (expired, "the peer's certificate has expired"),
        (future, "the peer's certificate is not valid yet"),
        (of_another_ca, "the peer's certificate was not issued by this consortium"),
        (of_the_coordinator, "the peer's certificate was made for another use"),
    ],
)
def test_a_certificate_that_fails_while_connecting(
    door: Open, issue: Callable, ask: Callable, make: Callable, reason: str
) -> None:
    code, sentence = ask(door.address, make(door, issue))
    assert code == Code.UNAVAILABLE
    assert "or it does not accept this certificate, and its log says why" in sentence
    door.logged(f"refused a connection while it was set up: {reason}")


def test_a_certificate_of_another_consortium_below_the_same_ca(door: Open, ask: Callable) -> None:
    """TLS accepts it, since our CA has signed it; the guard does not."""
    issuing, now = load_credentials(door.home / "authority"), datetime.now(UTC)
    signer = Signer(
        certificate=certificates_from_pem(issuing.chain_pem)[0], key=load_key(issuing.key_pem)
    )
    key_pem, request = new_key_and_request()
    holder = Holder(consortium="another", role="site", name="alpha")
    leaf = leaf_certificate(signer, requested_key(request), holder, now, now + timedelta(hours=1))
    chain_pem = certificates_to_pem([leaf]) + issuing.chain_pem
    stranger = Credentials(key_pem=key_pem, chain_pem=chain_pem, roots_pem=issuing.roots_pem)
    code, sentence = ask(door.address, stranger)
    assert code == Code.UNAUTHENTICATED
    assert "expected a certificate of demo, got one of another" in sentence
    door.logged("expected a certificate of demo, got one of another")


def test_a_revoked_certificate(door: Open, ask: Callable) -> None:
    door.consortium.enrol("revoked-one")
    credentials = load_credentials(door.consortium.site("revoked-one") / "identity")
    assert ask(door.address, credentials)[0] == Code.OK
    door.consortium.run("server", "revoke", "revoked-one", "--home", str(door.home))
    for call in ("ListReleases", "Renew", "Link"):
        code, sentence = ask(door.address, credentials, call)
        assert code == Code.UNAUTHENTICATED
        assert re.search("of spiffe://demo/site/revoked-one was revoked at 2.* UTC", sentence)
    door.logged("of spiffe://demo/site/revoked-one was revoked at")


def invited(door: Open, name: str) -> Invitation:
    path = door.consortium.folder / f"{name}.invitation"
    if not path.exists():
        door.consortium.run("server", "invite", name, "--home", str(door.home), "--out", str(path))
    return read_invitation(path, datetime.now(UTC))


@pytest.mark.parametrize(
    ("role", "call", "allowed"),
    [
        ("researcher", "Link", "site"),
        ("researcher", "Enrol", "invited-site or invited-researcher"),
        ("site", "Enrol", "invited-site or invited-researcher"),
        ("invited-site", "Link", "site"),
        ("invited-site", "Renew", "site or researcher"),
        ("invited-site", "ListReleases", "site or researcher"),
        ("invited-site", "FetchFile", "site or researcher"),
        ("invited-site", "AskLog", "site or researcher"),
    ],
)
def test_a_role_can_make_its_own_calls_only(
    door: Open, issue: Callable, ask: Callable, role: str, call: str, allowed: str
) -> None:
    if role == "invited-site":
        credentials = invited(door, "guest").bootstrap_credentials()
    else:
        credentials = issue(door.home, role, "somebody")
    code, sentence = ask(door.address, credentials, call)
    assert code == Code.PERMISSION_DENIED
    expected = f"this call is for {allowed}, not for {role}"
    assert expected in sentence
    door.logged(f"{credentials.identity.uri} (ipv")
    assert expected in (door.consortium.folder / "coordinator.log").read_text()


BAD_MESSAGES = {
    "garbage": b"\xff" * 100,
    "cut short": pb.RenewRequest(request=b"x" * 50).SerializeToString()[:-20],
    "unknown text that is no UTF-8": b"\x1a\x02\xff\xfe",
    "unknown field": b"\xa2\x06" + b"\x80\x80\x40" + bytes(1024 * 1024),
}


@pytest.mark.parametrize("name", BAD_MESSAGES)
@pytest.mark.parametrize("call", ["Renew", "ListReleases", "Link"])
def test_a_malformed_message(
    door: Open, raw_site: type, name: str, call: str, ask: Callable
) -> None:
    if call == "Link":
        code, sentence = asyncio.run(said_on_the_link(door, raw_site, BAD_MESSAGES[name]))
    else:
        code, sentence = ask(door.address, door.site, call, BAD_MESSAGES[name])
    assert code == Code.INVALID_ARGUMENT
    assert (
        "the message cannot be read" in sentence or "fields that this version does not" in sentence
    )
    assert not [word for word in OUR_CLASSES if word in sentence]
    door.logged(sentence.rpartition(": ")[2])


def test_a_request_of_an_unknown_version(door: Open, ask: Callable) -> None:
    """A request for a certificate that fails deep inside the library that reads it."""
    _, request = new_key_and_request()
    odd = request.replace(b"\x02\x01\x00", b"\x02\x01\x10", 1)
    message = pb.RenewRequest(request=odd).SerializeToString()
    code, sentence = ask(door.address, door.site, "Renew", message)
    assert code == Code.PERMISSION_DENIED
    assert "expected a certificate signing request (PKCS#10)" in sentence
    assert not [word for word in OUR_CLASSES if word in sentence]
    door.logged("expected a certificate signing request (PKCS#10)")


async def said_on_the_link(door: Open, raw_site: type, message: bytes) -> tuple[Code, str]:
    async with raw_site(door.consortium, "alpha") as site:
        await site.greet()
        await site.send(message)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await site.receive("received")
        return caught.value.code(), caught.value.details()


def test_random_bytes_are_answered_with_sentences(door: Open) -> None:
    chance = random.Random(20)
    bad = [chance.randbytes(chance.randint(1, 200)) for _ in range(100)]
    answers = asyncio.run(many(door, "Renew", bad))
    assert {code for code, _ in answers} <= {Code.INVALID_ARGUMENT, Code.PERMISSION_DENIED}
    assert not [text for _, text in answers if any(word in text for word in OUR_CLASSES)]


async def many(door: Open, call: str, requests: Sequence[bytes]) -> list[tuple[Code, str]]:
    """Send requests without limits of our own, to see those of the coordinator."""
    credentials = door.site
    tls = grpc.ssl_channel_credentials(
        credentials.roots_pem, credentials.key_pem, credentials.chain_pem
    )
    options = [("grpc.max_send_message_length", -1), ("grpc.enable_http_proxy", 0)]
    packed = grpc.Compression.Gzip if call == "compressed" else None
    found = []
    async with grpc.aio.secure_channel(door.address, tls, options, packed) as channel:
        for request in requests:
            metadata = (("x-long", "a" * 20_000),) if call == "20 kB of metadata" else ()
            made = channel.stream_stream(method(call if call in {"Renew", "Link"} else "Link"))
            stream = made(metadata=metadata)
            try:
                await stream.write(request)
                await stream.done_writing()
                await stream.read()
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
                pass
            found.append((await stream.code(), await stream.details()))
    return found


@pytest.mark.parametrize("call", ["Renew", "Link", "compressed", "20 kB of metadata"])
def test_what_is_too_large(door: Open, call: str) -> None:
    """Also if it is small on the line: 64 MiB of zeros are 64 kB of gzip."""
    sizes = {"compressed": 64, "20 kB of metadata": 0}
    request = bytes(sizes.get(call, 9) * 1024 * 1024)
    ((code, sentence),) = asyncio.run(many(door, call, [request]))
    assert code == Code.RESOURCE_EXHAUSTED
    assert "larger than max" in sentence or "metadata size exceeds hard limit" in sentence
    assert not [word for word in OUR_CLASSES if word in sentence]


def test_a_good_site_is_answered_beside_crowds_that_stay_silent(door: Open, ask: Callable) -> None:
    """Three hundred idle sockets, and some that sent a part of a handshake."""
    crowd = []
    try:
        for index in range(300):
            plain = socket.create_connection(("localhost", door.consortium.port), 10)
            crowd.append(plain)
            if index % 10 == 0:
                plain.sendall(b"\x16\x03\x01\x02\x00")
        began = time.monotonic()
        assert ask(door.address, door.site)[0] == Code.OK
        assert time.monotonic() - began < 5
    finally:
        for plain in crowd:
            plain.close()
