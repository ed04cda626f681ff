"""A tally for what can only be read again as a whole: a message, a data point, a row of a table.

Each fault in it is counted where it is found. The quarantine file gets the whole of it, once, with
every reason: a person mends it there, and it is read again by the same adapter.
"""

from collections.abc import Sequence

from fedtwin_client.records.passing_on import PassingOn
from fedtwin_client.records.report import Place, Tally


class Whole(PassingOn):
    """Passes on to another tally, and keeps back what would be written to the quarantine file."""

    def __init__(self, behind: Tally) -> None:
        """Start with the first whole.

        Args:
            behind: the account.
        """
        super().__init__(behind)
        self._reasons: list[str] = []

    def wrong(self, reason: str, place: Place) -> None:
        """Count something wrong, and remember it until the end of the whole."""
        self._reasons.append(reason)
        super().wrong(reason, place)

    def set_aside(
        self,
        reasons: Sequence[str],
        place: Place,
        raw: object,
        patient: str | None = None,
        *,
        cut: bool = False,
    ) -> None:
        """Nothing yet: the whole follows."""

    def end(self, place: Place, raw: object, patient: str | None = None) -> None:
        """The whole was read: it is set aside if anything in it was wrong, and the next one begins.

        Args:
            place: where it stands.
            raw: all of it; called only if it is needed, where it is a function.
            patient: whose it is, where that was said beside it.
        """
        if self._reasons:
            reasons, self._reasons = self._reasons, []
            self._behind.set_aside(reasons, place, raw() if callable(raw) else raw, patient)
