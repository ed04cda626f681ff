"""Being the only one who changes the store, and clearing up what nobody needs any more."""

import fcntl
import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from fedtwin_client.store.manifest import Manifest
from fedtwin_protocol.errors import RecordError


def lock_store(folder: Path) -> AbstractContextManager[None]:
    """Be the only one who changes the store.

    Raises:
        RecordError: an import runs, or the folder cannot be written.
    """
    return hold(folder, "lock", "import")


@contextmanager
def hold(folder: Path, name: str, what: str) -> Iterator[None]:
    """Be the only one who holds a lock in a folder.

    Args:
        folder: made where there is none.
        name: of the lock's file.
        what: is running elsewhere if it is held, in a word.

    Raises:
        RecordError: it is held, or the folder cannot be written.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(folder / name, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise RecordError(f"cannot write to {folder}: {error.strerror}") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RecordError(
                f"another {what} into {folder} is running; wait for its end"
            ) from error
        yield
    finally:
        os.close(handle)


def clear(folder: Path, manifest: Manifest) -> None:
    """Remove files that no reader can need: unlisted ones, and those retired before."""
    shutil.rmtree(folder / "staging", ignore_errors=True)
    clear_but(folder, {file.path for file in (*manifest.files, *manifest.versions)})


def clear_but(folder: Path, kept: Collection[str]) -> None:
    """Remove all files of timelines but some, named as manifests name them."""
    paths = {folder / path for path in kept}
    for file in (*folder.glob("events/*.parquet"), *folder.glob("versions/*.parquet")):
        if file not in paths:
            file.unlink()
