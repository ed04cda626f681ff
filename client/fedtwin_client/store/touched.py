"""Which rows of a file something live concerns, so that the others are read as they are."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True, slots=True)
class Touched:
    """A file's rows of patients whom something live concerns.

    Attributes:
        replaced: (some,) rows of records that have a newer version among what is live, rising.
        stays: (rows,) the others, rising.
        sources: (rows,) of these.
    """

    replaced: NDArray[np.int64]
    stays: NDArray[np.int64]
    sources: pa.Array

    @classmethod
    def nothing(cls) -> "Touched":
        """No row."""
        rows = np.zeros(0, np.int64)
        return cls(replaced=rows, stays=rows, sources=pa.array([], pa.string()))

    @classmethod
    def together(cls, parts: "Sequence[Touched]") -> "Touched":
        """Those of the parts of a file, in its order."""
        return cls(
            replaced=np.concatenate([part.replaced for part in parts]),
            stays=np.concatenate([part.stays for part in parts]),
            sources=pa.concat_arrays([part.sources for part in parts]),
        )

    def gone(self, first: int, rows: int) -> NDArray[np.int64]:
        """Of so many rows of the file from the first, those that are replaced."""
        low, high = np.searchsorted(self.replaced, (first, first + rows))
        return self.replaced[low:high] - first

    def staying(self, first: int, rows: int) -> tuple[NDArray[np.int64], pa.Array]:
        """Of the same, those of touched patients that are not, and their sources."""
        low, high = np.searchsorted(self.stays, (first, first + rows))
        return self.stays[low:high] - first, self.sources[low:high]
