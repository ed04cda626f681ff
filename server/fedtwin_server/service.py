"""The calls a coordinator answers, over mutual TLS and nothing else.

`Enrol` (an invited party), `Renew` (a member), `Link` (a site: its one stream), `ListReleases`,
`FetchFile` (of the TUF repository) and `AskLog` (sites and researchers). Messages are parsed here,
so that a malformed one is answered with a plain sentence and leaves no trace of how we parse.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from fedtwin_protocol.blobs import BlobStore
from fedtwin_protocol.channel import (
    HEARTBEAT_S,
    LEASE_S,
    MESSAGE_LIMIT,
    SERVER_TIME,
    SERVICE,
    grpc,
)
from fedtwin_protocol.chunks import chunk_from_frame, is_chunk
from fedtwin_protocol.errors import FedtwinError, IdentityError, WireError
from fedtwin_protocol.identity import PeerIdentity
from fedtwin_protocol.refusals import REPLACED
from fedtwin_protocol.v1 import exchange_pb2 as pb
from fedtwin_protocol.wire import PROTOCOL_VERSION, parse
from fedtwin_server.catalogue import StudyCatalogue
from fedtwin_server.desk import EnrolmentDesk
from fedtwin_server.guard import Guard
from fedtwin_server.hub import NOBODY_WAITS, Clock, Hub, SiteLink
from fedtwin_server.log_desk import LogDesk
from fedtwin_server.releases import ReleaseShelf
from fedtwin_server.store import Store

log = logging.getLogger("fedtwin.link")
Context = Any
WATCH_S: Final = 0.2
LARGEST_SKEW_S: Final = 60.0
RELEASE_CHUNK: Final = 512 * 1024
SECOND_LINK: Final = "a second link with this site's name replaced the first"
OWN_FAULT: Final = "the coordinator met a fault of its own; its log says which"


@dataclass(frozen=True, kw_only=True, slots=True)
class Rooms:
    """What the calls work with."""

    guard: Guard
    hub: Hub
    store: Store
    blobs: BlobStore
    catalogue: StudyCatalogue
    desk: EnrolmentDesk
    shelf: ReleaseShelf
    public_log: LogDesk
    clock: Clock


class ExchangeService:
    """The coordinator's calls.

    Args:
        rooms: what they work with.
    """

    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms

    def handler(self) -> grpc.GenericRpcHandler:
        """What a grpc.aio server is given."""
        unary = grpc.unary_unary_rpc_method_handler
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "Enrol": unary(self.enrol),
                "Renew": unary(self.renew),
                "ListReleases": unary(self.list_releases),
                "FetchFile": grpc.unary_stream_rpc_method_handler(self.fetch_file),
                "AskLog": unary(self.ask_log),
                "Link": grpc.stream_stream_rpc_method_handler(self.link),
            },
        )

    async def enrol(self, request: bytes, context: Context) -> bytes:
        """A first certificate for an invited party."""
        rooms = self._rooms
        identity = await rooms.guard.identify(context, "invited-site", "invited-researcher")
        return await _answer(
            context, identity, lambda: rooms.desk.enrol(identity, parse(pb.EnrolRequest, request))
        )

    async def renew(self, request: bytes, context: Context) -> bytes:
        """The next certificate for a member, for a new key."""
        rooms = self._rooms
        identity = await rooms.guard.identify(context, "site", "researcher")
        return await _answer(
            context, identity, lambda: rooms.desk.renew(identity, parse(pb.RenewRequest, request))
        )

    async def list_releases(self, request: bytes, context: Context) -> bytes:
        """The releases that the caller may fetch; also our time, for 'check --network'."""
        rooms = self._rooms
        identity = await rooms.guard.identify(context, "site", "researcher")
        moment = int(rooms.clock().timestamp() * 1000)
        await context.send_initial_metadata(((SERVER_TIME, str(moment)),))

        def entries() -> bytes:
            parse(pb.ListReleasesRequest, request)
            found = rooms.shelf.entries(identity.role)
            return pb.ListReleasesReply(releases=found).SerializeToString()

        return await _answer(context, identity, entries)

    async def fetch_file(self, request: bytes, context: Context) -> AsyncIterator[bytes]:
        """A file of the TUF repository, in chunks."""
        rooms = self._rooms
        identity = await rooms.guard.identify(context, "site", "researcher")
        try:
            path = rooms.public_log.file(parse(pb.FetchFileRequest, request).path, identity.role)
        except FedtwinError as error:
            log.debug("%s asked for what is not there: %s", identity.uri, error)
            await context.abort(grpc.StatusCode.NOT_FOUND, str(error))
        except Exception:
            log.exception("a call of %s met a fault of this program", identity.uri)
            await context.abort(grpc.StatusCode.INTERNAL, OWN_FAULT)
        with path.open("rb") as file:
            while data := file.read(RELEASE_CHUNK):
                await self._still(identity, context)
                yield pb.FileChunk(data=data).SerializeToString()

    async def ask_log(self, request: bytes, context: Context) -> bytes:
        """The newest head of the log, with proofs."""
        rooms = self._rooms
        identity = await rooms.guard.identify(context, "site", "researcher")
        return await _answer(
            context,
            identity,
            lambda: rooms.public_log.answer(parse(pb.AskLogRequest, request), rooms.clock()),
        )

    async def link(self, requests: object, context: Context) -> None:
        """A site's one stream, until either end closes it."""
        del requests
        rooms = self._rooms
        identity = await rooms.guard.identify(context, "site")
        link = SiteLink(identity.name, rooms.blobs)
        tasks = [
            asyncio.create_task(self._read(link, context)),
            asyncio.create_task(link.outlet.drain(context.write)),
            asyncio.create_task(self._watch(identity)),
            asyncio.create_task(_until(link.ended)),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            error = next((task.exception() for task in done if task.exception()), None)
        except asyncio.CancelledError:
            # The core tells the other end why, and us nothing.
            log.info(
                "the link of %s ended: the site or the network closed it, or a message had more "
                "than %d bytes",
                identity.uri,
                MESSAGE_LIMIT,
            )
            raise
        finally:
            rooms.hub.detach(link)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if link.replaced:
            await context.abort(REPLACED, f"{SECOND_LINK}: do two nodes run with this identity?")
        if error is not None:
            await self._end(identity, error, context)
        log.info("the link of %s ended: the site or the network closed it", identity.uri)

    async def _end(self, identity: PeerIdentity, error: BaseException, context: Context) -> None:
        """Tell a site, and our log, why its link is cut."""
        if isinstance(error, IdentityError):
            code = grpc.StatusCode.UNAUTHENTICATED
        elif isinstance(error, FedtwinError):
            code = grpc.StatusCode.INVALID_ARGUMENT
        else:
            log.error("the link of %s met a fault of this program", identity.uri, exc_info=error)
            await context.abort(grpc.StatusCode.INTERNAL, OWN_FAULT)
        log.warning("ended the link of %s: %s", identity.uri, error)
        await context.abort(code, str(error))

    async def _read(self, link: SiteLink, context: Context) -> None:
        """Take a site's messages until it closes, or is silent for longer than the lease."""
        first = await _next(context)
        hello = parse(pb.FromSite, first or b"")
        if hello.WhichOneof("body") != "hello":
            raise WireError("expected a hello as the first message")
        if hello.hello.protocol != PROTOCOL_VERSION:
            raise WireError(
                f"expected protocol version {PROTOCOL_VERSION}, the site speaks "
                f"{hello.hello.protocol}: install the same release on both ends"
            )
        self._welcome(link, hello.hello)
        while (frame := await _next(context)) is not None:
            if is_chunk(frame):
                link.traffic.on_chunk(chunk_from_frame(frame))
            else:
                self._dispatch(link, parse(pb.FromSite, frame))

    def _welcome(self, link: SiteLink, hello: pb.Hello) -> None:
        rooms = self._rooms
        now = rooms.clock()
        rooms.store.seen(link.site, hello.software, now)
        self._compare_clocks(link.site, hello.sent_ms, now)
        link.send(
            pb.ToSite(
                welcome=pb.Welcome(
                    protocol=PROTOCOL_VERSION,
                    server_ms=int(now.timestamp() * 1000),
                    heartbeat_ms=int(HEARTBEAT_S * 1000),
                    catalogue_digest=rooms.catalogue.digest(link.site),
                    roots=rooms.public_log.roots_after(hello.root_version),
                )
            )
        )
        older = rooms.hub.attach(link)
        if older is not None:
            log.warning("%s: %s", link.site, SECOND_LINK)
            rooms.store.note("", link.site, SECOND_LINK, now)
        log.info("the link of site %s is up", link.site)

    def _compare_clocks(self, site: str, sent_ms: int, now: datetime) -> None:
        """Say in log and journal that one of two clocks is wrong."""
        skew_s = sent_ms / 1000 - now.timestamp()
        if sent_ms and abs(skew_s) > LARGEST_SKEW_S:
            way = "ahead of" if skew_s > 0 else "behind"
            text = f"its clock is {abs(skew_s):.0f} s {way} the coordinator's: one of them is wrong"
            log.warning("%s: %s", site, text)
            self._rooms.store.note("", site, text, now)

    def _dispatch(self, link: SiteLink, message: pb.FromSite) -> None:
        rooms = self._rooms
        match message.WhichOneof("body"):
            case "pulse":
                now_ms = int(rooms.clock().timestamp() * 1000)
                link.tell(rooms.catalogue.digest(link.site), now_ms)
            case "ask_catalogue":
                link.send(pb.ToSite(catalogue=rooms.catalogue.offers(link.site)))
            case "decision":
                self._decide(link, message.decision)
            case "answer":
                self._take_answer(link, message.answer)
            case "want":
                link.traffic.on_want(message.want)
            case "held_log_head":
                link.send(rooms.public_log.hear(link, message.held_log_head, rooms.clock()))
            case _:
                raise WireError(
                    "expected a message of the link, got an empty one or a second hello"
                )

    def _take_answer(self, link: SiteLink, answer: pb.Answer) -> None:
        rooms = self._rooms
        if rooms.hub.deliver(link, answer):
            return
        text = f"{NOBODY_WAITS}: it was for round {answer.round}"
        log.warning("refused an answer of %s: %s", link.site, text)
        if rooms.store.decisions(answer.study[:80]).get(link.site):
            rooms.store.note(answer.study, link.site, text, rooms.clock())

    def _decide(self, link: SiteLink, decision: pb.Decision) -> None:
        rooms = self._rooms
        rooms.catalogue.check(link.site, decision.study, decision.plan_hash)
        rooms.store.decide(decision.study, link.site, decision.take_part, rooms.clock())
        if not decision.take_part:
            rooms.hub.left(decision.study, link.site)
        rooms.hub.changed.set()

    async def _still(self, identity: PeerIdentity, context: Context) -> None:
        """End a long answer to somebody whose certificate has expired or was revoked meanwhile."""
        try:
            self._rooms.guard.recheck(identity)
        except IdentityError as error:
            await self._end(identity, error, context)

    async def _watch(self, identity: PeerIdentity) -> None:
        while True:
            await asyncio.sleep(WATCH_S)
            self._rooms.guard.recheck(identity)


async def _until(event: asyncio.Event) -> None:
    await event.wait()


async def _answer(context: Context, identity: PeerIdentity, work: Callable[[], bytes]) -> bytes:
    try:
        return work()
    except FedtwinError as error:
        log.warning("refused %s: %s", identity.uri, error)
        code = (
            grpc.StatusCode.PERMISSION_DENIED
            if isinstance(error, IdentityError)
            else grpc.StatusCode.INVALID_ARGUMENT
        )
        await context.abort(code, str(error))
        raise
    except Exception:
        log.exception("a call of %s met a fault of this program", identity.uri)
        await context.abort(grpc.StatusCode.INTERNAL, OWN_FAULT)
        raise


async def _next(context: Context) -> bytes | None:
    """A site's next frame; none at the end of the stream.

    Raises:
        WireError: nothing was heard for longer than the lease.
    """
    try:
        async with asyncio.timeout(LEASE_S):
            data = await context.read()
    except TimeoutError as error:
        raise WireError(f"nothing was heard for {LEASE_S:.0f} s") from error
    return None if data is grpc.aio.EOF else data
