"""Whether a disk is full: SQLite, Arrow and Python each say it in another way.

Whoever is told to check rights or to restore a backup, when all that lacks is room, does harm.
"""

import errno
import os
from contextlib import suppress
from pathlib import Path
from typing import Final

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_TOO_LITTLE: Final = 256 * 1024
"""Bytes with which SQLite can make no write-ahead log; it then speaks of an I/O error alone."""
MAKE_ROOM: Final = (
    "no room is left: free some on the disk (or raise the quota), then do the same again"
)


def is_full(error: BaseException, path: Path) -> bool:
    """Whether an error means that no room is left.

    Args:
        error: of writing; what led to it is looked at, too.
        path: that was written, or its folder.
    """
    cause: BaseException | None = error
    while cause is not None:
        name = str(getattr(cause, "sqlite_errorname", ""))
        if name == "SQLITE_FULL" or getattr(cause, "errno", None) in _FULL:
            return True
        if name.startswith("SQLITE_IOERR") and _free(path) < _TOO_LITTLE:
            return True
        cause = cause.__cause__
    return False


def how_to_mend(error: BaseException, path: Path, otherwise: str) -> str:
    """What to do about an error of writing, as the end of a sentence.

    Args:
        error: of writing.
        path: that was written, or its folder.
        otherwise: what to do where the disk is not full.
    """
    return MAKE_ROOM if is_full(error, path) else otherwise


def _free(path: Path) -> int:
    """Bytes that are left for this user where a path lies; very many if nobody can tell."""
    with suppress(OSError):
        said = os.statvfs(path if path.exists() else path.parent)
        return said.f_bavail * said.f_frsize
    return 1 << 62
