"""What the timelines know of records that come in live, looked up as they come."""

import os
from collections.abc import Collection
from pathlib import Path

import pyarrow as pa

from fedtwin_client.at_rest.keyring import Keyring
from fedtwin_client.store import manifest
from fedtwin_client.store.manifest import read_manifest
from fedtwin_client.store.origins import Origins
from fedtwin_client.store.versions import Held
from fedtwin_protocol.errors import RecordError


class HeldLive:
    """Looks records up in the newest state of a store's files, whoever changes it.

    Args:
        store: the timeline store's folder.
        keyring: the node's; none: nothing is encrypted.
    """

    def __init__(self, store: Path, keyring: Keyring | None) -> None:
        self._store, self._keyring = store, keyring
        self._mark: tuple[int, int] | None = None
        self._held: Held | None = None
        self._origins: Origins | None = None

    def shut(self) -> None:
        """Close the files."""
        if self._held is not None:
            self._held.shut()
        self._held, self._mark = None, None

    def updated(self, origins: Collection[str]) -> dict[str, int]:
        """For those of some records of which it is known: when they were changed, microseconds.

        Raises:
            RecordError: the files cannot be read.
            ConfigurationError: the keys at hand do not open them.
        """
        held = self._newest()
        if held is None or self._origins is None or not origins:
            return {}
        asked = sorted(origins)
        try:
            found = held.updated(self._origins.hashes(pa.array(asked, pa.string())))
        except (OSError, pa.ArrowException) as error:
            raise self._fault(error) from error
        return {
            origin: updated
            for origin, updated in zip(asked, found.tolist(), strict=True)
            if updated
        }

    def _newest(self) -> Held | None:
        """The files as the manifest of this moment lists them; none if there are none."""
        try:
            found = os.stat(self._store / manifest.NAME)
        except FileNotFoundError:
            return None
        mark = (found.st_ino, found.st_mtime_ns)
        if mark != self._mark:
            # What fails is tried again at the next record, from the beginning.
            before, self._held, self._mark = self._held, None, None
            self._held, self._mark = self._opened(before), mark
        return self._held

    def _opened(self, before: Held | None) -> Held | None:
        for last in (False, True):
            state = read_manifest(self._store)
            files = () if state is None else state.versions
            self._origins = None if state is None else Origins(state.names_key)
            try:
                held = Held(self._store, files, self._keyring, few=True, before=before)
                return held if files else None
            except FileNotFoundError as error:
                if last:  # two jobs ended while it was opened; once more is enough
                    raise self._fault(error) from error
                before = None  # it is closed
            except (OSError, pa.ArrowException) as error:
                raise self._fault(error) from error
        raise AssertionError("the last turn returns or raises")

    def _fault(self, error: Exception) -> RecordError:
        return RecordError(
            f"cannot read what {self._store} holds of records ({error}): restore the folder as a "
            "whole from a backup; until then nothing live is kept, and senders send it again"
        )
