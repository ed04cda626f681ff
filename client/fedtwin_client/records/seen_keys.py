"""Which whole numbers have come before, in little memory where they are dense, as keys are.

A block is a bit for each of 65,536 neighbouring numbers. Keys that are strewn so widely that
blocks would be nearly empty go to a plain set from the 4,096th block on.
"""

import numpy as np
import numpy.typing as npt

_BLOCK = 16
_MOST_BLOCKS = 4_096


class SeenKeys:
    """The keys of one table that were read so far."""

    def __init__(self) -> None:
        self._blocks: dict[int, npt.NDArray[np.uint8]] = {}
        self._strewn: set[int] = set()

    def first_time(self, keys: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Which keys have not come before, and remember them.

        Args:
            keys: shape (rows,).

        Returns:
            Shape (rows,); of keys that are equal the first is new.
        """
        order = np.argsort(keys, kind="stable")
        ordered = keys[order]
        fresh = np.ones(len(keys), dtype=np.bool_)
        fresh[1:] = ordered[1:] != ordered[:-1]
        blocks, starts = np.unique(ordered >> _BLOCK, return_index=True)
        ends = [*starts[1:].tolist(), len(ordered)][: len(starts)]
        for block, start, end in zip(blocks.tolist(), starts.tolist(), ends, strict=True):
            part = ordered[start:end]
            fresh[start:end] &= self._in_block(block, part)
        result = np.empty_like(fresh)
        result[order] = fresh
        return result

    def _in_block(self, block: int, keys: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        bits = self._blocks.get(block)
        if bits is None:
            if len(self._blocks) >= _MOST_BLOCKS:
                fresh = np.array([key not in self._strewn for key in keys.tolist()])
                self._strewn.update(keys.tolist())
                return fresh
            bits = self._blocks[block] = np.zeros(1 << (_BLOCK - 3), dtype=np.uint8)
        low = keys & ((1 << _BLOCK) - 1)
        place, bit = low >> 3, (1 << (low & 7)).astype(np.uint8)
        fresh_here: npt.NDArray[np.bool_] = (bits[place] & bit) == 0
        np.bitwise_or.at(bits, place, bit)
        return fresh_here
