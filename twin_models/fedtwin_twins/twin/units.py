"""UCUM units by dimension: how many of the base units a unit is, and what it measures.

Only units of hospitals are known (mass, length, time, amount of substance, arbitrary units of
biological activity, pressure follows from them). Two things differ from plain UCUM, on purpose:

- `U`, `[iU]` and `[IU]` are one unit of biological activity. UCUM's `U` is 1 umol/min; clinicians
  write it for insulin, and of an enzyme 1 U is 1 [IU] anyway.
- `{1.73_m2}` is a dimension of its own. UCUM reads braces as a remark without meaning, and would
  call 60 mL/min and 60 mL/min per 1.73 m2 equal.

Source of factors: UCUM 2.1 (ucum.org); mm[Hg] = 133.322 Pa.
"""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Final

Dimension = tuple[tuple[str, int], ...]
"""Base dimensions with their powers, sorted by name; empty: a number."""

MASS: Final[Dimension] = (("mass", 1),)
TIME: Final[Dimension] = (("time", 1),)
SUBSTANCE: Final[Dimension] = (("substance", 1),)

_PREFIXES: Final = MappingProxyType(
    {"k": 1e3, "d": 1e-1, "c": 1e-2, "m": 1e-3, "u": 1e-6, "n": 1e-9, "p": 1e-12, "f": 1e-15}
)
_PRESSURE: Final = {"mass": 1, "length": -1, "time": -2}
_METRIC: Final[Mapping[str, tuple[float, Mapping[str, int]]]] = MappingProxyType(
    {
        "g": (1.0, {"mass": 1}),
        "m": (1.0, {"length": 1}),
        "s": (1.0, {"time": 1}),
        "mol": (1.0, {"substance": 1}),
        "L": (1e-3, {"length": 3}),
        "l": (1e-3, {"length": 3}),
        "U": (1.0, {"activity": 1}),
        "[iU]": (1.0, {"activity": 1}),
        "[IU]": (1.0, {"activity": 1}),
        "Pa": (1e3, _PRESSURE),
        "m[Hg]": (133.322e6, _PRESSURE),
    }
)
_PLAIN: Final[Mapping[str, tuple[float, Mapping[str, int]]]] = MappingProxyType(
    {
        "1": (1.0, {}),
        "%": (1e-2, {}),
        "min": (60.0, {"time": 1}),
        "h": (3_600.0, {"time": 1}),
        "d": (86_400.0, {"time": 1}),
        "wk": (604_800.0, {"time": 1}),
        "mo": (2_629_800.0, {"time": 1}),
        "a": (31_557_600.0, {"time": 1}),
        "[lb_av]": (453.59237, {"mass": 1}),
        "[in_i]": (2.54e-2, {"length": 1}),
    }
)
_STANDARD_SURFACE: Final = "{1.73_m2}"
_SPELLINGS: Final = MappingProxyType(
    {
        "mL/min/1.73m2": "mL/min/{1.73_m2}",
        "mL/min/1.73 m2": "mL/min/{1.73_m2}",
        "mmHg": "mm[Hg]",
        "µg": "ug",
        "μg": "ug",
        "µg/L": "ug/L",
        "μg/L": "ug/L",
        "µmol/L": "umol/L",
        "μmol/L": "umol/L",
    }
)
_COMPONENT: Final = re.compile(
    r"(?P<ten>10[*^](?P<power>[+-]?\d+))"
    r"|(?P<remark>\{[^{}]*\})"
    r"|(?P<atom>(?:[A-Za-z]*\[[A-Za-z_]+\]|[A-Za-z]+|%|1))(?P<exponent>-?\d+)?(?P<note>\{[^{}]*\})?"
)


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit that was understood.

    Attributes:
        text: as UCUM writes it.
        factor: how many base units (g, m, s, mol, 1) one of it is.
        dimension: what it measures.
    """

    text: str
    factor: float
    dimension: Dimension


@cache
def parse_unit(text: str) -> Unit | None:
    """What a unit means.

    Args:
        text: in UCUM's case-sensitive spelling, such as `mg/L`, `10*9/L`, `mL/min/{1.73_m2}`.

    Returns:
        The unit; none if any part of it is not known.
    """
    spelt = _SPELLINGS.get(text, text)
    if not spelt:
        return None
    factor, powers = 1.0, Counter[str]()
    for sign, component in _components(spelt):
        part = _component(component)
        if part is None:
            return None
        size, dimension = part
        factor *= size**sign
        for name, power in dimension.items():
            powers[name] += sign * power
    dimension_of = tuple(sorted((name, power) for name, power in powers.items() if power))
    return Unit(text=spelt, factor=factor, dimension=dimension_of)


def _components(text: str) -> list[tuple[int, str]]:
    """The parts of a unit, each with +1 if it multiplies and -1 if it divides."""
    pieces = re.split(r"([./])(?![^{]*\})", text)
    if pieces[0] == "":
        pieces[0] = "1"
    found = [(1, pieces[0])]
    for operator, piece in zip(pieces[1::2], pieces[2::2], strict=True):
        found.append((-1 if operator == "/" else 1, piece))
    return found


def _component(text: str) -> tuple[float, Mapping[str, int]] | None:
    match = _COMPONENT.fullmatch(text)
    if match is None:
        return None
    if match["ten"]:
        return float(10.0 ** int(match["power"])), {}
    if match["remark"]:
        return (1.0, {"standard_surface": 1} if text == _STANDARD_SURFACE else {})
    atom = _atom(match["atom"])
    if atom is None:
        return None
    size, dimension = atom
    exponent = int(match["exponent"] or 1)
    return size**exponent, {name: power * exponent for name, power in dimension.items()}


def _atom(text: str) -> tuple[float, Mapping[str, int]] | None:
    if text in _PLAIN:
        return _PLAIN[text]
    if text in _METRIC:
        return _METRIC[text]
    prefix, rest = text[0], text[1:]
    if prefix in _PREFIXES and rest in _METRIC:
        size, dimension = _METRIC[rest]
        return _PREFIXES[prefix] * size, dimension
    return None
