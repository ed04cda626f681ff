"""Quantities, times, covariates and genes as people write them in a patient's file.

`80 kg`, `1.0 mg/dL`, `12 h`, `2026-03-01T08:00+01:00`, `*1/*3`. What cannot be read is a `Refusal`
whose problems have no field yet: the reader of the file knows where each stands.
"""

import re
from collections.abc import Mapping
from datetime import date, datetime
from typing import Any, Final

from fedtwin_twins.twin.covariates import CovariateRecord
from fedtwin_twins.twin.moments import Moment
from fedtwin_twins.twin.quantities import Quantity
from fedtwin_twins.twin.refusals import Problem, Refusal
from fedtwin_twins.twin.units import parse_unit

_NUMBER: Final = re.compile(r"(?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*(?P<unit>.*)")
_DAY: Final = re.compile(r"\d{4}-\d{2}-\d{2}")
_ENERGY: Final = ("kcal", "cal", "kj", "j")
_EXCHANGES: Final = ("BE", "KE", "KHE", "CU", "CP", "EX", "EXCHANGE", "EXCHANGES")
_UNITS: Final = {
    **dict.fromkeys(("y", "yr", "year", "years"), "a"),
    **dict.fromkeys(("day", "days"), "d"),
    **dict.fromkeys(("hour", "hours", "hr", "hrs", "H"), "h"),
    **dict.fromkeys(("minute", "minutes", "mins"), "min"),
    **dict.fromkeys(("mcg", "μg", "microgram"), "ug"),
    **dict.fromkeys(("IU", "iu", "unit", "units", "U"), "[IU]"),
    **dict.fromkeys(("kgs", "KG", "Kg"), "kg"),
    **dict.fromkeys(("lb", "lbs"), "[lb_av]"),
    **dict.fromkeys(("mg/dl", "mg/100mL"), "mg/dL"),
    **dict.fromkeys(("mg/l", "ug/ml", "ug/mL", "mcg/mL"), "mg/L"),
}
"""Spellings that are often meant for a UCUM unit; used in questions, never to convert."""


def quantity(given: Any) -> Quantity:
    """A number with its unit; a number alone has the unit 1.

    Raises:
        Refusal: it is neither, or not finite.
    """
    if isinstance(given, Quantity):
        return given
    if isinstance(given, int | float) and not isinstance(given, bool):
        return _checked(float(given), "1", given)
    match = _NUMBER.fullmatch(given.strip()) if isinstance(given, str) else None
    if match is None:
        raise _refusal(given, "a finite number with its unit, such as 80 kg or 1.0 mg/dL")
    return _checked(float(match["number"]), match["unit"].strip() or "1", given)


def _checked(number: float, unit: str, given: Any) -> Quantity:
    if parse_unit(unit) is None:
        near = _UNITS.get(unit)
        remedy = f"did you mean {number:g} {near}?" if near else "write the unit as UCUM does"
        if unit.startswith(","):
            remedy = "write decimals with a point"
        allowed = "a UCUM unit such as mg, mg/L, umol/L, L/h, kg, cm, a (year), h or %"
        raise _refusal(given, allowed, remedy)
    try:
        return Quantity(number, unit)
    except Refusal as refusal:
        raise _refusal(given, "a finite number", refusal.problems[0].remedy) from refusal


def carbohydrate(given: Any) -> Quantity:
    """What was eaten: grams, or mmol of glucose.

    Raises:
        Refusal: it is neither.
    """
    match = _NUMBER.fullmatch(given.strip()) if isinstance(given, str) else None
    unit = match["unit"].strip() if match else ""
    allowed = "digestible carbohydrate in g (or mmol of glucose), such as 60 g"
    if unit.lower() in _ENERGY:
        remedy = "energy is not converted: fat and protein have it too; write the carbohydrate"
        raise _refusal(given, allowed, remedy)
    if unit.upper() in _EXCHANGES:
        remedy = "a unit stands for 10 to 15 g, which differs between countries: write grams"
        raise _refusal(given, allowed, remedy)
    found = quantity(given)
    if not (found.measures_like("g") or found.measures_like("mmol")):
        remedy = f"write {found.value:g} g" if found.unit == "1" else ""
        raise _refusal(given, allowed, remedy)
    return found


def moment(given: Any) -> Moment:
    """A time after the origin, or a datetime; whether it knows its zone is the clock's business.

    Raises:
        Refusal: it is neither.
    """
    if isinstance(given, datetime):
        return given
    allowed = "a time after the origin such as 12 h, or a datetime such as 2026-03-01T08:00+01:00"
    if isinstance(given, date):
        raise _refusal(given, allowed, "add the time of day and the zone")
    if isinstance(given, str) and _DAY.match(given):
        try:
            return datetime.fromisoformat(given)
        except ValueError as error:
            raise _refusal(given, allowed) from error
    found = quantity(given)
    if not found.measures_like("h"):
        raise _refusal(given, allowed, f"write {found.value:g} h" if found.unit == "1" else "")
    return found


def recorded(given: Any) -> Quantity | str | tuple[CovariateRecord, ...]:
    """A covariate: a quantity, the name of a level such as `female`, or records over time.

    Raises:
        Refusal: with the place in the list as the field.
    """
    if not isinstance(given, list):
        return _level_or_quantity(given)
    problems: list[Problem] = []
    records = []
    for place, item in enumerate(given):
        if not isinstance(item, Mapping) or set(item) != {"time", "value"}:
            shown = _shown(item)
            allowed = "{time: 12 h, value: 1.2 mg/dL}"
            problems.append(Problem(field=f"[{place}]", value=shown, allowed=allowed))
            continue
        parts: dict[str, Any] = {}
        for name, read in (("time", moment), ("value", _level_or_quantity)):
            try:
                parts[name] = read(item[name])
            except Refusal as refusal:
                problems += [_placed(one, f"[{place}].{name}") for one in refusal.problems]
        if len(parts) == 2:
            records.append(CovariateRecord(time=parts["time"], value=parts["value"]))
    if problems:
        raise Refusal(*problems)
    return tuple(records)


def _level_or_quantity(given: Any) -> Quantity | str:
    if isinstance(given, bool):
        return "yes" if given else "no"
    if isinstance(given, str) and given.strip() and not _NUMBER.fullmatch(given.strip()):
        return given.strip()
    return quantity(given)


def gene_fields(given: Any) -> Any:
    """A gene's result in short: `*1/*3`, `PM` or 1.5 for a diplotype, phenotype or score."""
    if isinstance(given, bool) or given is None:
        raise _refusal(given, "a diplotype such as '*1/*3', a phenotype, or an activity score")
    if isinstance(given, int | float):
        return {"activity_score": float(given)}
    if isinstance(given, str):
        return {"diplotype": given} if "/" in given else {"phenotype": given}
    return given


def _placed(problem: Problem, field: str) -> Problem:
    return Problem(field=field, value=problem.value, allowed=problem.allowed, remedy=problem.remedy)


def _refusal(given: Any, allowed: str, remedy: str = "") -> Refusal:
    return Refusal(Problem(field="", value=_shown(given), allowed=allowed, remedy=remedy))


def _shown(given: Any) -> str:
    text = given if isinstance(given, str) else repr(given) if given is not None else "empty"
    return (text or "empty")[:80]
