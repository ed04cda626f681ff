"""The list of the store's live files: what it names is the store, and nothing else is.

Files of events are written under new names and never changed. An import becomes visible in one
step, when the new manifest takes the old one's place; before that a reader sees the old store,
after it the new one. Files that the last import replaced are kept until the next, for readers that
hold the old list.
"""

import os
import secrets
from pathlib import Path
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from fedtwin_client.at_rest.keyring import Keyring
from fedtwin_protocol.errors import ConfigurationError, RecordError

NAME = "manifest.json"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _File(_Part):
    """A file of the store.

    Attributes:
        path: relative to the store's folder.
        rows: how many it has.
        key: the file's own key in a box; none if the file is not encrypted.
    """

    path: str
    rows: int
    key: str | None = None

    def opened(self, folder: Path, keyring: Keyring | None) -> tuple[Path, bytes | None]:
        """Where the file lies, and its key.

        Raises:
            ConfigurationError: the keys at hand do not open it, or it is plain where all is
                encrypted.
        """
        path = folder / self.path
        if self.key is None:
            if keyring is not None and keyring.complete:
                raise ConfigurationError(
                    f"{path} is not encrypted, although everything of this node is: run "
                    "'fedtwin client keys seal' if you put it there"
                )
            return path, None
        if keyring is None:
            raise ConfigurationError(
                f"{path} is encrypted, and the node's folder has no keyring.json: restore it from "
                "a backup, or move the records away and import them again"
            )
        return path, keyring.open(self.key, self.path)


class EventFile(_File):
    """One bucket's events.

    Attributes:
        bucket: subject_id modulo the number of buckets.
    """

    bucket: int


class VersionFile(_File):
    """When versions of records were changed: `versions`."""


class PastImport(_Part):
    """A line of the store's history."""

    time: AwareDatetime
    origin: str
    events: int


class Manifest(_Part):
    """One state of the store.

    Attributes:
        generation: counts imports.
        files: the live files, at most one for each bucket.
        retired: files that the last import replaced; the next one deletes them.
        imports: all imports, oldest first.
        live_through: number of the last version of the live tail that the files hold.
        names_key: of the hashes of records' names (`origins`), 32 hexadecimal digits.
        versions: when what the store holds of each record was changed; newer files come last.
        zones: by source, the zone that its times were read in.
    """

    format: Literal["fedtwin-timeline-1"] = "fedtwin-timeline-1"
    generation: int = 0
    files: tuple[EventFile, ...] = ()
    retired: tuple[str, ...] = ()
    imports: tuple[PastImport, ...] = ()
    live_through: int = 0
    names_key: str = Field(default_factory=lambda: secrets.token_hex(16), pattern=r"^[0-9a-f]{32}$")
    versions: tuple[VersionFile, ...] = ()
    zones: dict[str, str] = {}


def read_manifest(folder: Path) -> Manifest | None:
    """The store's state, or none if nothing was ever imported.

    Raises:
        RecordError: the manifest cannot be read or is damaged.
    """
    path = folder / NAME
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RecordError(f"cannot read {path}: {error.strerror}") from error
    except ValidationError as error:
        raise RecordError(
            f"{path} is damaged or of another version; restore it from a backup, or move the "
            "folder away and import the records again"
        ) from error


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Make a state the store's state, durably and in one step."""
    path, fresh = folder / NAME, folder / f"{NAME}.new"
    try:
        with fresh.open("w", encoding="utf-8") as file:
            file.write(manifest.model_dump_json(indent=1))
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except OSError:
        fresh.unlink(missing_ok=True)
        raise
    sync_folder(folder)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
