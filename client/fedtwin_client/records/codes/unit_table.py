"""A table of units: every spelling with the UCUM unit it stands for, and conversion within a kind.

A row whose spelling is its own unit defines that unit: its kind, and how to reach the kind's first
unit, as value * factor + offset. Any other row is a further spelling of a unit; one without a unit
refuses a spelling that would be misread (`Mm` is no millimetre). Case is of no matter unless the
row says `exact`: `G/L` is 10*9 cells a litre in French laboratories, `g/L` is a mass.
"""

import html
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

_ANNOTATION_ONLY: Final = re.compile(r"\{[^{}]*\}\Z")
_MOST_REMEMBERED: Final = 16_384
_POWER_OF_TEN: Final = re.compile("10([⁰¹²³⁴⁵⁶⁷⁸⁹]+)")
_RAISED: Final = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
# mmol.L-1: one unit by a power of -1 of another, as UCUM and the SI also write a division.
_BY_POWER: Final = re.compile(r"([^./·]+)[.·]([A-Za-z]+)(?:\^|\*\*)?-1\Z")


@dataclass(frozen=True, kw_only=True, slots=True)
class Conversion:
    """target = value * factor + offset."""

    factor: float
    offset: float = 0.0

    def __call__(self, value: float) -> float:
        """Convert one number."""
        return value * self.factor + self.offset

    def inverse(self) -> "Conversion":
        """The way back."""
        return Conversion(factor=1.0 / self.factor, offset=-self.offset / self.factor)

    def then(self, following: "Conversion") -> "Conversion":
        """This conversion and then another."""
        return Conversion(
            factor=self.factor * following.factor,
            offset=self.offset * following.factor + following.offset,
        )


SAME: Final = Conversion(factor=1.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Spelling:
    """One row of the table.

    Attributes:
        spelling: as somebody writes it.
        exact: whether upper and lower case matter.
        unit: UCUM; none: the spelling is refused.
        kind: of a row that defines its unit: what it measures.
        to_first: of such a row: the way to the kind's first unit.
    """

    spelling: str
    exact: bool
    unit: str | None
    kind: str | None = None
    to_first: Conversion | None = None


@dataclass(frozen=True, slots=True)
class UnitTable:
    """All units and their spellings.

    Attributes:
        units: unit -> its kind, and the way to the kind's first unit.
        exact: spellings in which case matters.
        loose: all others, in lower case.
    """

    units: Mapping[str, tuple[str, Conversion]]
    exact: Mapping[str, str | None]
    loose: Mapping[str, str]
    _remembered: dict[str, str | None] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, rows: Iterable[Spelling]) -> "UnitTable":
        """Build the table; of two rows with one spelling the later counts."""
        units: dict[str, tuple[str, Conversion]] = {}
        exact: dict[str, str | None] = {}
        loose: dict[str, str] = {}
        for row in rows:
            if row.kind is not None and row.unit is not None and row.to_first is not None:
                units[row.unit] = row.kind, row.to_first
            if row.exact or row.unit is None:
                exact[squeeze(row.spelling)] = row.unit
            else:
                loose[squeeze(row.spelling).lower()] = row.unit
        return cls(units, exact, loose)

    def normal(self, text: str) -> str | None:
        """The UCUM spelling of a unit; `1` for an annotation such as `{score}`; none if unknown."""
        try:
            return self._remembered[text]
        except KeyError:
            pass
        if len(self._remembered) >= _MOST_REMEMBERED:
            self._remembered.clear()
        found = self._remembered[text] = self._normal(text)
        return found

    def _normal(self, text: str) -> str | None:
        plain = squeeze(text)
        if plain in self.exact:
            return self.exact[plain]
        if plain in self.units:
            return plain
        known = self.loose.get(plain.lower())
        if known is None and _ANNOTATION_ONLY.match(plain):
            return "1"
        if known is None and (divided := _BY_POWER.match(plain)):
            return self._normal(f"{divided[1]}/{divided[2]}")
        return known

    def conversion(self, source: str, target: str) -> Conversion | None:
        """From one unit to another of the same kind, in UCUM spelling; none if there is no way."""
        if source == target:
            return SAME
        here, there = self.units.get(source), self.units.get(target)
        if here is None or there is None or here[0] != there[0]:
            return None
        if here[1].offset == there[1].offset == 0:
            return Conversion(factor=here[1].factor / there[1].factor)
        return here[1].then(there[1].inverse())


def squeeze(text: str) -> str:
    """A spelling without white space and HTML, with one sign each for micro, degree and powers."""
    plain = html.unescape(text).replace("μ", "u").replace("µ", "u").replace("º", "°")
    if not plain.isascii():
        plain = _POWER_OF_TEN.sub(r"10^\1", plain).translate(_RAISED)
    return "".join(plain.split())
