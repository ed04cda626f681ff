"""Whose numbers patients are given by, where a command does not say."""

from pathlib import Path

from fedtwin_client.records.pseudonyms import IdentityMap
from fedtwin_protocol.errors import RecordError

OWN_NUMBERS = "genome:patient"
"""Whose numbers they are where no source has named patients yet."""


def whose_numbers(store: Path, system: str | None) -> str:
    """Whose numbers the patients are given by: as said, or as the one source that is there.

    Args:
        store: the timeline store's folder.
        system: an identifier system, or the name of a server or table; none: not said.

    Raises:
        RecordError: it was not said, and patients here are known by several.
    """
    if system:
        return system
    path = store / "identities.sqlite"
    systems = IdentityMap(path).systems() if path.exists() else []
    if len(systems) > 1:
        listed = ", ".join(f"'{name}'" for name in systems)
        raise RecordError(
            "say with --identifier-system whose numbers the patients are given by; patients here "
            f"are known by: {listed}"
        )
    return systems[0] if systems else OWN_NUMBERS
