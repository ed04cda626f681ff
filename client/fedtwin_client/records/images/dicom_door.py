"""The door for DICOM images: a storage provider that answers C-ECHO and C-STORE.

It listens on this machine alone unless told otherwise, and takes associations only from the
application entities that are named. An image is in the image store, and its event kept, before its
sender hears of success. What is put aside is kept, too, and its sender hears that it was not taken.
Nothing of an image is written into the log.
"""

import asyncio
import logging
import re
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

from pydicom import Dataset
from pynetdicom import AllStoragePresentationContexts, evt
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from fedtwin_client.records.door import Keep
from fedtwin_client.records.images.dicom import Intake
from fedtwin_client.records.images.dicom_guard import (
    OPENING_S,
    SILENT,
    Guard,
    GuardedEntity,
    Limits,
    PatientContext,
)
from fedtwin_client.records.images.dicom_reading import (
    LARGEST_BYTES,
    TRANSFER_SYNTAXES,
    read_dataset,
)
from fedtwin_client.records.images.dicom_series import Whose
from fedtwin_client.records.images.store import ImageStore
from fedtwin_client.records.reading import UnusableError
from fedtwin_client.records.report import Place
from fedtwin_client.records.source import Desk, Version
from fedtwin_protocol.errors import RecordError

_log = logging.getLogger(__name__)
_TITLE: Final = re.compile(r"[ -\[\]-~]{1,16}\Z")
# DICOM PS3.4 Table B.2-1, and PS3.7 Annex C.
SUCCESS: Final = 0x0000
NOT_SUPPORTED: Final = 0x0122
OUT_OF_RESOURCES: Final = 0xA700
CANNOT_UNDERSTAND: Final = 0xC000


@dataclass(frozen=True, kw_only=True, slots=True)
class DicomTls:
    """Files for TLS, all PEM.

    Attributes:
        certificate: this door's, with those that lead to its issuer.
        key: of the certificate.
        senders: who issues the senders' certificates.
    """

    certificate: Path
    key: Path
    senders: Path


@dataclass(frozen=True, kw_only=True, slots=True)
class DicomSettings:
    """How the door listens.

    Attributes:
        senders: titles of the application entities that may send; they are no proof of who it is.
        title: this door's own; a sender must call it.
        host: address to listen on.
        port: 0: any free one.
        tls: none: plain.
        trusted_network: whether to listen beyond this machine without TLS.
        associations: at most so many at once.
        idle_s: seconds without a message after which an association is ended.
        stalled_s: seconds within which a unit of a message has to be whole.
        opening_s: seconds within which a connection has to ask for an association.
        silent: connections at once that have not asked for one.
        largest: bytes of one image; a sender of more is cut off.
    """

    senders: Sequence[str]
    title: str = "FEDTWIN"
    host: str = "127.0.0.1"
    port: int = 11112
    tls: DicomTls | None = None
    trusted_network: bool = False
    associations: int = 10
    idle_s: float = 60.0
    stalled_s: float = 30.0
    opening_s: float = OPENING_S
    silent: int = SILENT
    largest: int = LARGEST_BYTES


