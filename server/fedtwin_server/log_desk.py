"""What the coordinator shows of the public log and of its TUF repository, and to whom."""

import logging
import re
from datetime import datetime
from pathlib import Path
from typing import Final

from fedtwin_protocol.errors import LogError, WireError
from fedtwin_protocol.tuf_client import METADATA, TARGETS
from fedtwin_protocol.v1 import exchange_pb2 as pb
from fedtwin_server.hub import SiteLink
from fedtwin_server.log_book import LogBook
from fedtwin_server.releases import ReleaseShelf
from fedtwin_server.store import Store
from fedtwin_server.tuf_repository import TufRepository

log = logging.getLogger("fedtwin.log")
_METADATA_FILE: Final = re.compile(r"timestamp\.json|[0-9]{1,9}\.(root|snapshot|targets)\.json")


class LogDesk:
    """Answers about the log and the repository.

    Args:
        store: the coordinator's memory.
        shelf: released files.
        repository: TUF metadata.
        consortium: whose they are.
    """

    def __init__(
        self, store: Store, shelf: ReleaseShelf, repository: TufRepository, consortium: str
    ) -> None:
        self._store = store
        self._shelf = shelf
        self._repository = repository
        self._book = LogBook(store.connection, consortium, repository.online_key())

    def refresh_if_due(self, now: datetime) -> None:
        """Keep the list of releases fresh."""
        self._repository.refresh_if_due(now)

    def roots_after(self, version: int) -> list[bytes]:
        """The TUF roots that follow the one that a site holds."""
        return self._repository.roots()[version:]

    def hear(self, link: SiteLink, held: pb.HeldLogHead, now: datetime) -> pb.ToSite:
        """Take what a site holds; answer with the newest head and what the others hold.

        Raises:
            WireError: the statement is not that site's.
        """
        key = self._store.signing_keys().get(link.site)
        try:
            size, entry = self._book.hold(link.site, held, key, now)
        except LogError as error:
            raise WireError(str(error)) from error
        if key is None and not link.gossip:
            log.warning("site %s has no signing key here: its view is not passed on", link.site)
        if entry is not None:
            self._store.log(entry)
        news = self._book.news(size, now, link.gossip, link.site)
        link.gossip |= {other.site: other.statement for other in news.others}
        return pb.ToSite(log_news=news)

    def answer(self, request: pb.AskLogRequest, now: datetime) -> bytes:
        """The newest head, with proofs of a study's entries where they are asked for."""
        news = self._book.news(request.held_size, now)
        if request.study:
            entries = self._book.entries(request.study[:80], request.version)
            sites = sorted({site for item in entries for site in item.entry.sites})
            entries += self._book.ledgers(sites)
            news.entries.extend(self._book.prove(entries, now))
        return news.SerializeToString()

    def file(self, path: str, role: str) -> Path:
        """Where a file of the repository lies.

        Raises:
            WireError: there is none, or it is not for that role.
        """
        if path.startswith(TARGETS):
            return self._shelf.file(path.removeprefix(TARGETS), role)
        name = path.removeprefix(METADATA)
        place = self._repository.folder / name
        if not _METADATA_FILE.fullmatch(name) or not place.is_file():
            raise WireError(f"there is no {path[:200]} here")
        return place
