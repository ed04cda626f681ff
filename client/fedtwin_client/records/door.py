"""What a door for live records is: it listens or asks, reads, hands over, then acknowledges.

A door reads with the same adapters as an import does. Whatever it reads, or puts aside in its
desk's tally, is safe once `keep` returns, and only then may the sender be told so.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

from fedtwin_client.records.consent import Consent
from fedtwin_client.records.pseudonyms import Identity
from fedtwin_client.records.source import Desk, Version


class Keep(Protocol):
    """Makes versions, and what the desk's tally has put aside since the last call, durable."""

    async def __call__(
        self,
        versions: Sequence[Version],
        learned: Mapping[str, Identity] | None = None,
        consents: Mapping[str, Consent] | None = None,
    ) -> None:
        """Keep all of it, or fail as a whole.

        Calls may be made side by side; those that wait together share one write to the disk.

        Args:
            versions: of one message, point or resource; perhaps none.
            learned: addresses under which the source speaks of patients.
            consents: what patients said of research, by origin.

        Raises:
            RecordError: the disk is full or another fault; nothing of it was kept, and the sender
                must not be told that it was.
        """


class Door(Protocol):
    """A way for live records into the store."""

    @property
    def name(self) -> str:
        """Of the source, as events name it."""

    async def serve(self, desk: Desk, keep: Keep) -> None:
        """Take records in until cancelled.

        Args:
            desk: this door's own; its tally is emptied at every `keep`.
            keep: makes things durable.

        Raises:
            RecordError: it cannot be opened: a port is taken, an address unknown, a key refused.
        """
