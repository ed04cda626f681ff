"""The door for live HL7 v2 messages: MLLP over TCP, acknowledged once they are on disk.

It listens on this machine alone unless told otherwise, and beyond it only with TLS and the
sender's certificate, or where somebody has said that the network is trusted. Messages of one
connection are acknowledged in the order they came in; several may be on their way to the disk at
once, so that one write serves them all. Nothing of a message is written into the log.
"""

import asyncio
import logging
import ssl
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import dataclass
from datetime import timedelta
from ipaddress import ip_address
from itertools import count
from pathlib import Path

from fedtwin_client.records.door import Keep
from fedtwin_client.records.hl7.events import REMOVAL, Hl7Reader
from fedtwin_client.records.hl7.files import LARGEST, check_encoding
from fedtwin_client.records.hl7.merges import MERGE
from fedtwin_client.records.hl7.mllp_acks import Outcome, acknowledgements, received_of
from fedtwin_client.records.hl7.mllp_frames import END, KEPT, START, Frame, frames
from fedtwin_client.records.hl7.patients import Whose
from fedtwin_client.records.hl7.text import read_message, shown_message
from fedtwin_client.records.reading import Reading, UnusableError
from fedtwin_client.records.report import Place
from fedtwin_client.records.source import Desk, Version, check_source_name
from fedtwin_client.records.witness import Witness
from fedtwin_protocol.errors import RecordError

