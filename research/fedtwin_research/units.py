"""Units a researcher's columns may come in, and how they become the contract's.

A conversion between units of one dimension holds for every quantity; one between mass and amount
of substance needs the substance, which is known by the feature's codes. What is not listed is
refused, never guessed. Sources: SI definitions; molar masses from PubChem (cholesterol 386.65,
glucose 180.16, creatinine 113.12, triglycerides 885.4 g/mol as triolein by convention); HbA1c by
the IFCC-NGSP master equation, NGSP % = 0.09148 * IFCC mmol/mol + 2.152 (Hoelzel 2004,
doi 10.1373/clinchem.2003.024802).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

_SPELLINGS: Final = {
    "mmhg": "mm[Hg]",
    "mm hg": "mm[Hg]",
    "mm[hg]": "mm[Hg]",
    "mg/dl": "mg/dL",
    "mg/100ml": "mg/dL",
    "mmol/l": "mmol/L",
    "umol/l": "umol/L",
    "µmol/l": "umol/L",
    "μmol/l": "umol/L",
    "micromol/l": "umol/L",
    "kpa": "kPa",
    "bpm": "/min",
    "beats/min": "/min",
    "1/min": "/min",
    "{beats}/min": "/min",
    "years": "a",
    "year": "a",
    "yr": "a",
    "y": "a",
    "months": "mo",
    "percent": "%",
    "kg/m^2": "kg/m2",
    "kg/m²": "kg/m2",
    "lb": "[lb_av]",
    "lbs": "[lb_av]",
    "in": "[in_i]",
    "inch": "[in_i]",
    "": "1",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Conversion:
    """`value in target = factor * value in source + offset`."""

    factor: float
    offset: float = 0.0

    def of(self, value: float) -> float:
        """The value in the target unit."""
        return self.factor * value + self.offset

    @property
    def inverse(self) -> "Conversion":
        """The way back."""
        return Conversion(factor=1 / self.factor, offset=-self.offset / self.factor)


_GENERAL: Final = {
    ("kPa", "mm[Hg]"): Conversion(factor=7.500617),
    ("cm", "m"): Conversion(factor=0.01),
    ("[in_i]", "cm"): Conversion(factor=2.54),
    ("[lb_av]", "kg"): Conversion(factor=0.45359237),
    ("g", "kg"): Conversion(factor=0.001),
    ("mo", "a"): Conversion(factor=1 / 12),
    ("[degF]", "Cel"): Conversion(factor=5 / 9, offset=-160 / 9),
    ("g/L", "mg/dL"): Conversion(factor=100.0),
    ("cm", "mm"): Conversion(factor=10.0),
}
_CHOLESTEROL: Final = {("mmol/L", "mg/dL"): Conversion(factor=38.665)}
_HBA1C: Final = {("mmol/mol", "%"): Conversion(factor=0.09148, offset=2.152)}
_SUBSTANCES: Final = {
    "LOINC//2093-3": _CHOLESTEROL,
    "LOINC//2085-9": _CHOLESTEROL,
    "LOINC//13457-7": _CHOLESTEROL,
    "LOINC//18262-6": _CHOLESTEROL,
    "LOINC//2089-1": _CHOLESTEROL,
    "LOINC//2571-8": {("mmol/L", "mg/dL"): Conversion(factor=88.54)},
    "LOINC//2345-7": {("mmol/L", "mg/dL"): Conversion(factor=18.016)},
    "LOINC//2339-0": {("mmol/L", "mg/dL"): Conversion(factor=18.016)},
    "LOINC//1558-6": {("mmol/L", "mg/dL"): Conversion(factor=18.016)},
    "LOINC//2160-0": {("umol/L", "mg/dL"): Conversion(factor=1 / 88.4)},
    "LOINC//4548-4": _HBA1C,
    "LOINC//17856-6": _HBA1C,
    "LOINC//59261-8": _HBA1C,
}


def conversions_to(unit: str, codes: Iterable[str]) -> dict[str, Conversion]:
    """Every unit that can become `unit`, for a quantity with these codes.

    Args:
        unit: the contract's unit.
        codes: the feature's codes; they tell the substance.

    Returns:
        Conversion by source unit (UCUM), `unit` itself included.
    """
    tables = [*(_SUBSTANCES[code] for code in codes if code in _SUBSTANCES), _GENERAL]
    found = {ucum(unit): Conversion(factor=1.0)}
    for table in tables:
        for (source, target), conversion in table.items():
            if target == ucum(unit):
                found.setdefault(source, conversion)
            elif source == ucum(unit):
                found.setdefault(target, conversion.inverse)
    return found


def ucum(spelling: str) -> str:
    """The UCUM spelling of a unit as people write it; unknown ones come back as they are."""
    return _SPELLINGS.get(spelling.strip().lower(), spelling.strip())
