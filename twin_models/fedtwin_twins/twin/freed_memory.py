"""Keeping memory that was freed, for processes that simulate.

The C library gives large pieces that are freed back to the system and takes them anew, page by
page, for the next result of the same size. Where arrays of some megabytes come and go this takes a
third of the time.
"""

import ctypes
import sys
from typing import Final

KEPT: Final = 512 * 2**20
"""Bytes at the heap's end that are kept."""
_LARGEST: Final = 32 * 2**20
"""Bytes above which a piece never is of the heap; glibc allows no more."""
# Parameters of mallopt(3), from glibc's malloc.h.
_TRIM_THRESHOLD: Final = -1
_MMAP_THRESHOLD: Final = -3


def keep_freed_memory() -> bool:
    """Let this process keep it from now on.

    Returns:
        whether it does: only glibc can be told.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_TRIM_THRESHOLD, KEPT)) and bool(mallopt(_MMAP_THRESHOLD, _LARGEST))