_log = logging.getLogger(__name__)
CLOCKS_APART = timedelta(minutes=2)
"""How far a sender's clock may run ahead of ours."""
_REASONS = {
    "large": "a message that is larger than this door takes",
    "cut": "a message without its end: the connection was closed, or another began",
    "stray": "bytes that stand in no MLLP frame",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class MllpTls:
    """Files for TLS, all PEM.

    Attributes:
        certificate: this door's, with those that lead to its issuer.
        key: of the certificate.
        senders: who issues the senders' certificates; none: senders need none.
    """

    certificate: Path
    key: Path
    senders: Path | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class MllpSettings:
    """How the door listens.

    Attributes:
        host: address to listen on.
        port: 0: any free one.
        tls: none: plain.
        trusted_network: whether to listen beyond this machine without knowing the senders.
        encoding: of messages that name no character set.
        largest: bytes of a message.
        connections: at most so many at once.
        pending: messages of one connection on their way to the disk at once.
        idle_s: seconds without a message after which a connection is closed.
        stalled_s: seconds without a byte within a message after which it is.
    """

    host: str = "127.0.0.1"
    port: int = 2575
    tls: MllpTls | None = None
    trusted_network: bool = False
    encoding: str = "utf-8"
    largest: int = LARGEST
    connections: int = 128
    pending: int = 64
    idle_s: float = 3600.0
    stalled_s: float = 30.0


class MllpDoor:
    """Listens for messages.

    Attributes:
        name: of the feed; the same as for its files, so that what comes both ways is one record.
        port: where it listens, once it does.
    """

    def __init__(self, name: str, settings: MllpSettings, whose: Whose) -> None:
        """Prepare the door.

        Args:
            name: of the feed, of a-z, 0-9 and '-'.
            settings: how it listens.
            whose: which of a patient's numbers counts.

        Raises:
            RecordError: a setting cannot be.
        """
        check_source_name(name)
        check_encoding(settings.encoding)
        known = settings.tls is not None and settings.tls.senders is not None
        if not (_is_local(settings.host) or known or settings.trusted_network):
            raise RecordError(
                f"the MLLP door would take messages from anybody who reaches {settings.host}: give "
                "it TLS with the senders' issuer, or say that the network is trusted"
            )
        self.name = name
        self.port: int | None = None
        self._settings = settings
        self._whose = whose
        self._numbers = count(1)
        self._begun = ""
        self._open = 0

    async def serve(self, desk: Desk, keep: Keep) -> None:
        """Take messages in until cancelled.

        Args:
            desk: this door's own.
            keep: makes things durable.

        Raises:
            RecordError: the port is taken, the address is not ours, or a TLS file cannot be used.
        """
        settings = self._settings
        self._begun = f"{int(desk.reading.now.timestamp()):x}"
        context = None if settings.tls is None else _tls(settings.tls)
        tasks: set[asyncio.Task[None]] = set()

        def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.create_task(self._connection(reader, writer, desk, keep))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        try:
            server = await asyncio.start_server(
                connected, settings.host, settings.port, ssl=context
            )
        except (OSError, OverflowError) as error:
            raise RecordError(
                f"the MLLP door cannot listen on {settings.host}:{settings.port}: {error}; "
                "choose a free port of this machine"
            ) from error
        self.port = server.sockets[0].getsockname()[1]
        _log.info("MLLP door %s listens on %s:%d", self.name, settings.host, self.port)
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            server.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _connection(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        desk: Desk,
        keep: Keep,
    ) -> None:
        """One sender: read and store ahead, acknowledge in order."""
        settings = self._settings
        self._open += 1
        queue: asyncio.Queue[asyncio.Task[list[bytes]] | None] = asyncio.Queue(settings.pending)
        answering = asyncio.create_task(_answer(queue, writer, settings.stalled_s))
        pending: set[asyncio.Task[list[bytes]]] = set()
        try:
            if self._open > settings.connections:
                _log.warning("MLLP door %s: too many connections, one was closed", self.name)
                return
            peer = str((writer.get_extra_info("peername") or ["unknown"])[0])
            async with aclosing(self._frames(reader)) as found:
                number = 0
                async for frame in found:
                    number += 1
                    place = Place(f"mllp {self.name} {peer}", number)
                    task = asyncio.create_task(self._take(frame, place, desk, keep))
                    pending.add(task)
                    task.add_done_callback(pending.discard)
                    await queue.put(task)
            await queue.put(None)
            await answering
        except asyncio.CancelledError:
            for task in pending:
                task.cancel()
            raise
        finally:
            self._open -= 1
            answering.cancel()
            writer.close()
            with suppress(OSError, ssl.SSLError, asyncio.CancelledError):
                await writer.wait_closed()

    def _frames(self, reader: asyncio.StreamReader) -> AsyncGenerator[Frame, None]:
        settings = self._settings
        return frames(
            reader,
            largest=settings.largest,
            idle_s=settings.idle_s,
            stalled_s=settings.stalled_s,
        )

    async def _take(self, frame: Frame, place: Place, desk: Desk, keep: Keep) -> list[bytes]:
        """Read one frame, store what it makes, and give back what to say.

        From reading to the call of `keep` nothing else runs, so that what was put aside of this
        frame goes with it.
        """
        outcome: Outcome
        try:
            versions, outcome, text = self._read(frame, place, desk)
            await keep(versions)
        except RecordError as error:
            _log.error("MLLP door %s could not store a message: %s", self.name, error)
            outcome, text = "again", "could not be stored; send it again"
        except Exception as error:
            # Nothing of it may be told as stored; what it says may be a patient's.
            _log.error("MLLP door %s failed over a message: %s", self.name, type(error).__name__)
            outcome, text = "again", "could not be read or stored; send it again"
        if frame.kind in {"cut", "stray"}:
            return []
        return acknowledgements(
            received_of(frame.data),
            outcome,
            text,
            now=desk.reading.now,
            number=f"{self._begun}{next(self._numbers):x}",
        )

    def _read(self, frame: Frame, place: Place, desk: Desk) -> tuple[list[Version], Outcome, str]:
        told = Witness(desk.reading.tally)
        reading = Reading(
            source=desk.reading.source,
            zone=desk.reading.zone,
            now=desk.reading.now + CLOCKS_APART,
            tally=told,
        )
        if frame.kind != "message":
            reading.tally.read["message"] += 1
            reason = _REASONS[frame.kind]
            cut = frame.kind != "stray" or len(frame.data) >= KEPT
            told.wrong(reason, place)
            told.set_aside([reason], place, shown_message(frame.data), cut=cut)
            return [], "aside", reason
        try:
            message = read_message(frame.data, place, self._settings.encoding)
        except UnusableError as error:
            reading.tally.read["message"] += 1
            reading.unusable(error, place, shown_message(frame.data))
            return [], "aside", error.reason
        versions = Hl7Reader(reading, desk.pseudonyms, self._whose).read(message)
        wrong = _faults(told)
        if wrong and not _used(versions, reading.source, message.kind):
            return versions, "aside", "; ".join(dict.fromkeys(wrong[:3]))
        return versions, "stored", ""


def _faults(told: Witness) -> list[str]:
    """What was wrong with a message; what waits for a person is no fault of the message."""
    return [
        remark.reason
        for remark in told.remarks
        if remark.kind == "wrong" and not remark.reason.startswith((MERGE, REMOVAL))
    ]


def _used(versions: list[Version], source: str, kind: str) -> bool:
    """Whether a message made rows of what it is for: who the patient is is that of ADT alone."""
    about = "" if kind.startswith("ADT") else f"{source}:patient/"
    return any(
        version.events for version in versions if not (about and version.origin.startswith(about))
    )


async def _answer(
    queue: asyncio.Queue[asyncio.Task[list[bytes]] | None],
    writer: asyncio.StreamWriter,
    stalled_s: float,
) -> None:
    """Send acknowledgements in the order of the messages, whether or not anybody still listens.

    Messages that were stored together are acknowledged in one piece.
    """
    ended = False
    waiting: asyncio.Task[list[bytes]] | None = None
    while not ended:
        task = waiting or await queue.get()
        if task is None:
            return
        answers = list(await task)
        waiting = None
        while not queue.empty():
            waiting = queue.get_nowait()
            if waiting is None or not waiting.done():
                ended = waiting is None
                break
            answers += waiting.result()
            waiting = None
        try:
            writer.write(b"".join(START + answer + END + b"\r" for answer in answers))
            async with asyncio.timeout(stalled_s):
                await writer.drain()
        except (OSError, ssl.SSLError):
            # A sender that does not listen; what it sent is stored all the same.
            writer.transport.abort()


def _is_local(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _tls(files: MllpTls) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(files.certificate, files.key)
        if files.senders is not None:
            context.load_verify_locations(files.senders)
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ssl.SSLError) as error:
        raise RecordError(
            f"cannot use the TLS files of the MLLP door ({files.certificate}, {files.key}"
            f"{f', {files.senders}' if files.senders else ''}): {error}"
        ) from error
    return context
