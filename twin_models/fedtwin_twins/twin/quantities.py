"""A number with its unit: what stands at every boundary in place of a bare float.

A quantity is checked when it is made: its unit is known and its value is finite. What is computed
inside (tensors) has the unit that the model states; `Quantity.to` is the only way there.
"""

import math
from dataclasses import dataclass

from fedtwin_twins.twin.refusals import Problem, Refusal
from fedtwin_twins.twin.units import MASS, SUBSTANCE, Dimension, Unit, parse_unit


@dataclass(frozen=True, slots=True)
class Quantity:
    """A value in a unit.

    Attributes:
        value: finite.
        unit: UCUM.

    Raises:
        Refusal: the unit is not known, or the value is not a finite number.
    """

    value: float
    unit: str

    def __post_init__(self) -> None:
        problem = quantity_problem(self.value, self.unit, "quantity")
        if problem is not None:
            raise Refusal(problem)

    def __str__(self) -> str:
        return f"{self.value:g} {self.unit}"

    @property
    def dimension(self) -> Dimension:
        """What it measures."""
        return known_unit(self.unit, "quantity").dimension

    def to(
        self, unit: str, *, molar_mass: "Quantity | None" = None, field: str = "quantity"
    ) -> float:
        """The value in another unit.

        Args:
            unit: UCUM.
            molar_mass: of the substance, such as `Quantity(113.12, "g/mol")`; needed between
                amounts of substance and masses, and used for nothing else.
            field: what a refusal calls this quantity.

        Raises:
            Refusal: the unit is not known, or measures something else.
        """
        have, want = known_unit(self.unit, field), known_unit(unit, field)
        value = self.value * (have.factor / want.factor)
        if have.dimension == want.dimension:
            return value
        step = _substance_step(have, want)
        if step == 0:
            raise Refusal(_wrong_dimension(self, unit, field))
        if molar_mass is None:
            remedy = f"say the molar mass of the substance, or give the value in {unit}"
            raise Refusal(_wrong_dimension(self, unit, field, remedy))
        return value * float(molar_mass.to("g/mol", field=f"molar mass of {field}") ** step)

    def measures_like(self, unit: str) -> bool:
        """Whether the other unit measures the same without knowing the substance."""
        other = parse_unit(unit)
        return other is not None and other.dimension == self.dimension


def quantity_problem(value: float, unit: str, field: str) -> Problem | None:
    """What is wrong with a number and a unit that want to be a quantity, or none."""
    if not isinstance(unit, str) or parse_unit(unit) is None:
        return Problem(
            field=f"{field}.unit",
            value=str(unit),
            allowed="a UCUM unit such as mg, mg/L, umol/L, L/h, kg, cm, h, 1 or %",
            remedy="write the unit as UCUM does, with upper and lower case",
        )
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return Problem(
            field=field,
            value=repr(value),
            allowed="a finite number",
            remedy="leave out what was not measured instead of writing a placeholder",
        )
    return None


def known_unit(text: str, field: str) -> Unit:
    """A unit that must be known.

    Raises:
        Refusal: it is not.
    """
    unit = parse_unit(text)
    if unit is None:
        problem = quantity_problem(0.0, text, field)
        raise Refusal(problem if problem is not None else Problem(field=field))
    return unit


def _substance_step(have: Unit, want: Unit) -> int:
    """The power of the molar mass (g/mol) that leads from one to the other; 0: none does."""
    powers = dict(have.dimension)
    for name, power in want.dimension:
        powers[name] = powers.get(name, 0) - power
    difference = {name: power for name, power in powers.items() if power}
    mass, substance = MASS[0][0], SUBSTANCE[0][0]
    if difference == {substance: 1, mass: -1}:
        return 1
    if difference == {substance: -1, mass: 1}:
        return -1
    return 0


def _wrong_dimension(given: Quantity, unit: str, field: str, remedy: str = "") -> Problem:
    return Problem(
        field=field,
        value=str(given),
        allowed=f"a value in {unit}, or in a unit that measures the same",
        remedy=remedy or f"look up whether this is the value that {field} asks for",
    )
