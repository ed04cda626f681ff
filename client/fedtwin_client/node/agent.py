"""The agent: keeps the node's one connection up, its certificate fresh, and its parts together.

It dials out and never listens. It is light: numbers are worked on in the training workers.
"""

import asyncio
import logging
import os
import random
from typing import Final, Literal

from fedtwin_client.at_rest.database import ERRORS
from fedtwin_client.node.home import NodeHome
from fedtwin_client.node.ledger import Ledger
from fedtwin_client.node.link import LinkSession
from fedtwin_client.node.log_desk import LogDesk
from fedtwin_client.node.log_watch import LogWatch
from fedtwin_client.node.outbox import Outbox
from fedtwin_client.node.sealing import make_keys, needs_sealing, seal
from fedtwin_client.node.secure_sums import SecureSums
from fedtwin_client.node.studies import KnownStudies
from fedtwin_client.node.study_desk import StudyDesk
from fedtwin_client.node.sum_desk import SumDesk
from fedtwin_client.node.task_desk import TaskDesk
from fedtwin_client.node.workers import Clock, Workers
from fedtwin_protocol.blobs import BlobStore
from fedtwin_protocol.channel import grpc, open_channel
from fedtwin_protocol.credentials import Credentials, load_credentials
from fedtwin_protocol.enrolment import renew
from fedtwin_protocol.errors import FedtwinError, IdentityError
from fedtwin_protocol.identity import check_validity
from fedtwin_protocol.refusals import REPLACED, explained
from fedtwin_protocol.site_key import keep_site_key

log = logging.getLogger("fedtwin.node")
FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 5.0
REFUSED_PAUSE_S: Final = 30.0
RENEWAL_RETRY_S: Final = 60.0
Ending = Literal["renewed", "replaced", "refused", "lost"]


class Agent:
    """A hospital's node.

    Args:
        home: its folder.
        clock: the time.
    """

    def __init__(self, home: NodeHome, clock: Clock) -> None:
        self._home = home
        self._settings = home.settings()
        self._lock = home.lock()
        _encrypt(home)
        self._clock = clock
        self._ledger = Ledger(home.ledger_file)
        self._outbox = Outbox(home.outbox_file)
        self._outbox.sweep()
        self._ledger.must_cover(self._outbox.tasks())
        self._studies = KnownStudies(home.studies_file)
        self._watch = LogWatch(home, self._settings.consortium, self._settings.site)
        self._workers = Workers(home, self._settings, clock, self._ledger.members)
        self._contents = BlobStore(home.contents)
        self._contents.tidy(clock(), all_under_way=True)
        key = keep_site_key(home.identity)
        self._sums = SecureSums(home.sums_file, self._settings.site, key)
        self._study_desk = StudyDesk(
            home, self._studies, self._ledger, self._workers, self._sums, clock
        )
        self._task_desk = TaskDesk(
            self._studies,
            self._ledger,
            self._outbox,
            self._workers,
            self._contents,
            SumDesk(self._sums),
            clock,
        )

    async def run(self) -> None:
        """Stay connected until cancelled.

        Raises:
            IdentityError: the certificate has expired, so that only a new invitation helps.
        """
        pause = FIRST_PAUSE_S
        try:
            while True:
                credentials = load_credentials(self._home.identity)
                check_validity(credentials.identity, self._clock())
                began = self._clock()
                ending = await self._one_link(credentials)
                if ending == "renewed":
                    continue
                if ending == "replaced":
                    pause = REFUSED_PAUSE_S
                elif (self._clock() - began).total_seconds() > LONGEST_PAUSE_S:
                    pause = FIRST_PAUSE_S
                await asyncio.sleep(pause * random.uniform(0.7, 1.3))  # noqa: S311 - spreads load
                pause = min(pause * 2, LONGEST_PAUSE_S if ending == "lost" else REFUSED_PAUSE_S)
        finally:
            await self._workers.stop_all()
            self._shut()

    async def _one_link(self, credentials: Credentials) -> Ending:
        """One life of the link, and how it ended."""
        session = LinkSession(
            self._study_desk,
            self._task_desk,
            self._studies,
            self._outbox,
            self._contents,
            self._clock,
            LogDesk(self._watch, self._studies, self._ledger, self._clock),
        )
        async with open_channel(
            self._settings.coordinator, credentials, self._settings.proxy
        ) as channel:
            link = asyncio.create_task(session.run(channel))
            renewal = asyncio.create_task(self._renew_in_time(channel, credentials))
            try:
                await asyncio.wait({link, renewal}, return_when=asyncio.FIRST_COMPLETED)
                if link.done():
                    return _explain(link.exception(), self._settings.coordinator)
                log.info("the certificate was renewed; the link moves to it")
                return "renewed"
            finally:
                link.cancel()
                renewal.cancel()
                await asyncio.gather(link, renewal, return_exceptions=True)

    async def _renew_in_time(self, channel: grpc.aio.Channel, credentials: Credentials) -> None:
        """Return when a new certificate, for a new key, lies on disk."""
        while True:
            wait = (credentials.renew_at - self._clock()).total_seconds()
            await asyncio.sleep(max(0.0, min(wait, RENEWAL_RETRY_S)))
            if self._clock() < credentials.renew_at:
                continue
            try:
                await renew(channel, self._home.identity, credentials)
            except (grpc.aio.AioRpcError, FedtwinError) as error:
                if isinstance(error, grpc.aio.AioRpcError):
                    error = explained(error, self._settings.coordinator)
                log.warning("the certificate could not be renewed yet: %s", error)
                life = (credentials.identity.not_after - self._clock()).total_seconds()
                await asyncio.sleep(max(0.2, min(RENEWAL_RETRY_S, life / 10)))
            else:
                return

    def _shut(self) -> None:
        self._outbox.shut()
        self._ledger.shut()
        self._sums.shut()
        self._studies.close()
        os.close(self._lock)


def _encrypt(home: NodeHome) -> None:
    """At a first start, encrypt what is not; after a rotation that was cut off, finish it."""
    if not needs_sealing(home.folder):
        return
    path = make_keys(home)
    log.warning(
        "the node's files are being encrypted; keep a copy of the site key %s apart from backups "
        "of the node's folder: without it nothing here can be read",
        path,
    )
    seal(home)


def _explain(error: BaseException | None, address: str) -> Ending:
    """Say in the log why the link ended; returns how."""
    if error is None:
        log.info("the coordinator closed the link; dialling again")
        return "lost"
    ending: Ending = "lost"
    if isinstance(error, grpc.aio.AioRpcError):
        ending = "replaced" if error.code() == REPLACED else ending
        error = explained(error, address)
    if isinstance(error, (OSError, *ERRORS)):
        log.error(
            "the node's files cannot be written or read: %s; check the disk. It is tried again, "
            "nothing is lost",
            error,
        )
        return ending
    if not isinstance(error, FedtwinError):
        log.error("the link ended by a fault of this program", exc_info=error)
        return ending
    log.warning("no link: %s", error)
    return "refused" if isinstance(error, IdentityError) else ending
