"""Origins of records as two numbers, of 64 and 32 bits, however long their names are.

So ten thousand million records on either side are told apart, whatever they are called: two records
that were taken for one would cost a patient a result. Names of records are much alike (`…/f52/…/4`
and `…/f56/…/0`), and senders choose them. Hashes made for tables in memory, as databases have them,
give such names the same value often enough to be seen; the multilinear hash (Lemire and Kaser,
Strongly universal string hashing is fast, Comput. J. 57, 2014,
https://doi.org/10.1093/comjnl/bxt070) gives any two names the same with a chance of 2**-96. Its
keys are the store's own, so that no sender can look for names that would be taken for another's;
the store writes the numbers down.
"""

from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Hashes = tuple[NDArray[np.uint64], NDArray[np.uint32]]
_SUMS: Final = 3
"""Of 64 bits each, of which the upper half is used."""
_WORD: Final = 8
_AT_ONCE: Final = 16_384
"""Names, so that what is worked on fits into the processor's memory."""
_HALF: Final = np.uint64(32)
_LOWER: Final = np.uint64(0xFFFFFFFF)


class Origins:
    """Hashes names by one store's keys.

    Attributes:
        secret: that they are made of, `Manifest.names_key`.
    """

    def __init__(self, secret: str) -> None:
        """Hash as the store does.

        Args:
            secret: 32 hexadecimal digits.
        """
        self.secret = secret
        self._keys = self._made(64)

    def hashes(self, origins: Any) -> Hashes:
        """Both numbers of each name.

        Args:
            origins: names, an array of pyarrow's, of strings or large strings; where there is none
                the numbers are anything.
        """
        chunks = origins.chunks if isinstance(origins, pa.ChunkedArray) else [origins]
        sums = np.empty((_SUMS, len(origins)), dtype=np.uint64)
        done = 0
        for chunk in chunks:
            edges, words = _edges(chunk), _words(chunk)
            for start in range(0, len(chunk), _AT_ONCE):
                some = edges[start : start + _AT_ONCE + 1]
                end = done + len(some) - 1
                sums[:, done:end] = self._summed(words, some[:-1], np.diff(some))
                done = end
        sums >>= _HALF
        return (sums[0] << _HALF) | sums[1], sums[2].astype(np.uint32)

    def _summed(
        self, words: NDArray[np.uint64], starts: NDArray[np.int64], lengths: NDArray[np.int64]
    ) -> NDArray[np.uint64]:
        """For each name the sums of its length and its halves of words, each times a key.

        Returns:
            (sums, names).
        """
        order = np.argsort(-lengths, kind="stable")  # so that those that go on are the first
        starts, lengths = starts[order], lengths[order]
        longest = -(-int(lengths[0]) // _WORD)
        first, by_length, *keys = self._enough_keys(2 + 2 * longest)
        sums: NDArray[np.uint64] = first + lengths.astype(np.uint64) * by_length
        going_on = np.searchsorted(-lengths, -_WORD * np.arange(longest), "left").tolist()
        for number, names in enumerate(going_on):
            word = words[starts[:names] + _WORD * number]
            word &= _ending(lengths[:names] - _WORD * number)
            sums[:, :names] += (word & _LOWER) * keys[2 * number]
            sums[:, :names] += (word >> _HALF) * keys[2 * number + 1]
        found = np.empty_like(sums)
        found[:, order] = sums
        return found

    def _enough_keys(self, number: int) -> NDArray[np.uint64]:
        if number > len(self._keys):
            self._keys = self._made(max(number, 2 * len(self._keys)))
        return self._keys[:number]

    def _made(self, number: int) -> NDArray[np.uint64]:
        """The first so many keys, the same in every version of numpy (its NEP 19)."""
        drawn = np.random.Philox(key=int(self.secret, 16)).random_raw(number * _SUMS)
        found: NDArray[np.uint64] = drawn.reshape(number, _SUMS, 1)
        return found


def _edges(names: pa.Array) -> NDArray[np.int64]:
    """Where in the bytes each name begins, and the last one ends."""
    kind = np.int64 if pa.types.is_large_string(names.type) else np.int32
    edges = np.frombuffer(names.buffers()[1] or bytes(_WORD), kind)
    found: NDArray[np.int64] = edges[names.offset : names.offset + len(names) + 1].astype(np.int64)
    return found


def _words(names: pa.Array) -> NDArray[np.uint64]:
    """The eight bytes from each place on, the lowest first."""
    content = np.frombuffer(names.buffers()[2] or b"", np.uint8)
    content = np.concatenate([content, np.zeros(_WORD, np.uint8)])
    places = len(content) - _WORD + 1
    return np.ndarray((places,), np.dtype("<u8"), buffer=content, strides=(1,))


def _ending(left: NDArray[np.int64]) -> NDArray[np.uint64]:
    """What of a word is a name's, if so many bytes of it, one at least, are left."""
    behind = 8 * (_WORD - np.minimum(left, _WORD))
    return np.uint64(0xFFFFFFFFFFFFFFFF) >> behind.astype(np.uint64)
