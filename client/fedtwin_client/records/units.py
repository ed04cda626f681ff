"""One spelling for every unit, and conversion between units of one kind.

Spelling comes first: hospitals write `mmHg`, `MM HG`, `mm[Hg]` (UCUM) for one unit, and a UCUM
parser would take `C` for coulomb. A spelling that is not listed is not known; it is never guessed.
Case matters where it must: `G/L` is 10*9 cells a litre in French laboratories, `g/L` is a mass.

Every conversion is target = value * factor + offset. Factors are exact by definition (SI prefixes;
international pound, inch and mile; the thermochemical calorie, 4.184 J, ISO 80000-5; 1 mm[Hg] =
133.322387415 Pa, ISO 80000-4; [degF]: NIST SP 811).
"""

import html
import re
from dataclasses import dataclass
from functools import lru_cache


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


SAME = Conversion(factor=1.0)

# kind -> unit -> conversion to the kind's first unit
_KINDS: dict[str, dict[str, float]] = {
    "mass concentration": {
        "g/L": 1.0, "g/dL": 10.0, "mg/dL": 1e-2, "mg/L": 1e-3, "ug/mL": 1e-3, "mg/mL": 1.0,
        "ug/dL": 1e-5, "ug/L": 1e-6, "ng/mL": 1e-6, "ng/dL": 1e-8, "ng/L": 1e-9, "pg/mL": 1e-9,
    },
    "amount concentration": {
        "mol/L": 1.0, "mmol/L": 1e-3, "umol/L": 1e-6, "nmol/L": 1e-9, "pmol/L": 1e-12,
    },
    "equivalents": {"eq/L": 1.0, "meq/L": 1e-3},
    "pressure": {"mm[Hg]": 1.0, "kPa": 1000 / 133.322387415, "cm[H2O]": 98.0665 / 133.322387415},
    "length": {
        "m": 1.0, "cm": 1e-2, "mm": 1e-3, "km": 1e3, "[in_i]": 0.0254, "[ft_i]": 0.3048,
        "[yd_i]": 0.9144, "[mi_i]": 1609.344,
    },
    "mass": {
        "kg": 1.0, "g": 1e-3, "mg": 1e-6, "ug": 1e-9, "pg": 1e-15,
        "[lb_av]": 0.45359237, "[oz_av]": 0.028349523125,
    },
    "rate": {"/min": 1.0, "/s": 60.0, "Hz": 60.0, "/h": 1 / 60},
    "cells": {
        "10*9/L": 1.0, "10*3/uL": 1.0, "10*12/L": 1000.0, "10*6/uL": 1000.0, "/uL": 1e-3,
        "10*6/L": 1e-3,
    },
    "catalytic": {"U/L": 1.0, "kU/L": 1000.0, "U/mL": 1000.0, "ukat/L": 60.0},
    "ratio": {"1": 1.0, "%": 1e-2},
    "time": {"s": 1.0, "ms": 1e-3, "min": 60.0, "h": 3600.0, "d": 86400.0, "wk": 604800.0},
    "energy": {"kcal": 1.0, "kJ": 1 / 4.184, "J": 1 / 4184},
    "speed": {"m/s": 1.0, "km/h": 1 / 3.6, "[mi_i]/h": 0.44704},
    "pace": {"min/km": 1.0, "min/[mi_i]": 1 / 1.609344},
    "oxygen uptake": {"mL/min/kg": 1.0},
    "units given": {"U": 1.0},
    "volume": {"L": 1.0, "dL": 0.1, "mL": 1e-3, "uL": 1e-6, "fL": 1e-15},
    "area density": {"kg/m2": 1.0},
    "flow": {"L/min": 1.0, "mL/min": 1e-3},
    "filtration": {"mL/min/{1.73_m2}": 1.0},
    "activity": {"m[IU]/L": 1.0, "u[IU]/mL": 1.0},
    "substance ratio": {"mmol/mol": 1.0},
    "albumin ratio": {"mg/g": 1.0, "ug/mg": 1.0},
    "amount ratio": {"mg/mmol": 1.0},
    "smoking": {"{pack-years}": 1.0},
}  # fmt: skip
_TEMPERATURES = {
    "Cel": SAME,
    "[degF]": Conversion(factor=1 / 1.8, offset=-32 / 1.8),
    "K": Conversion(factor=1.0, offset=-273.15),
}

