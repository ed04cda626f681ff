"""The links that are up, and the exchanges that wait for answers over them."""

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime
from typing import Protocol

from fedtwin_protocol.blobs import BlobStore
from fedtwin_protocol.content import ref_of
from fedtwin_protocol.errors import WireError
from fedtwin_protocol.stream import Outlet, Traffic
from fedtwin_protocol.v1 import exchange_pb2 as pb

log = logging.getLogger("fedtwin.link")
Clock = Callable[[], datetime]
NOBODY_WAITS = "nobody waits for this answer (any more)"
LONGEST_REASON = 1000


class SiteLink:
    """One site's open stream, as the coordinator sees it.

    To send never fails here: a site that does not read what it is sent loses its link, and no study
    is stopped by it.

    Args:
        site: the name in the site's certificate.
        blobs: where contents lie.
    """

    def __init__(self, site: str, blobs: BlobStore) -> None:
        self.site = site
        self.outlet: Outlet[pb.ToSite] = Outlet()
        self.traffic = Traffic(blobs, self._want, self._chunk)
        self.ended = asyncio.Event()
        self.replaced = False
        self.told = b""
        self.gossip: dict[str, bytes] = {}
        self.answers = 0

    def send_task(self, task: pb.Task) -> None:
        """Hand out a task; its blob may be fetched from now on."""
        ref = ref_of(task.content)
        if ref is not None:
            self.traffic.offer(ref)
        self.send(pb.ToSite(task=task))

    def tell(self, digest: bytes, now_ms: int) -> None:
        """Send the catalogue's digest, which says nothing about any study."""
        self.told = digest
        self.send(pb.ToSite(pulse=pb.Pulse(sent_ms=now_ms, catalogue_digest=digest)))

    def receipt(self, task_id: str, accepted: bool, reason: str = "") -> None:
        """Say what became of an answer."""
        received = pb.Received(task_id=task_id, accepted=accepted, reason=reason[:LONGEST_REASON])
        self.send(pb.ToSite(received=received))

    def send(self, message: pb.ToSite) -> None:
        """Queue a message; the link ends if too many wait already."""
        if self.ended.is_set():
            return
        try:
            self.outlet.send(message)
        except WireError as error:
            log.warning("ended the link of %s: %s", self.site, error)
            self.end()

    def end(self) -> None:
        """Close the stream."""
        self.ended.set()
        self.outlet.close()
        self.traffic.close()

    def _want(self, want: pb.Want) -> None:
        self.send(pb.ToSite(want=want))

    async def _chunk(self, frame: bytes) -> None:
        await self.outlet.send_bulk(frame)


class Waiting(Protocol):
    """An exchange that waits for answers."""

    def link_changed(self, site: str) -> None:
        """A site's link came up or went down."""

    def left(self, study: str, site: str) -> None:
        """A site has left a study."""

    def take(self, link: SiteLink, answer: pb.Answer) -> bool:
        """Take an answer; false if it is not one of this exchange's."""


class Hub:
    """All links by site; the newest link of a site replaces an older one."""

    def __init__(self) -> None:
        self._links: dict[str, SiteLink] = {}
        self._waiting: list[Waiting] = []
        self.changed = asyncio.Event()

    @property
    def sites(self) -> tuple[str, ...]:
        """Names of the sites whose links are up."""
        return tuple(sorted(self._links))

    @property
    def links(self) -> tuple[SiteLink, ...]:
        """The links that are up."""
        return tuple(self._links.values())

    def link(self, site: str) -> SiteLink | None:
        """A site's link, if it is up."""
        return self._links.get(site)

    def attach(self, link: SiteLink) -> SiteLink | None:
        """Register a link; returns the older one of the same site, which it replaces."""
        older = self._links.get(link.site)
        self._links[link.site] = link
        if older is not None:
            older.replaced = True
            older.end()
        self._tell(link.site)
        return older

    def detach(self, link: SiteLink) -> None:
        """Forget a link that ended."""
        link.end()
        if self._links.get(link.site) is link:
            del self._links[link.site]
            self._tell(link.site)

    def watch(self, exchange: Waiting) -> None:
        """Pass answers and link changes to an exchange."""
        self._waiting.append(exchange)

    def unwatch(self, exchange: Waiting) -> None:
        """Stop doing so."""
        self._waiting.remove(exchange)

    def deliver(self, link: SiteLink, answer: pb.Answer) -> bool:
        """Give an answer to the exchange that waits for it, or tell the site that none does.

        Returns:
            Whether one did.
        """
        link.answers += 1
        if any(exchange.take(link, answer) for exchange in tuple(self._waiting)):
            return True
        link.receipt(answer.task_id[:80], False, NOBODY_WAITS)
        return False

    def left(self, study: str, site: str) -> None:
        """Tell exchanges that a site has left a study."""
        for exchange in tuple(self._waiting):
            exchange.left(study, site)

    def _tell(self, site: str) -> None:
        self.changed.set()
        for exchange in tuple(self._waiting):
            exchange.link_changed(site)
