"""The public log on one link: what is shown is judged, and nothing is done before it was shown."""

import asyncio
import logging
from typing import Final

from fedtwin_client.node.ledger import Ledger
from fedtwin_client.node.log_watch import LogWatch
from fedtwin_client.node.studies import KnownStudies
from fedtwin_client.node.workers import Clock
from fedtwin_protocol.errors import LogError
from fedtwin_protocol.v1 import exchange_pb2 as pb

log = logging.getLogger("fedtwin.log")
PATIENCE_S: Final = 30.0


class LogDesk:
    """One link's view of the log.

    Args:
        watch: what the node holds.
        studies: whose plans name other sites' keys.
        ledger: whose newest entry is committed to.
        clock: the time.
    """

    def __init__(
        self, watch: LogWatch, studies: KnownStudies, ledger: Ledger, clock: Clock
    ) -> None:
        self.watch = watch
        self._studies = studies
        self._ledger = ledger
        self._clock = clock
        self._seen = asyncio.Event()

    def statement(self) -> pb.HeldLogHead:
        """What this node holds, signed."""
        return self.watch.statement(self._ledger.head(), self._clock())

    def hear(self, news: pb.LogNews) -> None:
        """Judge what is shown; after an alarm `shown` raises, and the link stays for the others."""
        try:
            self.watch.hear(news, self._keys(), self._clock())
        except LogError as error:
            log.error("the coordinator's log is not believed: %s", error)
            return
        self._seen.set()

    async def shown(self) -> None:
        """Wait until the coordinator has shown its log on this link.

        Raises:
            LogError: it does not, or what was shown did not fit, now or earlier.
        """
        self.watch.check()
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self._seen.wait()
        except TimeoutError as error:
            raise LogError(
                f"the coordinator has not shown its log for {PATIENCE_S:.0f} s: nothing is done "
                "for it before"
            ) from error
        self.watch.check()

    def _keys(self) -> dict[str, str]:
        """Sites' keys from the signed plans that this node knows; the newest plan counts."""
        return {
            site: key
            for study in self._studies.all()
            for site, key in study.plan.sites.keys.items()
        }
