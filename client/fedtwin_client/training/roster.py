"""The members that the site's ledger wrote down for a study: nobody else's row is ever used.

They are fixed before the first charge, so a patient who comes later, or whose lifetime budget is
spent, is absent from every task of the study.
"""

from collections.abc import Sequence

from fedtwin_client.training.absence import Absent
from fedtwin_client.training.pseudonym_list import unpack


class Roster:
    """Who may take part; everybody until the agent says whom the ledger has."""

    def __init__(self) -> None:
        self._members: frozenset[int] | None = None

    def confine(self, packed: bytes | None) -> None:
        """Take part only with these (`pseudonym_list.pack`); none: with everybody."""
        self._members = None if packed is None else frozenset(unpack(packed))

    def outside(self, subject_ids: Sequence[int]) -> Absent:
        """Whom of a cohort the ledger does not have; the very same set while nothing changes."""
        everybody = frozenset(subject_ids)
        seen: frozenset[int] | None = None
        outside: frozenset[int] = frozenset()

        def absent() -> frozenset[int]:
            nonlocal seen, outside
            if self._members is not seen:
                seen = self._members
                outside = frozenset() if seen is None else everybody - seen
            return outside

        return absent
