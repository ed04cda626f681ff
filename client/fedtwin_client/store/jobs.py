"""Changing the store: one job at a time, after what a killed one left was cleared up."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fedtwin_client.at_rest.room import how_to_mend
from fedtwin_client.store.erasure import finish_erasures
from fedtwin_client.store.locking import clear, clear_but, lock_store
from fedtwin_client.store.manifest import Manifest, read_manifest
from fedtwin_protocol.errors import RecordError


@contextmanager
def job_in(store: Path) -> Iterator[Manifest]:
    """Be the only one who changes the store; it is made where there is none.

    Yields:
        The store's state.

    Raises:
        RecordError: another job runs, or the disk refuses; the store is then what it was.
    """
    _attempt(store, lambda: store.mkdir(mode=0o700, parents=True, exist_ok=True))
    with lock_store(store):
        finish_erasures(store)
        previous = read_manifest(store) or Manifest()
        _attempt(store, lambda: clear(store, previous))
        try:
            yield previous
        except OSError as error:
            _clear_up(store, previous)
            mend = how_to_mend(error, store, "mend that and import again")
            raise RecordError(
                f"cannot write to {store}: {error}; nothing was imported: {mend}"
            ) from error
        except BaseException:
            _clear_up(store, previous)
            raise


@contextmanager
def staging_in(store: Path) -> Iterator[Path]:
    """An empty folder `staging` in the store, removed at the end; the caller has the job."""
    folder = store / "staging"
    _attempt(store, lambda: folder.mkdir(mode=0o700))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _clear_up(store: Path, previous: Manifest) -> None:
    """Remove what was written for nothing, which would keep a full disk full."""
    with suppress(OSError, RecordError):
        now = read_manifest(store) or previous
        states = (previous, now)
        listed = {file.path for state in states for file in (*state.files, *state.versions)}
        clear_but(store, listed | set(now.retired))


def _attempt(store: Path, action: Callable[[], None]) -> None:
    try:
        action()
    except OSError as error:
        mend = how_to_mend(error, store, "check the disk, the folder's owner and its rights")
        raise RecordError(f"cannot write to {store} ({error.strerror}): {mend}") from error
