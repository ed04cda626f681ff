"""What the door for images lets in, before anybody has said who they are and after.

pynetdicom trusts its peers: it reads a message unit of any length into memory, waits for the rest
of one without end, greets one TLS peer after another, and counts silent connections among the
associations. Here a unit is at most 1 MiB (PS3.8 has them agree on far less) and has to be whole in
time, an association has to be asked for in time, TLS is agreed on in the connection's own thread,
and connections that have asked for nothing take nobody's place.
"""

import logging
import socket
import ssl
import time
from contextlib import suppress
from dataclasses import dataclass
from threading import Lock, Thread, current_thread
from typing import Any, Final
from weakref import WeakKeyDictionary, WeakSet

from pynetdicom import AE, evt

_log = logging.getLogger(__name__)
LARGEST_UNIT: Final = 1024 * 1024
"""Bytes of one protocol data unit."""
OPENING_S: Final = 10.0
"""Within which a connection has to ask for an association."""
SILENT: Final = 200
"""Connections at once that have not asked for one yet."""
_AT_ONCE: Final = 256 * 1024


class GuardedEntity(AE):
    """An application entity whose associations are those that were asked for."""

    @property
    def active_associations(self) -> list[Any]:
        """Those that are established, and the one that is being agreed on in this thread."""
        mine = current_thread()
        return [one for one in self.connections if one.is_established or one is mine]

    @property
    def connections(self) -> list[Any]:
        """All of them, silent ones too."""
        return list(super().active_associations)

    def shutdown(self) -> None:
        """End all of them, and listen no more."""
        silent = [one for one in self.connections if not one.is_established]
        super().shutdown()
        for one in silent:
            close(one)


def close(association: Any) -> None:
    """Cut a connection off that is no association yet; whoever reads it finds its end."""
    connection = association.dul.socket and association.dul.socket.socket
    if connection is not None:
        with suppress(OSError):  # who reads it sees the end, and closes it
            connection.shutdown(socket.SHUT_RDWR)


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """How much, and how long.

    Attributes:
        largest: bytes of one image; a sender of more is cut off.
        stalled_s: seconds within which a unit has to be whole.
        opening_s: seconds within which an association has to be asked for.
        silent: connections at once that have not asked for one.
    """

    largest: int
    stalled_s: float = 30.0
    opening_s: float = OPENING_S
    silent: int = SILENT


class Guard:
    """Watches over the connections of one door.

    Attributes:
        handlers: for pynetdicom.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._received: WeakKeyDictionary[Any, int] = WeakKeyDictionary()
        self._silent: WeakSet[Any] = WeakSet()
        self._counting = Lock()
        self.handlers = [
            (evt.EVT_CONN_OPEN, self._opened),
            (evt.EVT_DATA_RECV, self._more),
            (evt.EVT_DIMSE_RECV, self._whole),
        ]

    def _opened(self, event: Any) -> None:
        reader = event.assoc.dul.socket
        if not self._has_room(event.assoc):
            _log.warning("DICOM door: too many connections that ask for nothing, one was closed")
            close(event.assoc)
            return
        reader.recv = _Reader(event.assoc, reader.socket, self._limits).recv

    def _has_room(self, association: Any) -> bool:
        """Whether one more may be silent; counted here, because its thread does not run yet."""
        with self._counting:
            self._silent -= {one for one in self._silent if _has_spoken_or_ended(one)}
            if len(self._silent) >= self._limits.silent:
                return False
            self._silent.add(association)
            return True

    def _more(self, event: Any) -> None:
        size = self._received.get(event.assoc, 0) + len(event.data)
        self._received[event.assoc] = size
        if size > self._limits.largest:
            self._received[event.assoc] = 0
            _log.warning(
                "DICOM door: a sender of more than %d bytes was cut off", self._limits.largest
            )
            # From a thread of its own: ending an association waits for the one that calls this.
            Thread(target=event.assoc.abort, daemon=True).start()

    def _whole(self, event: Any) -> None:
        self._received[event.assoc] = 0


def _has_spoken_or_ended(association: Any) -> bool:
    started = association.ident is not None
    return association.is_established or (started and not association.is_alive())


class _Reader:
    """Reads from one connection, so much and so long."""

    def __init__(self, association: Any, connection: socket.socket, limits: Limits) -> None:
        self._association = association
        self._connection = connection
        self._limits = limits
        self._opened = time.monotonic()
        connection.settimeout(limits.stalled_s)

    def recv(self, size: int) -> bytearray:
        """So many bytes; fewer if the connection ends.

        Raises:
            OSError: they are too many, or do not come in time; pynetdicom then closes it.
        """
        if size > LARGEST_UNIT:
            _log.warning("DICOM door: a connection with a unit of %d bytes was closed", size)
            self._connection.close()
            raise OSError("a unit that is too large")
        end = time.monotonic() + self._limits.stalled_s
        if not self._association.is_established:
            end = min(end, self._opened + self._limits.opening_s)
        data = bytearray()
        try:
            while len(data) < size:
                left = end - time.monotonic()
                if left <= 0:
                    raise TimeoutError("a unit that is not whole in time")
                self._connection.settimeout(left)
                piece = self._connection.recv(min(size - len(data), _AT_ONCE))
                if not piece:
                    self._connection.close()
                    return data
                data += piece
        except OSError:
            self._connection.close()
            raise
        self._connection.settimeout(self._limits.stalled_s)
        return data


class PatientContext(ssl.SSLContext):
    """TLS that is agreed on when the connection is first read, in its own thread.

    Attributes:
        opening_s: seconds within which it has to be.
    """

    opening_s: float = OPENING_S

    def wrap_socket(self, sock: socket.socket, *args: Any, **kwargs: Any) -> ssl.SSLSocket:
        """A connection on which nothing was said yet."""
        sock.settimeout(self.opening_s)
        kwargs["do_handshake_on_connect"] = False
        return super().wrap_socket(sock, *args, **kwargs)
