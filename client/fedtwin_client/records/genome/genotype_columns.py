"""The genotypes of one VCF line, all samples at once.

What a sample's cell says depends on the line and on very little of the cell: its genotype, its own
filter, and, where two alleles differ, whether reads of both were seen. So each different saying is
understood once, by the rules of a single cell (`variants.read_call`), and the samples only point to
it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fedtwin_client.records.genome.variant_files import VcfRecord
from fedtwin_client.records.genome.variants import read_call, reads_of_one
from fedtwin_client.records.reading import UnusableError

HALF = UnusableError("only one of two chromosomes was read", wrong=False)
Said: TypeAlias = tuple[int, ...] | UnusableError
"""Numbers of alleles, 0 for REF, or why there are none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Genotypes:
    """What some samples of a line say.

    Attributes:
        said: each different thing that is said, in the order of the samples.
        which: (samples,) the place in `said`.
    """

    said: Sequence[Said]
    which: NDArray[np.int64]


class SampleColumns:
    """Some of a file's samples.

    Args:
        places: of their columns, the first sample's is 0.
        of: how many samples the file has.
    """

    def __init__(self, places: Sequence[int], of: int) -> None:
        self._number = len(places)
        self._take: Callable[[Sequence[str]], Sequence[str]]
        if list(places) == list(range(of)):
            self._take = lambda cells: cells
        elif len(places) == 1:
            self._take = lambda cells: (cells[places[0]],)
        else:
            self._take = itemgetter(*places)

    def read(self, record: VcfRecord) -> Genotypes:
        """What the samples say.

        Args:
            record: a line of the file.
        """
        known = _Known(record)
        cells = self._take(record.samples)
        # Cells of a genotype alone are few, others nearly all different.
        look_up = known.__getitem__ if len(record.format) == 1 else known.place_of
        which = np.fromiter(map(look_up, cells), np.int64, self._number)
        return Genotypes(said=known.said, which=which)


class _Known(dict[str, int]):
    """By cell, the place of what it says; understood when it is first asked for."""

    def __init__(self, record: VcfRecord) -> None:
        super().__init__()
        self.said: list[Said] = []
        self._record = record
        self._alike: dict[Any, int] = {}
        self._essence = _essence_of(record.format)

    def place_of(self, cell: str) -> int:
        """The place of what a cell says."""
        essence = self._essence(cell)
        place = self._alike.get(essence)
        if place is None:
            place = self._alike[essence] = len(self.said)
            self.said.append(_understood(self._record, cell))
        return place

    def __missing__(self, cell: str) -> int:
        place = self[cell] = self.place_of(cell)
        return place


def _understood(record: VcfRecord, cell: str) -> Said:
    try:
        numbers = read_call(record, cell, least_depth=0).numbers
    except UnusableError as error:
        return error
    told = tuple(number for number in numbers if number is not None)
    return told if len(told) == len(numbers) else HALF


def _essence_of(keys: Sequence[str]) -> Callable[[str], Any]:
    """What of a cell with these keys can make a difference; equal essences say the same."""
    if not keys or keys[0] != "GT" or len(set(keys)) != len(keys):
        return lambda cell: cell
    if not {"FT", "AD"} & set(keys):
        return lambda cell: cell.partition(":")[0]
    filtered, reads = (keys.index(key) if key in keys else len(keys) for key in ("FT", "AD"))

    def essence(cell: str) -> Any:
        values = cell.split(":")
        genotype = values[0]
        own = values[filtered] if filtered < len(values) else ""
        one = reads < len(values) and genotype[:1] != genotype[2:] and reads_of_one(values[reads])
        return genotype, own, one

    def essence_of_reads(cell: str) -> Any:
        genotype = cell.partition(":")[0]
        if genotype[:1] == genotype[2:]:
            return genotype
        values = cell.split(":", reads + 1)
        return genotype if reads >= len(values) else (genotype, reads_of_one(values[reads]))

    return essence_of_reads if filtered == len(keys) else essence
