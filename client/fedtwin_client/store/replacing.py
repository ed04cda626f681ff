"""Which records an import renews: a set of origins that is small however long their names are.

A version of `<origin>#<part>` renews that part alone: the events whose source is it, or goes on
with `/` after it. An origin is known by the two numbers of `origins`; memory is some 20 bytes for
each version of the import.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from fedtwin_client.store import versions
from fedtwin_client.store.staging import Staging

_AT_ONCE = 500_000


class Renewed:
    """The origins that an import has versions of.

    Attributes:
        outdated: (versions,) whether a newer version of the same record is in the import.
        held: (versions,) when what the store has of the record was changed, microseconds, 0 where
            that is not known or was not asked (`pass_over`).
        updated: (versions,) when each was changed, microseconds, 0 where its source does not say;
            empty if no source says it of any.
        made: (versions,) whether the version has events in the store; for the one who writes it.
    """

    def __init__(self, staging: Staging) -> None:
        """Read all versions.

        Args:
            staging: flushed.
        """
        self._staging = staging
        self._parts = staging.renews_parts
        self.outdated = np.zeros(staging.count, dtype=np.bool_)
        self.updated = np.zeros(staging.count if staging.dated else 0, dtype=np.int64)
        self.held = np.zeros(staging.count, dtype=np.int64)
        self.made = np.zeros(staging.count, dtype=np.bool_)
        self._ones = np.zeros(staging.count, dtype=np.uint64)
        self._twos = np.zeros(staging.count, dtype=np.uint32)
        for piece in staging.versions():
            numbers = piece["version"].to_numpy()
            self._ones[numbers] = piece["one"].to_numpy()
            self._twos[numbers] = piece["two"].to_numpy()
            if staging.dated:
                self.updated[numbers] = piece["updated"].to_numpy()
        self._mark_outdated(staging)
        self._versions: NDArray[np.uint32] | None = None

    def pass_over(self, held: versions.Held) -> int:
        """Leave out versions that are older than what is held of their records.

        Returns:
            How many versions that were not outdated before.
        """
        if not self._staging.dated or held.empty:
            return 0
        self.held = held.updated((self._ones, self._twos))
        late = (self.updated > 0) & (self.updated < self.held) & ~self.outdated
        self.outdated |= late
        return int(late.sum())

    def to_remember(self, withdrawn: NDArray[np.int64], subjects: NDArray[np.int64]) -> pa.Table:
        """When the newest versions were changed, where their sources say: `versions.SCHEMA`.

        Args:
            withdrawn: versions that have taken out all events of their record, in order.
            subjects: (withdrawn,) whose the events were.
        """
        if not self._staging.dated:
            return versions.SCHEMA.empty_table()
        wanted = self.updated > 0
        wanted[self._staging.of_erased()] = False
        numbers = self._sorted()
        rows: NDArray[np.int64] | slice = slice(None)
        if not wanted.all():
            rows = np.flatnonzero(wanted[numbers])
        numbers = numbers[rows]
        place = np.searchsorted(withdrawn, numbers.astype(np.int64))
        noted = np.append(withdrawn, -1)[place] == numbers
        whose = pa.nulls(len(numbers), pa.int64())
        if noted.any():
            whose = pa.array(np.append(subjects, 0)[place], mask=~noted)
        columns = [self._ones[rows], self._twos[rows], self.updated[numbers], whose]
        return pa.table(columns, schema=versions.SCHEMA)

    def places(self, sources: pa.ChunkedArray) -> NDArray[np.int64]:
        """For each event, the version that renews its record, or the part it is of, or -1.

        Args:
            sources: of events.
        """
        found = self._places(origins_of(sources))
        if self._parts:
            found = np.maximum(found, self._places(parts_of(sources)))
        return found

    def _places(self, names: pa.Table) -> NDArray[np.int64]:
        found = np.full(names.num_rows, -1, dtype=np.int64)
        if not names.num_rows or not len(self._ones):
            return found
        versions = self._sorted()
        if not len(versions):  # all of them are outdated
            return found
        one, two = self._staging.origins.hashes(names["origin"])
        first = np.searchsorted(self._ones, one)
        for step in (0, 1):  # two origins may share the first hash; three never do
            place = np.minimum(first + step, len(self._ones) - 1)
            same = (self._ones[place] == one) & (self._twos[place] == two)
            found[same] = versions[place[same]]
        return found

    def _sorted(self) -> NDArray[np.uint32]:
        """The newest versions in the order of their hashes; for those who need that order."""
        if self._versions is None:
            order = np.argsort(self._ones).astype(np.uint32)
            if self.outdated.any():
                order = order[~self.outdated[order]]
            self._versions = order
            self._ones, self._twos = self._ones[order], self._twos[order]
        return self._versions

    def _mark_outdated(self, staging: Staging) -> None:
        """Of the versions of one record all but the newest; if they say the same, but the last."""
        ordered = np.sort(self._ones)
        repeated = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
        for start in range(0, len(repeated), _AT_ONCE):
            wanted = np.isin(self._ones, repeated[start : start + _AT_ONCE])
            pieces = (
                piece.filter(pa.array(wanted[piece["version"].to_numpy()]))
                for piece in staging.versions()
            )
            found = pa.concat_tables(pieces)
            one, two, updated, version = (
                found[name].to_numpy() for name in ("one", "two", "updated", "version")
            )
            order = np.lexsort((version, updated, two, one))
            same = one[order][1:] == one[order][:-1]
            same &= two[order][1:] == two[order][:-1]
            self.outdated[version[order][:-1][same]] = True


def origins_of(sources: pa.ChunkedArray) -> pa.Table:
    """The origins of events' sources."""
    return pa.table({"origin": pc.list_element(pc.split_pattern(sources, "#", max_splits=1), 0)})


def parts_of(sources: pa.ChunkedArray) -> pa.Table:
    """The parts of records that events are of: `<origin>#<part>`."""
    found = pc.extract_regex(sources, r"^(?P<origin>[^#]*#[^/]*)")
    return pa.table({"origin": pc.struct_field(found, "origin")})
