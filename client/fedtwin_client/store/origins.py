"""Origins of records as two numbers, however long their names are.

Both are MurmurHash64A (Austin Appleby, 2008, public domain), of two seeds: the same on every
machine and in every version of whatever is installed, for the store writes them down. Of the second
the lower half counts. So ten thousand million records on either side are told apart.
"""

from typing import Any, Final, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

_SEEDS: Final = (0x243F6A8885A308D3, 0x13198A2E03707344)  # the first digits of pi
_MULTIPLIER: Final = np.uint64(0xC6A4A7935BD1E995)
_SHIFT: Final = np.uint64(47)
_WORD: Final = 8
_AT_ONCE: Final = 16_384  # so that the columns that are worked on stay in the processor's cache
_PARTS: Final = np.array([(1 << 8 * size) - 1 for size in range(_WORD)], np.uint64)

Hashes = tuple[NDArray[np.uint64], NDArray[np.uint32]]
_Words = NDArray[np.uint64]


def hashes(origins: Any) -> Hashes:
    """Both numbers of each name.

    Args:
        origins: names, a string array of pyarrow's; where there is none the numbers are anything.
    """
    names = origins.combine_chunks() if isinstance(origins, pa.ChunkedArray) else origins
    written = np.frombuffer(names.buffers()[1] or bytes(4), np.int32)
    edges = written[names.offset : names.offset + len(names) + 1].astype(np.int64)
    one, two = np.zeros(len(names), np.uint64), np.zeros(len(names), np.uint32)
    if not len(names):
        return one, two
    content = np.frombuffer(names.buffers()[2] or b"", np.uint8)[edges[0] : edges[-1]]
    edges -= edges[0]
    data = np.concatenate([content, np.zeros(_WORD, np.uint8)])
    words: _Words = np.ndarray(
        (len(content) + 1,), np.dtype("<u8"), buffer=data, strides=(1,)
    )  # one that begins at each byte
    for first in range(0, len(names), _AT_ONCE):
        rows = slice(first, first + _AT_ONCE)
        begins: NDArray[np.int64] = edges[:-1][rows]
        one[rows], second = _murmur(words, begins, edges[1:][rows] - begins)
        two[rows] = second.astype(np.uint32)
    return one, two


def _murmur(
    words: _Words, begins: NDArray[np.int64], lengths: NDArray[np.int64]
) -> tuple[_Words, _Words]:
    first, second = (np.uint64(seed) ^ lengths.astype(np.uint64) * _MULTIPLIER for seed in _SEEDS)
    whole = lengths // _WORD
    fewest = int(whole.min())
    for number in range(int(whole.max())):
        word = words[np.minimum(begins + _WORD * number, len(words) - 1)]
        word *= _MULTIPLIER
        word ^= word >> _SHIFT
        word *= _MULTIPLIER
        longer: NDArray[np.bool_] | Literal[True] = True if number < fewest else whole > number
        _mix(first, word, longer)
        _mix(second, word, longer)
    left = lengths % _WORD
    rest = words[begins + _WORD * whole] & _PARTS[left]
    return _ended(first, rest, left > 0), _ended(second, rest, left > 0)


def _mix(found: _Words, word: _Words, where: NDArray[np.bool_] | Literal[True]) -> None:
    np.bitwise_xor(found, word, out=found, where=where)
    np.multiply(found, _MULTIPLIER, out=found, where=where)


def _ended(found: _Words, rest: _Words, where: NDArray[np.bool_]) -> _Words:
    _mix(found, rest, where)
    found ^= found >> _SHIFT
    found *= _MULTIPLIER
    found ^= found >> _SHIFT
    return found
