"""What a site is told about studies, and only when it asks.

A site is contacted about a study by nobody but itself: it asks for the catalogue, decides, and
only then gets tasks. The digest in every heartbeat tells it that asking again is worth while.
"""

import hashlib

from fedtwin_protocol.errors import FedtwinError, WireError
from fedtwin_protocol.v1 import exchange_pb2 as pb
from fedtwin_server.store import LIVE_STATUSES, Store, StudyRecord
from fedtwin_server.study_record import plan_of


class StudyCatalogue:
    """The open studies that a site is invited to.

    Args:
        store: the coordinator's memory.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def digest(self, site: str) -> bytes:
        """Changes when the site's offers do."""
        lines = [f"{record.plan_hash}:{record.status}" for record in self._for(site)]
        return hashlib.sha256("\n".join(lines).encode()).digest()

    def offers(self, site: str) -> pb.Catalogue:
        """The signed plans of the studies a site may decide on, and how those it knows ended."""
        offers = [
            pb.Offer(plan_envelope=record.envelope, state=record.status)
            for record in self._for(site)
        ]
        return pb.Catalogue(digest=self.digest(site), offers=offers)

    def check(self, site: str, study: str, plan_hash: bytes) -> None:
        """A decision must be about a study, as it stands, that the site is invited to.

        The study may have ended meanwhile: then the site hears of that in the next catalogue, and
        gives back what it had reserved.

        Raises:
            WireError: otherwise.
        """
        try:
            record = self._store.study(study[:80])
        except FedtwinError as error:
            raise WireError("a decision came about a study that is not here") from error
        if record.plan_hash != plan_hash.hex():
            raise WireError("a decision came about another plan than the study's")
        invited = plan_of(record).sites.invited
        if invited and site not in invited:
            raise WireError("a decision came from a site that the study does not invite")

    def _for(self, site: str) -> list[StudyRecord]:
        records = []
        for record in self._store.studies():
            try:
                invited = plan_of(record).sites.invited
            except FedtwinError:  # the coordinator has ended this study with a sentence
                continue
            known = record.status in LIVE_STATUSES or site in self._store.decisions(record.study)
            if known and (not invited or site in invited):
                records.append(record)
        return records
