"""A tally that passes everything on and remembers what was said of one message.

A door answers its sender: with it, a door knows what the reader has put aside, left out or noted of
the message at hand, while the import's own account still gets all of it.
"""

from typing import NamedTuple

from fedtwin_client.records.passing_on import PassingOn
from fedtwin_client.records.report import Place, Tally


class Remark(NamedTuple):
    """What was said: `wrong` (put aside), `unused` (only counted) or `noted` (used)."""

    kind: str
    reason: str


class Witness(PassingOn):
    """Passes on to another tally, and remembers; every message has a witness of its own."""

    def __init__(self, behind: Tally) -> None:
        super().__init__(behind)
        self.remarks: list[Remark] = []

    def skip(self, reason: str, place: Place, count: int = 1) -> None:
        """Count something that made no event though nothing is wrong with it."""
        self.remarks.append(Remark("unused", reason))
        super().skip(reason, place, count)

    def note(self, reason: str, place: Place, count: int = 1) -> None:
        """Count something that was used and is worth a look."""
        self.remarks.append(Remark("noted", reason))
        super().note(reason, place, count)

    def wrong(self, reason: str, place: Place) -> None:
        """Count something wrong."""
        self.remarks.append(Remark("wrong", reason))
        super().wrong(reason, place)
