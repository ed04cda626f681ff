"""What both ends of a link do alike: order what is sent, and move large contents in chunks.

Nobody is sent bytes that were not asked for. An end announces a blob (hash and size) in a task or
an answer; the other asks for it from the offset it already has; only then do chunks flow, with
short messages overtaking them. A chunk that was not asked for ends the link.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

from google.protobuf.message import Message

from fedtwin_protocol.blobs import BlobReceiver, BlobRef, BlobStore
from fedtwin_protocol.chunks import Chunk
from fedtwin_protocol.errors import FedtwinError, WireError
from fedtwin_protocol.v1 import exchange_pb2 as pb

log = logging.getLogger("fedtwin.link")
M = TypeVar("M", bound=Message)
BULK_IN_FLIGHT: Final = 4
MOST_WAITING: Final = 1000


class Outlet(Generic[M]):
    """Messages on their way out: short ones first, chunks with back pressure."""

    def __init__(self) -> None:
        self._short: deque[M] = deque()
        self._bulk: deque[bytes] = deque()
        self._something = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self.closed = False

    def send(self, message: M) -> None:
        """Queue a short message.

        Raises:
            WireError: the peer does not read what it is sent.
        """
        if len(self._short) >= MOST_WAITING:
            raise WireError("the peer does not read: too many messages wait for it")
        self._short.append(message)
        self._something.set()

    async def send_bulk(self, frame: bytes) -> None:
        """Queue a chunk's frame; waits while enough of them are in flight."""
        while len(self._bulk) >= BULK_IN_FLIGHT and not self.closed:
            self._room.clear()
            await self._room.wait()
        self._bulk.append(frame)
        self._something.set()

    def close(self) -> None:
        """Let `drain` end."""
        self.closed = True
        self._something.set()
        self._room.set()

    async def drain(self, write: Callable[[bytes], Awaitable[None]]) -> None:
        """Write queued messages until closed; what is queued at closing is still written."""
        while True:
            while self._short or self._bulk:
                if self._short:
                    frame = self._short.popleft().SerializeToString()
                else:
                    frame = self._bulk.popleft()
                    self._room.set()
                await write(frame)
            if self.closed:
                return
            self._something.clear()
            await self._something.wait()


class Traffic:
    """The blobs that one link moves, both ways.

    Args:
        store: where blobs arrive, and lie.
        want: sends a request for a blob from an offset.
        chunk: sends one chunk's frame, with back pressure.
        patience_s: a receipt without any progress for so long has failed.
        outgoing: where blobs to be served lie, if elsewhere.
    """

    def __init__(
        self,
        store: BlobStore,
        want: Callable[[pb.Want], None],
        chunk: Callable[[bytes], Awaitable[None]],
        patience_s: float = 60.0,
        outgoing: BlobStore | None = None,
    ) -> None:
        self._store = store
        self._outgoing = outgoing or store
        self._want = want
        self._chunk = chunk
        self._patience_s = patience_s
        self._incoming: dict[bytes, tuple[BlobReceiver, asyncio.Future[None]]] = {}
        self._offered: dict[bytes, BlobRef] = {}
        self._serving: dict[bytes, asyncio.Task[None]] = {}

    def offer(self, ref: BlobRef) -> None:
        """Allow the peer to ask for a blob."""
        self._offered[ref.sha256] = ref

    async def fetch(self, ref: BlobRef) -> None:
        """Have the blob here when this returns; resumes what a broken link left behind.

        Raises:
            WireError: the peer sent something else, or nothing for too long.
        """
        if self._store.has(ref.sha256):
            return
        if ref.sha256 not in self._incoming:
            try:
                receiver = self._store.receive(ref)
            except OSError as error:
                raise _no_room(error) from error
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._incoming[ref.sha256] = (receiver, future)
            self._want(pb.Want(sha256=ref.sha256, offset=receiver.offset))
        receiver, future = self._incoming[ref.sha256]
        while not future.done():
            before = receiver.offset
            await asyncio.wait([future], timeout=self._patience_s)
            if not future.done() and receiver.offset == before:
                self._end(ref.sha256)
                raise WireError(f"no part of a content came for {self._patience_s:.0f} s")
        future.result()

    def on_chunk(self, chunk: Chunk) -> None:
        """Take a chunk that was asked for.

        Raises:
            WireError: it was not asked for, or does not fit.
        """
        if chunk.sha256 not in self._incoming:
            raise WireError("a chunk came that nobody asked for")
        receiver, future = self._incoming[chunk.sha256]
        try:
            complete = receiver.append(chunk.offset, chunk.data)
        except (WireError, OSError) as error:
            del self._incoming[chunk.sha256]
            receiver.close()
            if not future.done():
                future.set_exception(_no_room(error) if isinstance(error, OSError) else error)
            return
        if complete:
            del self._incoming[chunk.sha256]
            if not future.done():
                future.set_result(None)

    def on_want(self, want: pb.Want) -> None:
        """Serve a blob that was offered to this peer; asked for again, from there and only there.

        Raises:
            WireError: it was not.
        """
        ref = self._offered.get(want.sha256)
        if ref is None or want.offset > ref.size:
            raise WireError("a content was asked for that was not offered to this peer")
        if (before := self._serving.get(want.sha256)) is not None:
            before.cancel()
        task = asyncio.get_running_loop().create_task(self._serve(ref, want.offset))
        self._serving[want.sha256] = task

    def close(self) -> None:
        """The link ended: keep what arrived for a resume, and stop serving."""
        for sha256 in list(self._incoming):
            self._end(sha256)
        for task in self._serving.values():
            task.cancel()

    def _end(self, sha256: bytes) -> None:
        receiver, future = self._incoming.pop(sha256)
        receiver.close()
        if not future.done():
            future.set_exception(WireError("the link ended before the content was complete"))
            future.exception()

    async def _serve(self, ref: BlobRef, offset: int) -> None:
        try:
            for position, data in self._outgoing.chunks(ref, offset):
                chunk = Chunk(sha256=ref.sha256, offset=position, data=data)
                await self._chunk(chunk.to_frame())
        except (FedtwinError, OSError) as error:
            log.warning("a content is not served any further: %s", error)


def _no_room(error: OSError) -> WireError:
    return WireError(f"a content cannot be written on this side: {error.strerror}")
