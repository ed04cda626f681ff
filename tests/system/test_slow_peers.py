"""Peers that connect and then do nothing, or almost: each is cut off, and nobody waits for them."""

import resource
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from fedtwin.demo.consortium import LocalConsortium
from fedtwin_protocol.channel import grpc
from fedtwin_protocol.credentials import load_credentials

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
# Ten seconds for a handshake, in which TLS and the first settings must be done; and some more for
# a busy machine, so that a handshake without a limit (two minutes in the library) still shows.
HANDSHAKE_S = 10 + 8
# Twenty seconds until a ping and ten for its answer; and some more.
SILENT_LINK_S = 20 + 10 + 8


@dataclass
class Ground:
    """A coordinator with one good site, and a way to reach it as other programs would."""

    consortium: LocalConsortium

    @property
    def address(self) -> str:
        return f"localhost:{self.consortium.port}"

    @property
    def identity(self) -> Path:
        return self.consortium.site("alpha") / "identity"

    def plain(self) -> socket.socket:
        return socket.create_connection(("localhost", self.consortium.port), 10)

    def secure(self, *protocols: str) -> ssl.SSLSocket:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        roots = load_credentials(self.identity).roots_pem.decode()
        context.load_verify_locations(cadata=roots)
        context.load_cert_chain(self.identity / "credentials.pem")
        if protocols:
            context.set_alpn_protocols(list(protocols))
        return context.wrap_socket(self.plain(), server_hostname="localhost")


def says_nothing(ground: Ground) -> socket.socket:
    return ground.plain()


def drips(ground: Ground) -> socket.socket:
    """A TLS record, a byte every half second."""
    plain = ground.plain()

    def drip() -> None:
        with suppress(OSError):
            for byte in b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200):
                plain.sendall(bytes([byte]))
                time.sleep(0.5)

    threading.Thread(target=drip, daemon=True).start()
    return plain


def stops_after_tls(ground: Ground) -> socket.socket:
    return ground.secure("h2")


def speaks_no_http(ground: Ground) -> socket.socket:
    return ground.secure()


def stops_in_the_preface(ground: Ground) -> socket.socket:
    secure = ground.secure("h2")
    secure.sendall(PREFACE[:10])
    return secure


def stops_after_the_preface(ground: Ground) -> socket.socket:
    secure = ground.secure("h2")
    secure.sendall(PREFACE)
    return secure


def never_answers_a_ping(ground: Ground) -> socket.socket:
    secure = ground.secure("h2")
    secure.sendall(PREFACE + SETTINGS)
    return secure


def never_ends_its_headers(ground: Ground) -> socket.socket:
    """Opens a stream with a header frame of 100 bytes, and sends 5 of them."""
    secure = ground.secure("h2")
    secure.sendall(PREFACE + SETTINGS + b"\x00\x00\x64\x01\x00\x00\x00\x00\x01" + bytes(5))
    return secure


MANNERS = {
    says_nothing: HANDSHAKE_S,
    drips: HANDSHAKE_S,
    stops_after_tls: HANDSHAKE_S,
    speaks_no_http: HANDSHAKE_S,
    stops_in_the_preface: HANDSHAKE_S,
    stops_after_the_preface: HANDSHAKE_S,
}
SLOW_MANNERS = {never_answers_a_ping: SILENT_LINK_S, never_ends_its_headers: SILENT_LINK_S}


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    """With room for 256 open files, as long as the coordinator does not take more."""
    with LocalConsortium(folder=tmp_path_factory.mktemp("slow") / "consortium") as made:
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
        try:
            made.open()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
        made.enrol("alpha")
        yield Ground(made)


def time_until_closed(connection: socket.socket, patience_s: float) -> float:
    """Read on, answering nothing, until the other end closes; seconds, infinite if it does not."""
    began = time.monotonic()
    connection.settimeout(patience_s)
    with connection, suppress(ConnectionError, ssl.SSLError):
        try:
            while time.monotonic() - began < patience_s:
                if not connection.recv(65536):
                    break
        except TimeoutError:
            return float("inf")
    return time.monotonic() - began


def cut_off(ground: Ground, manners: dict[Callable[[Ground], socket.socket], int]) -> dict:
    """Behave in all those manners at once; how long each was borne."""
    borne: dict[str, float] = {}

    def behave(manner: Callable[[Ground], socket.socket], limit_s: float) -> None:
        borne[manner.__name__] = time_until_closed(manner(ground), limit_s)

    threads = [threading.Thread(target=behave, args=item) for item in manners.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return borne


def test_a_connection_that_is_not_set_up_in_time_is_closed(ground: Ground) -> None:
    borne = cut_off(ground, MANNERS)
    assert len(borne) == len(MANNERS)
    assert all(borne[manner.__name__] <= limit for manner, limit in MANNERS.items()), borne


@pytest.mark.slow
def test_a_member_that_falls_silent_on_an_open_connection_is_cut_off(ground: Ground) -> None:
    borne = cut_off(ground, SLOW_MANNERS)
    assert all(borne[manner.__name__] <= limit for manner, limit in SLOW_MANNERS.items()), borne


def test_a_good_site_is_served_beside_three_hundred_of_them(ground: Ground, ask: Callable) -> None:
    """The coordinator holds them all at once, and answers as fast as without them."""
    credentials = load_credentials(ground.identity)
    crowd: list[socket.socket] = []
    try:
        for manner in (stops_after_tls, stops_after_the_preface, drips):
            crowd += [manner(ground) for _ in range(10)]
        crowd += [says_nothing(ground) for _ in range(270)]
        began = time.monotonic()
        assert ask(ground.address, credentials)[0] == grpc.StatusCode.OK
        took_s = time.monotonic() - began
    finally:
        for connection in crowd:
            connection.close()
    assert took_s < 5
