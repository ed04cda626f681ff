"""A tally that passes everything on to another; whoever listens in between builds on it."""

from collections.abc import Sequence

from fedtwin_client.records.report import Place, Tally


class PassingOn(Tally):
    """Counts nothing itself: the counters are the other's."""

    def __init__(self, behind: Tally) -> None:
        """Stand before a tally.

        Args:
            behind: the account.
        """
        super().__init__(
            quarantine=None,
            read=behind.read,
            reasons=behind.reasons,
            notes=behind.notes,
            examples=behind.examples,
        )
        self._behind = behind

    def skip(self, reason: str, place: Place, count: int = 1) -> None:
        """Count something that made no event though nothing is wrong with it."""
        self._behind.skip(reason, place, count)

    def note(self, reason: str, place: Place, count: int = 1) -> None:
        """Count something that was used and is worth a look."""
        self._behind.note(reason, place, count)

    def wrong(self, reason: str, place: Place) -> None:
        """Count something wrong."""
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
