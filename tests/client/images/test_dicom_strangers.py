"""What whoever reaches the door for images can do: nothing that keeps a good sender out."""

import asyncio
import socket
import ssl
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import pytest
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE

from fedtwin_client.records.images.dicom_door import DicomDoor, DicomSettings, DicomTls
from fedtwin_client.records.images.dicom_guard import LARGEST_UNIT
from fedtwin_client.store.images import image_store
from fedtwin_protocol.errors import RecordError

from ..small_authority import Issued, SmallAuthority
from .images import WHOSE, ct
from .test_dicom_door import CT, door, send

T = TypeVar("T")
ASSOCIATE = b"\x01\x00"


def beside(store: Path, act: Callable[[int], T], **settings: object) -> T:
    """What somebody gets who acts while the door is open; and the door ends in time."""

    async def run() -> T:
        async with door(store, **settings) as port:
            return await asyncio.to_thread(act, port)

    before = time.monotonic()
    result = asyncio.run(run())
    assert time.monotonic() - before < 60
    return result


@contextmanager
def dialled(port: int, *firsts: bytes) -> Iterator[list[socket.socket]]:
    """Connections that have sent no more than this."""
    with ExitStack() as stack:
        lines = []
        for first in firsts:
            line = stack.enter_context(socket.create_connection(("127.0.0.1", port), 10))
            line.settimeout(20)
            line.sendall(first)
            lines.append(line)
        yield lines


def ended(line: socket.socket) -> bool:
    """Whether the door has ended a connection, perhaps after a last word."""
    with suppress(ConnectionError, BrokenPipeError):
        while line.recv(65536):
            pass
    return True


def test_a_good_sender_is_served_beside_silent_ones(tmp_path: Path) -> None:
    """More of them than there may be associations."""

    def act(port: int) -> list[int | None]:
        with dialled(port, *(30 * [b""]), *(10 * [ASSOCIATE])):
            return send(port, ct(0))

    assert beside(tmp_path, act, associations=2) == [0, 0]


def test_silent_ones_are_ended(tmp_path: Path) -> None:
    def act(port: int) -> tuple[bool, list[int | None]]:
        with dialled(port, b"", ASSOCIATE) as lines:
            return all(ended(line) for line in lines), send(port, ct(0))

    assert beside(tmp_path, act, opening_s=1.0) == (True, [0, 0])


def test_only_so_many_silent_ones_are_held(tmp_path: Path) -> None:
    """Two of five are turned away; which ones, the order in which threads come to run decides."""

    def act(port: int) -> int:
        turned_away = 0
        with dialled(port, *(5 * [b""])) as lines:
            for line in lines:
                line.settimeout(3.0)
                with suppress(TimeoutError):
                    turned_away += ended(line)
        return turned_away

    assert beside(tmp_path, act, opening_s=60.0, silent=3) == 2


def test_an_opening_that_drips_is_ended(tmp_path: Path) -> None:
    def act(port: int) -> bool:
        with dialled(port, ASSOCIATE + (1000).to_bytes(4, "big")) as (line,):
            with suppress(OSError):
                for _ in range(100):
                    line.sendall(b"x")
                    time.sleep(0.05)
                return False
            return True

    assert beside(tmp_path, act, opening_s=1.0)


def test_a_unit_without_end_is_not_read(tmp_path: Path) -> None:
    """Neither before anybody said who they are, nor after; it fills no memory."""

    def act(port: int) -> tuple[int, int]:
        sent = 0
        first = ASSOCIATE + (0xFFFFFFFF).to_bytes(4, "big")
        with dialled(port, first) as (line,), suppress(OSError):
            for _ in range(64):
                line.sendall(bytes(1024 * 1024))
                sent += 1
        return sent, tracemalloc.get_traced_memory()[1]

    tracemalloc.start()
    try:
        sent, most = beside(tmp_path, act)
    finally:
        tracemalloc.stop()
    assert sent < 64
    assert most < 40 * LARGEST_UNIT


def test_a_member_that_stalls_in_the_middle_is_ended(tmp_path: Path) -> None:
    def act(port: int) -> tuple[bool, list[int | None]]:
        entity = AE(ae_title="PACS")
        entity.add_requested_context(CT, ExplicitVRLittleEndian)
        link = entity.associate("127.0.0.1", port, ae_title="FEDTWIN")
        assert link.is_established
        line = link.dul.socket.socket
        line.sendall(b"\x04\x00" + (5000).to_bytes(4, "big") + b"half")
        refused = send(port, ct(0))  # its place is taken ...
        deadline = time.monotonic() + 20
        while link.is_established and time.monotonic() < deadline:
            time.sleep(0.05)
        return not link.is_established, refused + send(port, ct(0))  # ... and free again

    assert beside(tmp_path, act, associations=1, stalled_s=1.0) == (True, [0, 0])