class DicomDoor:
    """Listens for images.

    Attributes:
        name: of the source; the same as for its files, so that what comes both ways is one record.
        port: where it listens, once it does.
    """

    def __init__(
        self, name: str, settings: DicomSettings, images: ImageStore, whose: Whose
    ) -> None:
        """Prepare the door.

        Args:
            name: of the source; `dicom`, as for files, so that a series is one both ways.
            settings: how it listens.
            images: where the images go.
            whose: how patients are known.

        Raises:
            RecordError: a setting cannot be.
        """
        for title in (settings.title, *settings.senders):
            if not _TITLE.match(title) or not title.strip():
                raise RecordError(
                    f"expected an application entity's title of 1 to 16 letters, found '{title}'"
                )
        if not settings.senders:
            raise RecordError("name the application entities that may send (senders: [PACS])")
        if not (_is_local(settings.host) or settings.tls or settings.trusted_network):
            raise RecordError(
                f"the DICOM door would take images from anybody who reaches {settings.host}: give "
                "it TLS with the senders' issuer, or say that the network is trusted"
            )
        self.name = name
        self.port: int | None = None
        self._settings = settings
        self._images = images
        self._whose = whose

    async def serve(self, desk: Desk, keep: Keep) -> None:
        """Take images in until cancelled.

        Args:
            desk: this door's own.
            keep: makes things durable.

        Raises:
            RecordError: the port is taken, the address is not ours, or a TLS file cannot be used.
        """
        settings = self._settings
        loop = asyncio.get_running_loop()
        one = _One(Intake(desk, self._images, self._whose), keep)

        def store(event: Any) -> Dataset:
            """Of pynetdicom's thread: hand the image over, and wait until it is kept."""
            data = bytes(event.encoded_dataset())
            peer = str(event.assoc.requestor.address)
            status, words = asyncio.run_coroutine_threadsafe(one.take(data, peer), loop).result()
            answer = Dataset()
            answer.Status = status
            if words:
                answer.ErrorComment = words[:64]
            return answer

        logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)
        entity = _entity(settings)
        limits = Limits(
            largest=settings.largest,
            stalled_s=settings.stalled_s,
            opening_s=settings.opening_s,
            silent=settings.silent,
        )
        guard = Guard(limits)
        context = None if settings.tls is None else _context(settings.tls, settings.opening_s)
        try:
            server = entity.start_server(
                (settings.host, settings.port),
                block=False,
                evt_handlers=[(evt.EVT_C_STORE, store), *guard.handlers],
                ssl_context=context,
            )
        except (OSError, OverflowError) as error:
            raise RecordError(
                f"the DICOM door cannot listen on {settings.host}:{settings.port}: {error}; choose "
                "a free port of this machine"
            ) from error
        assert server is not None
        self.port = int(server.server_address[1])
        _log.info("DICOM door %s listens on %s:%d", settings.title, settings.host, self.port)
        try:
            await loop.create_future()
        finally:
            await asyncio.shield(asyncio.to_thread(entity.shutdown))


class _One:
    """Takes one image after another, so that two of a series never meet."""

    def __init__(self, intake: Intake, keep: Keep) -> None:
        self._intake = intake
        self._keep = keep
        self._turn = asyncio.Lock()
        self._number = 0

    async def take(self, data: bytes, peer: str) -> tuple[int, str]:
        """Keep an image; returns the status for its sender, with words if it was not taken."""
        async with self._turn:
            self._number += 1
            place = Place(f"dicom {peer}", self._number)
            reading = self._intake.desk.reading
            reading.tally.read["file"] += 1
            try:
                try:
                    version = await asyncio.to_thread(self._version, data, place)
                except UnusableError as error:
                    reading.unusable(error, place, f"{len(data)} bytes from {peer}")
                    await self._keep([])
                    status = CANNOT_UNDERSTAND if error.wrong else NOT_SUPPORTED
                    return status, error.reason
                await self._keep([version])
            except RecordError as error:
                _log.warning("DICOM door: an image was not kept: %s", error)
                return OUT_OF_RESOURCES, "could not be kept; send it again later"
            return SUCCESS, ""

    def _version(self, data: bytes, place: Place) -> Version:
        found = self._intake.find(read_dataset(data), place.file)
        received = self._intake.desk.reading.now
        return self._intake.take(found, data, place, received=received)


def _entity(settings: DicomSettings) -> GuardedEntity:
    entity = GuardedEntity(ae_title=settings.title)
    entity.require_calling_aet = list(settings.senders)
    entity.require_called_aet = True
    entity.maximum_associations = settings.associations
    entity.network_timeout = settings.idle_s
    entity.acse_timeout = settings.opening_s
    entity.add_supported_context(Verification)
    for context in AllStoragePresentationContexts:
        entity.add_supported_context(str(context.abstract_syntax), list(TRANSFER_SYNTAXES))
    return entity


def _context(tls: DicomTls, opening_s: float) -> ssl.SSLContext:
    context = PatientContext(ssl.PROTOCOL_TLS_SERVER)
    context.opening_s = opening_s
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(tls.certificate, tls.key)
        context.load_verify_locations(tls.senders)
    except (OSError, ssl.SSLError) as error:
        raise RecordError(
            f"the DICOM door cannot use its TLS files {tls.certificate}, {tls.key}, "
            f"{tls.senders}: {error}"
        ) from error
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def _is_local(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
