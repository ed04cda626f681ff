"""Origins of records as two hashes of 64 bits each, however long their names are.

So ten thousand million records on either side are told apart.
"""

from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

_HASHES = "SELECT hash(origin) AS one, hash(origin || '#') AS two FROM origins"

Hashes = tuple[NDArray[np.uint64], NDArray[np.uint64]]


class Origins:
    """Hashes names; nothing of it comes to the disk."""

    def __init__(self) -> None:
        self._db = duckdb.connect()
        self._db.execute("SET threads = 1")
        self._db.execute("SET temp_directory = ''")

    def hashes(self, origins: Any) -> Hashes:
        """Both hashes of each name.

        Args:
            origins: names, an array of pyarrow's; where there is none the hashes are anything.
        """
        self._db.register("origins", pa.table({"origin": origins}))
        found = self._db.execute(_HASHES).fetchnumpy()
        self._db.unregister("origins")
        return np.asarray(found["one"]), np.asarray(found["two"])