_EXACT = {
    "G/L": "10*9/L", "Giga/L": "10*9/L", "T/L": "10*12/L", "Tera/L": "10*12/L", "K": "K",
    "C": "Cel", "F": "[degF]", "Cal": "kcal", "M/uL": "10*6/uL", "M/mcL": "10*6/uL",
}  # fmt: skip
_SPELLINGS = {
    "mm[Hg]": "mmhg mm(hg) torr mmhg/l",
    "cm[H2O]": "cmh2o",
    "Cel": "°c degc deg.c celsius degreescelsius c",
    "[degF]": "°f degf deg.f fahrenheit degreesfahrenheit f",
    "10*3/uL": "k/ul k/mcl k/mm3 k/cumm 10^3/ul 10e3/ul x10e3/ul x10^3/ul 1000/ul thou/ul th/ul"
    " thousand/ul 10*3/mm3 10^3/mm3 10*3/mcl",
    "10*6/uL": "mil/ul mill/ul million/ul 10^6/ul 10e6/ul x10e6/ul x10^6/ul 10*6/mm3 10^6/mm3",
    "10*9/L": "10^9/l 10e9/l x10e9/l x10^9/l x10*9/l giga/l",
    "10*12/L": "10^12/l 10e12/l x10e12/l x10^12/l x10*12/l tera/l",
    "/uL": "/mm3 cells/ul /mcl cells/mm3",
    "/min": "bpm beats/min beat/min beats/minute beatsperminute {beats}/min breaths/min"
    " breathsperminute {breaths}/min /minute 1/min min-1 {beat}/min {h.b}/min count/min",
    "%": "percent pct %ofhgb %hb {hb}%",
    "1": "{score} (score) score {nominal} {ratio} ratio {inr} index {index} {count} unitless"
    " count counts step steps {steps}",
    "meq/L": "meq/l",
    "mg/dL": "mg% mgdl mg/100ml mgs/dl mg/dcl",
    "ug/mL": "mcg/ml",
    "ug/dL": "mcg/dl",
    "ug/L": "mcg/l",
    "umol/L": "mcmol/l micromol/l umoll",
    "mmol/L": "mmoll mmol/litre mmol/liter",
    "mmol/mol": "mmol/mol{hb} mmol/molhb mmol/molhgb",
    "kg/m2": "kg/m^2 kg/m**2 kg/m² kg/(m^2) kg/m*2",
    "mL/min/{1.73_m2}": "ml/min/1.73m2 ml/min/1.73m^2 ml/min/1.73 ml/min/1.73_m2"
    " ml/min/1.73sqm ml/min/{1.73m2} ml/min/1.73m² ml/min/1.73.m2 ml/min/{1.73}",
    "[in_i]": "in inch inches",
    "[ft_i]": "ft foot feet",
    "[yd_i]": "yd yard yards",
    "[mi_i]": "mi mile miles",
    "km": "kilometer kilometers kilometre kilometres",
    "m": "meter meters metre metres",
    "kcal": "[cal] kilocalorie kilocalories",
    "[mi_i]/h": "mi/h mph mi/hr",
    "km/h": "km/hr kmh kph",
    "min/[mi_i]": "min/mi",
    "mL/min/kg": "ml/min·kg ml/(kg.min) ml/kg/min ml/(kg*min) ml/(min.kg)",
    "ug": "mcg microgram micrograms",
    "[lb_av]": "lb lbs pound pounds",
    "[oz_av]": "oz ounce ounces",
    "cm": "centimeter centimeters centimetre centimetres cms",
    "kg": "kgs kilogram kilograms kilo",
    "g": "gm gms gram grams",
    "s": "sec secs second seconds",
    "ms": "msec msecs millisecond milliseconds",
    "min": "minute minutes mins",
    "h": "hr hrs hour hours",
    "d": "day days",
    "wk": "week weeks",
    "U/L": "u/l units/l iu/l [iu]/l unit/l",
    "kU/L": "ku/l kiu/l",
    "m[IU]/L": "miu/l mu/l miu/ml",
    "u[IU]/mL": "uiu/ml uu/ml mciu/ml",
    "L/min": "l/min liters/min litres/min lpm",
    "mg/g": "mg/gcreat mg/g{creat} mg/gcr mg/gcrea",
    "{pack-years}": "pack-years packyears {packyears} pack-year",
}
_ANNOTATION_ONLY = re.compile(r"\{[^{}]*\}\Z")


def normal_unit(text: str | None) -> str | None:
    """The UCUM spelling of a unit that is known here.

    Args:
        text: as the hospital wrote it.

    Returns:
        The unit, `1` for an annotation such as `{score}`, or none if it is not known.
    """
    if text is None:
        return None
    return _normal(text)


def conversion(source: str, target: str) -> Conversion | None:
    """How to convert between two units of one kind, in UCUM spelling.

    Returns:
        The conversion, or none if they are of different kinds or not known.
    """
    if source == target:
        return SAME
    if source in _TEMPERATURES and target in _TEMPERATURES:
        return _TEMPERATURES[source].then(_TEMPERATURES[target].inverse())
    for units in _KINDS.values():
        if source in units and target in units:
            return Conversion(factor=units[source] / units[target])
    return None


def _squeeze(text: str) -> str:
    plain = html.unescape(text).replace("μ", "u").replace("µ", "u").replace("º", "°")
    return "".join(plain.split())


def _spellings() -> dict[str, str]:
    table = {unit.lower(): unit for units in _KINDS.values() for unit in units}
    table |= {unit.lower(): unit for unit in _TEMPERATURES}
    for unit, spellings in _SPELLINGS.items():
        table |= dict.fromkeys(spellings.split(), unit)
    return table


_TABLE = _spellings()
_UNITS = frozenset(_TABLE.values())


@lru_cache(maxsize=16_384)
def _normal(text: str) -> str | None:
    plain = _squeeze(text)
    if plain in _UNITS:
        return plain
    known = _EXACT.get(plain) or _TABLE.get(plain.lower())
    if known is None and _ANNOTATION_ONLY.match(plain):
        return "1"
    return known
