"""What a code measures: the unit it is kept in, what joins its units, and what is plausible.

mg/dL and mmol/L are joined by the molar mass, computed from the formula by the standard atomic
weights (IUPAC 2021, abridged). Triglycerides are counted as triolein, urea by its two nitrogen
atoms and phosphate by its phosphorus, as laboratories do (AMA Manual of Style, SI conversion
table). Where neither mass nor charge joins two units, an equation does: kept = other * factor +
offset, as for HbA1c, NGSP % = 0.09148 * IFCC mmol/mol + 2.152 (the IFCC-NGSP master equation,
ngsp.org; Weykamp et al., Clin Chem 2008;54:240).
"""

import re
from dataclasses import dataclass
from typing import Final

from fedtwin_client.records.codes.unit_table import SAME, Conversion, UnitTable

_WEIGHTS: Final = {
    "H": 1.008, "C": 12.011, "N": 14.007, "O": 15.999, "Mg": 24.305, "P": 30.974, "S": 32.06,
    "Cl": 35.45, "Ca": 40.078, "Fe": 55.845, "Co": 58.933, "I": 126.90,
}  # fmt: skip
_FORMULA: Final = re.compile(r"(?:[A-Z][a-z]?\d*)+\Z")
_ATOMS: Final = re.compile(r"([A-Z][a-z]?)(\d*)")


@dataclass(frozen=True, kw_only=True, slots=True)
class Analyte:
    """What is measured.

    Attributes:
        name: in words, for messages.
        unit: the UCUM unit its values are kept in.
        molar_mass: in g/mol; none where no molar mass is used.
        charge: charges of one ion; none where equivalents have no meaning.
        other_unit: a unit that an equation joins to `unit`.
        equation: from `other_unit` to `unit`.
        low: the least plausible value, in `unit`; none if nothing is said.
        high: the greatest.
        written: further units in which it is commonly written.
        source: of the plausible range.
    """

    name: str
    unit: str
    molar_mass: float | None = None
    charge: int | None = None
    other_unit: str | None = None
    equation: Conversion | None = None
    low: float | None = None
    high: float | None = None
    written: tuple[str, ...] = ()
    source: str = ""

    @property
    def bare(self) -> bool:
        """Whether people write its values without a unit: scores, ratios, pH."""
        return self.unit in {"1", "[pH]"}


def molar_mass(formula: str) -> float | None:
    """In g/mol; none for what is no formula of atoms that are known here."""
    if not _FORMULA.match(formula):
        return None
    atoms = _ATOMS.findall(formula)
    if not all(atom in _WEIGHTS for atom, _ in atoms):
        return None
    return sum(_WEIGHTS[atom] * int(count or 1) for atom, count in atoms)


def convert_analyte(
    known: Analyte, source: str, target: str, units: UnitTable
) -> Conversion | None:
    """From one unit to another, through what is known of the substance; none if there is no way."""
    if known.unit == "1" and "%" in {source, target} and "%" not in known.written:
        return None  # no share: per cent beside an INR is another test of clotting, Quick's
    if known.equation is not None and known.other_unit is not None:
        into, out_of = _to_kept(known, source, units), _to_kept(known, target, units)
    else:
        plain = units.conversion(source, target)
        if plain is not None:
            return plain
        into, out_of = _to_moles(known, source, units), _to_moles(known, target, units)
    return None if into is None or out_of is None else into.then(out_of.inverse())


def _to_kept(known: Analyte, unit: str, units: UnitTable) -> Conversion | None:
    if unit == known.unit:
        return SAME
    assert known.other_unit is not None
    assert known.equation is not None
    other = units.conversion(unit, known.other_unit)
    if other is not None:
        return other.then(known.equation)
    # A share is not scaled: where an equation is needed, `1` is no 100 % of anything.
    return None if known.unit == "%" else units.conversion(unit, known.unit)


def _to_moles(known: Analyte, unit: str, units: UnitTable) -> Conversion | None:
    """From a unit of any of the three kinds of concentration to mol/L."""
    moles = units.conversion(unit, "mol/L")
    if moles is not None:
        return moles
    grams, equivalents = units.conversion(unit, "g/L"), units.conversion(unit, "eq/L")
    if grams is not None and known.molar_mass is not None:
        return grams.then(Conversion(factor=1.0 / known.molar_mass))
    if equivalents is not None and known.charge is not None:
        return equivalents.then(Conversion(factor=1.0 / known.charge))
    return None
