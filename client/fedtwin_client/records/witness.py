"""A tally that passes everything on and remembers what was said of one message.

A door answers its sender: with it, a door knows what the reader has put aside, left out or noted of
the message at hand, while the import's own account still gets all of it.
"""

from collections.abc import Sequence
from typing import NamedTuple

from fedtwin_client.records.report import Place, Tally


class Remark(NamedTuple):
    """What was said: `wrong` (put aside), `unused` (only counted) or `noted` (used)."""

    kind: str
    reason: str


class Witness(Tally):
    """Passes on to another tally, and remembers."""

    def __init__(self, behind: Tally) -> None:
        # The counters are the other's: nothing is counted here, and every message has a witness.
        super().__init__(
            quarantine=None,
            read=behind.read,
            reasons=behind.reasons,
            notes=behind.notes,
            examples=behind.examples,
        )
        self._behind = behind
        self.remarks: list[Remark] = []

    def skip(self, reason: str, place: Place, count: int = 1) -> None:
        """Count something that made no event though nothing is wrong with it."""
        self.remarks.append(Remark("unused", reason))
        self._behind.skip(reason, place, count)

    def note(self, reason: str, place: Place, count: int = 1) -> None:
        """Count something that was used and is worth a look."""
        self.remarks.append(Remark("noted", reason))
        self._behind.note(reason, place, count)

    def wrong(self, reason: str, place: Place) -> None:
        """Count something wrong."""
        self.remarks.append(Remark("wrong", reason))
        self._behind.wrong(reason, place)

    def set_aside(
        self,
        reasons: Sequence[str],
        place: Place,
        raw: object,
        patient: str | None = None,
        *,
        cut: bool = False,
    ) -> None:
        """Write something wrong to the quarantine file."""
        self._behind.set_aside(reasons, place, raw, patient, cut=cut)
