"""One patient's bases at one position of a gene, and the order of names in a diplotype."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

UNDOCUMENTED: Final = "?"
"""Stands for bases that no named allele has."""
_DIGITS: Final = re.compile(r"(\d+)")


@dataclass(frozen=True, slots=True)
class Genotype:
    """What was read at one position.

    Attributes:
        alleles: bases of one or two chromosomes, in VCF order; `UNDOCUMENTED` for bases that no
            named allele has, none for a chromosome that was not read.
        phased: the first allele lies on one strand with the first ones of its phase set.
        phase_set: within which phases are known; none: the whole chromosome.
    """

    alleles: tuple[str | None, ...]
    phased: bool = False
    phase_set: str | None = None

    @property
    def heterozygous(self) -> bool:
        """Whether the two chromosomes differ."""
        return len(set(self.alleles)) > 1

    def block(self, position: int) -> str:
        """Positions of one block keep their order of strands together."""
        if self.phased:
            return f"set {self.phase_set or ''}"
        return f"at {position}"


def name_order(name: str) -> tuple[object, ...]:
    """The key that names are sorted by: the reference first, then numbers as numbers."""
    parts = _DIGITS.split(name)
    tokens = tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts if part)
    return (not name.startswith(("Reference", "B (reference)")), tokens)


def diplotype_name(names: Iterable[str]) -> str:
    """Two names, the lower first, such as `*1/*17`; one name alone where there is one."""
    return "/".join(sorted(names, key=name_order))
