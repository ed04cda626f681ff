"""Whoever records the traffic today cannot read it with tomorrow's quantum computer.

Both ends of a link agree on a key by X25519 and ML-KEM-768 together; a caller that offers X25519
alone is refused before anything is said.
"""

import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from fedtwin.demo.consortium import LocalConsortium
from fedtwin_protocol.channel import grpc
from fedtwin_protocol.credentials import load_credentials

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
HEADERS = {
    ":method": "POST",
    ":scheme": "https",
    ":path": "/fedtwin.v1.Exchange/ListReleases",
    ":authority": "localhost",
    "content-type": "application/grpc",
    "te": "trailers",
}
X25519MLKEM768, X25519, P256 = 0x11EC, 0x001D, 0x0017
OFFER, CHOICE, KEY_SHARE = 1, 2, 51


@pytest.fixture(scope="module")
def consortium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalConsortium]:
    with LocalConsortium(folder=tmp_path_factory.mktemp("keys") / "consortium") as made:
        made.open()
        made.enrol("alpha")
        yield made


def test_our_own_ends_agree_by_the_hybrid_group(
    consortium: LocalConsortium, ask: Callable, recorded: Callable
) -> None:
    """As somebody on the line sees it, in the clear part of the handshake."""
    credentials = load_credentials(consortium.site("alpha") / "identity")
    with recorded(consortium.port) as line:
        assert ask(f"localhost:{line.port}", credentials)[0] == grpc.StatusCode.OK
    assert group_of(line.back, CHOICE) == X25519MLKEM768
    assert group_of(line.forth, OFFER) == X25519MLKEM768


def test_a_caller_without_it_is_refused(
    consortium: LocalConsortium, tmp_path: Path, recorded: Callable
) -> None:
    """A good site's certificate over a handshake of the system's OpenSSL, which has X25519 only."""
    if ssl.OPENSSL_VERSION_INFO >= (3, 5):
        pytest.skip("this OpenSSL offers ML-KEM by itself")
    identity = consortium.site("alpha") / "identity"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=load_credentials(identity).roots_pem.decode())
    context.load_cert_chain(identity / "credentials.pem")
    context.set_alpn_protocols(["h2"])
    with (
        recorded(consortium.port) as line,
        socket.create_connection(("localhost", line.port), 10) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as secure,
    ):
        answer = one_call(secure)
    assert group_of(line.back, CHOICE) in {X25519, P256}
    assert b"expected a key agreement with ML-KEM, the connection has" in answer
    log = (consortium.folder / "coordinator.log").read_text()
    assert "expected a key agreement with ML-KEM" in log


def one_call(secure: ssl.SSLSocket) -> bytes:
    """Ask for the list of releases in HTTP/2 by hand; what comes back until the answer ends."""
    block = b"".join(
        b"\x00" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
        for name, value in HEADERS.items()
    )
    secure.sendall(PREFACE + SETTINGS + frame(1, 4, block) + frame(0, 1, bytes(5)))
    secure.settimeout(5)
    answer = b""
    with suppress(TimeoutError):
        while b"grpc-status" not in answer and (data := secure.recv(65536)):
            answer += data
    return answer


def frame(kind: int, flags: int, body: bytes) -> bytes:
    return len(body).to_bytes(3, "big") + bytes([kind, flags]) + (1).to_bytes(4, "big") + body


def group_of(data: bytes, kind: int) -> int:
    """The key exchange group in a hello (RFC 8446, sections 4.1.2, 4.1.3 and 4.2.8)."""
    assert data[0] == 22
    assert data[5] == kind
    place = 9 + 2 + 32
    place += 1 + data[place]  # session
    if kind == OFFER:
        place += 2 + int.from_bytes(data[place : place + 2], "big")  # ciphers
        place += 1 + data[place]  # compressions
    else:
        place += 3
    end = place + 2 + int.from_bytes(data[place : place + 2], "big")
    place += 2
    while place < end:
        number = int.from_bytes(data[place : place + 2], "big")
        size = int.from_bytes(data[place + 2 : place + 4], "big")
        if number == KEY_SHARE:
            first = place + 4 + (2 if kind == OFFER else 0)
            return int.from_bytes(data[first : first + 2], "big")
        place += 4 + size
    raise AssertionError("the hello names no group")
