"""Values that no living person has in the unit given, and the unit that was probably meant.

A creatinine of 88 mg/dL, a height of 1.75 cm, a haematocrit of 0.35 %: each is a right number in
another unit, and each would move a dose many times over. Such a value is refused with the question
"is it umol/L?"; it is never converted by guess. The ranges are wide on purpose: they tell mistakes
from people, not ill from well (ours; the widest of what intensive care has recorded).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from fedtwin_twins.twin.quantities import Quantity
from fedtwin_twins.twin.refusals import Problem, Refusal


@dataclass(frozen=True, kw_only=True, slots=True)
class Plausible:
    """What can be true of a living person.

    Attributes:
        unit: UCUM, of the range.
        range: inclusive.
        mistaken_for: units that the value may really be in.
        molar_mass: g/mol, of a substance.
    """

    unit: str
    range: tuple[float, float]
    mistaken_for: tuple[str, ...] = ()
    molar_mass: float | None = None


PLAUSIBLE: Final[Mapping[str, Plausible]] = MappingProxyType(
    {
        "age": Plausible(unit="a", range=(0.0, 125.0), mistaken_for=("mo", "d")),
        "body_weight": Plausible(unit="kg", range=(0.3, 500.0), mistaken_for=("g", "[lb_av]")),
        "height": Plausible(unit="cm", range=(20.0, 250.0), mistaken_for=("m", "[in_i]")),
        "creatinine": Plausible(
            unit="mg/dL",
            range=(0.05, 30.0),
            mistaken_for=("umol/L", "mg/dL"),
            molar_mass=113.12,
        ),
        "creatinine_clearance": Plausible(
            unit="mL/min", range=(0.0, 400.0), mistaken_for=("L/h", "mL/s")
        ),
        "haematocrit": Plausible(unit="%", range=(3.0, 80.0), mistaken_for=("1", "%")),
        "body_surface_area": Plausible(unit="m2", range=(0.1, 4.0), mistaken_for=("cm2",)),
        "fat_free_mass": Plausible(unit="kg", range=(0.2, 150.0), mistaken_for=("g", "[lb_av]")),
        "baseline_inr": Plausible(unit="1", range=(0.5, 20.0), mistaken_for=("%",)),
    }
)


def implausible(name: str, value: Quantity, field: str = "") -> Problem | None:
    """Whether a covariate's value cannot be true in its unit.

    Args:
        name: of the covariate; one that is not listed passes.
        value: as it was recorded.
        field: what the problem calls it; the name if empty.

    Returns:
        The problem, with the units that would make it true; or none. A unit of the wrong kind is
        a problem too.
    """
    known = PLAUSIBLE.get(name)
    if known is None:
        return None
    try:
        converted = _in_unit(value, known, field or name)
    except Refusal as refusal:
        return refusal.problems[0]
    if known.range[0] <= converted <= known.range[1]:
        return None
    low, high = (_back(bound, known, value.unit) for bound in known.range)
    return Problem(
        field=field or name,
        value=f"{value.value:g}",
        unit=value.unit,
        allowed=f"{low:g} to {high:g}",
        remedy=_question(value, known),
    )


def molar_mass_of(name: str) -> Quantity | None:
    """Of the substance that a covariate measures; none if it is no substance's."""
    known = PLAUSIBLE.get(name)
    return None if known is None else _mass(known)


def _in_unit(value: Quantity, known: Plausible, field: str) -> float:
    return value.to(known.unit, molar_mass=_mass(known), field=field)


def _back(bound: float, known: Plausible, unit: str) -> float:
    return Quantity(bound, known.unit).to(unit, molar_mass=_mass(known))


def _mass(known: Plausible) -> Quantity | None:
    return None if known.molar_mass is None else Quantity(known.molar_mass, "g/mol")


def _question(value: Quantity, known: Plausible) -> str:
    low, high = known.range
    meant = [
        "a fraction (unit 1)" if unit == "1" else unit
        for unit in known.mistaken_for
        if unit != value.unit and low <= _in_unit(Quantity(value.value, unit), known, "") <= high
    ]
    if not meant:
        return "check the value and its unit at the source"
    return f"is it {' or '.join(meant)}?"