def test_noise_is_refused_and_nothing_of_it_is_kept(tmp_path: Path) -> None:
    noise = [b"GET / HTTP/1.1\r\n\r\n", bytes(range(256)), b"\x04\x00\x00\x00\x00\x06abcdef",
             ASSOCIATE + (68).to_bytes(4, "big") + bytes(68), b"\x07" + bytes(9)]  # fmt: skip

    def act(port: int) -> tuple[bool, list[int | None]]:
        with dialled(port, *noise) as lines:
            return all(ended(line) for line in lines), send(port, ct(0))

    assert beside(tmp_path, act, opening_s=2.0) == (True, [0, 0])
    assert len(list((tmp_path / "images").rglob("*.dcm"))) == 1


def test_nothing_can_be_asked_for(tmp_path: Path) -> None:
    """No query, no retrieval: a peer can put images in, and get none out."""
    queries = ["1.2.840.10008.5.1.4.1.2.2.1", "1.2.840.10008.5.1.4.1.2.2.2",
               "1.2.840.10008.5.1.4.1.2.2.3", "1.2.840.10008.5.1.4.1.2.1.1"]  # fmt: skip

    def act(port: int) -> list[str]:
        entity = AE(ae_title="PACS")
        for query in queries:
            entity.add_requested_context(query)
        entity.add_requested_context("1.2.840.10008.1.1")
        link = entity.associate("127.0.0.1", port, ae_title="FEDTWIN")
        accepted = [str(one.abstract_syntax) for one in link.accepted_contexts]
        link.release()
        return accepted

    assert beside(tmp_path, act) == ["1.2.840.10008.1.1"]


def test_what_is_kept_names_nobody(tmp_path: Path) -> None:
    assert beside(tmp_path, lambda port: send(port, ct(0))) == [0, 0]
    files = [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix == ".dcm"]
    assert files
    held = b"".join(path.read_bytes() for path in files)
    assert not [word for word in (b"Muster", b"Petra", b"4711", b"19500101") if word in held]


def test_tls_wants_a_sender_s_certificate_and_waits_for_nobody(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    authority, other = SmallAuthority(tmp_path), SmallAuthority(tmp_path / "other")
    mine, sender, stranger = (
        authority.issue("localhost"),
        authority.issue("pacs"),
        other.issue("mallory"),
    )
    tls = DicomTls(certificate=mine.certificate, key=mine.key, senders=authority.certificate)

    def context(issued: Issued | None) -> ssl.SSLContext:
        made = ssl.create_default_context(cafile=str(authority.certificate))
        if issued is not None:
            made.load_cert_chain(*issued)
        return made

    def echo(port: int) -> list[int]:
        entity = AE(ae_title="PACS")
        entity.add_requested_context("1.2.840.10008.1.1")
        link = entity.associate(
            "127.0.0.1", port, ae_title="FEDTWIN", tls_args=(context(sender), "localhost")
        )
        status = link.send_c_echo().Status if link.is_established else None
        link.release()
        return [status]

    def refused(port: int, issued: Issued | None) -> bool:
        """Whether it is told off, rather than left to wait until its time is up."""
        with (
            socket.create_connection(("127.0.0.1", port), 10) as line,
            suppress(ssl.SSLError, ConnectionError),
            context(issued).wrap_socket(line, server_hostname="localhost") as link,
        ):
            link.sendall(ASSOCIATE)
            link.recv(1)
            return False
        return True

    def act(port: int) -> tuple[list[int], bool, bool, list[int]]:
        with dialled(port, b"", b"\x16\x03", b"GET / HTTP/1.1\r\n\r\n"):
            return echo(port), refused(port, None), refused(port, stranger), echo(port)

    # Those who say nothing may do so for a minute, and nobody waits for them.
    assert beside(tmp_path / "node", act, tls=tls, opening_s=60.0) == ([0], True, True, [0])


def test_it_listens_on_this_machine_alone_unless_the_senders_are_known(tmp_path: Path) -> None:
    settings = DicomSettings(senders=["PACS"])
    assert settings.host == "127.0.0.1"
    images = image_store(tmp_path)
    for host in ("0.0.0.0", "::", "192.0.2.7", "a-name"):
        with pytest.raises(RecordError, match="would take images from anybody who reaches"):
            DicomDoor("dicom", DicomSettings(senders=["PACS"], host=host), images, WHOSE)


def test_no_thread_outlives_the_door(tmp_path: Path) -> None:
    async def run() -> None:
        async with door(tmp_path, opening_s=1.0) as port:
            stack.enter_context(dialled(port, b"", ASSOCIATE))
            await asyncio.sleep(0.2)

    before = set(threading.enumerate())
    with ExitStack() as stack:
        asyncio.run(run())
        deadline = time.monotonic() + 10
        while [one for one in set(threading.enumerate()) - before if "Acceptor" in one.name]:
            assert time.monotonic() < deadline, threading.enumerate()
            time.sleep(0.05)
