"""Whether a card's routes, parameters, variability, observables and targets fit its structure."""

from collections.abc import Iterator

from fedtwin_twins.pharmacology.card import ModelCard
from fedtwin_twins.pharmacology.card_parts import ParameterCard, RouteCard
from fedtwin_twins.pharmacology.covariance import covariance
from fedtwin_twins.pharmacology.structures import (
    DISPOSITIONS,
    EFFECTS,
    GLUCOSE_OUTPUTS,
    INPUTS,
    OUTPUT_UNITS,
    OUTPUTS,
    SATURABLE,
)
from fedtwin_twins.twin.refusals import Problem
from fedtwin_twins.twin.units import parse_unit


def structure_problems(card: ModelCard) -> list[Problem]:
    """Everything in which the parts of a card do not fit its structure."""
    return [
        *_routes(card),
        *_structure(card),
        *_variability(card),
        *_observables(card),
        *_targets(card),
    ]


def measures(where: str, unit: str, wanted: str) -> Iterator[Problem]:
    """A problem if one unit does not measure what the other does."""
    have, want = parse_unit(unit), parse_unit(wanted)
    if have is None or want is None or have.dimension != want.dimension:
        yield Problem(field=where, value=unit, allowed=f"a unit that measures what {wanted} does")


def _routes(card: ModelCard) -> Iterator[Problem]:
    parameters = {one.name: one for one in card.parameters}
    for route in card.routes:
        where = f"routes.{route.name}"
        low, high = route.believable_single_dose
        if not 0 < low < high:
            yield Problem(
                field=f"{where}.believable_single_dose",
                value=f"{low:g} to {high:g}",
                unit=route.unit,
                allowed="a range from low to high, above 0",
            )
        if route.largest_single_dose > route.largest_daily_dose:
            yield Problem(
                field=f"{where}.largest_single_dose",
                value=f"{route.largest_single_dose:g}",
                unit=route.unit,
                allowed=f"at most the largest daily dose, {route.largest_daily_dose:g}",
            )
        if card.disposition != "glucose_and_insulin" and route.unit != card.amount_unit:
            yield Problem(field=f"{where}.unit", value=route.unit, allowed=card.amount_unit)
        if (route.compartments is not None) != (route.input == "transit"):
            yield Problem(
                field=f"{where}.compartments",
                value="" if route.compartments is None else str(route.compartments),
                allowed="a number of compartments if the input is transit, and only then",
            )
        yield from _route_parameters(route, parameters)


def _route_parameters(route: RouteCard, parameters: dict[str, ParameterCard]) -> Iterator[Problem]:
    wanted = INPUTS[route.input]
    for role, unit in (
        ("rate", "/h"),
        ("duration", "h"),
        ("lag", "h"),
        ("bioavailability", "1"),
    ):
        name = getattr(route, role)
        where = f"routes.{route.name}.{role}"
        optional = role in ("lag", "bioavailability")
        if (name is not None) != (role in wanted) and not (optional and role not in wanted):
            needed = "a parameter's name" if role in wanted else f"none for the input {route.input}"
            yield Problem(field=where, value=name or "", allowed=needed)
        elif name is not None and name not in parameters:
            yield Problem(field=where, value=name, allowed=" or ".join(parameters))
        elif name is not None:
            yield from measures(f"parameters.{name}.unit", parameters[name].unit, unit)


def _structure(card: ModelCard) -> Iterator[Problem]:
    """Every parameter that the structure needs, in a unit that measures the same."""
    parameters = {one.name: one for one in card.parameters}
    for name, unit in {**DISPOSITIONS[card.disposition], **EFFECTS[card.effect]}.items():
        wanted = unit.replace("{amount}", card.amount_unit)
        if name not in parameters:
            yield Problem(
                field=f"parameters.{name}",
                unit=wanted,
                remedy=f"{card.disposition} with the effect {card.effect} needs it",
            )
        else:
            yield from measures(f"parameters.{name}.unit", parameters[name].unit, wanted)
    needs_glucose = card.disposition == "glucose_and_insulin"
    for route in card.routes:
        special = route.input in ("meal", "subcutaneous_insulin", "intravenous_insulin")
        if special != needs_glucose:
            yield Problem(
                field=f"routes.{route.name}.input",
                value=route.input,
                allowed=f"an input of {card.disposition}",
            )
    if (needs_glucose or card.disposition in SATURABLE) and card.effect != "none":
        yield Problem(field="effect", value=card.effect, allowed=f"none with {card.disposition}")


def _variability(card: ModelCard) -> Iterator[Problem]:
    names = {one.name for one in card.parameters if one.typical is not None}
    for where, one in (
        ("between_patients", card.between_patients),
        ("between_occasions", card.between_occasions),
    ):
        if one is None:
            continue
        yield from covariance(one, where)[1]
        for block in one.blocks:
            for name in block.parameters:
                if name not in names:
                    yield Problem(
                        field=f"{where}.blocks",
                        value=name,
                        allowed="a parameter with a typical value",
                    )
    occasions = card.between_occasions
    if occasions is not None and list(occasions.hours) != sorted(set(occasions.hours)):
        yield Problem(
            field="between_occasions.hours", value=str(occasions.hours), allowed="ascending hours"
        )
    if occasions is not None and bool(occasions.hours) != (occasions.rule != "recorded"):
        yield Problem(
            field="between_occasions.hours",
            value=str(occasions.hours),
            allowed="hours for the rule hours_after_first_dose, and only for it",
        )


def _observables(card: ModelCard) -> Iterator[Problem]:
    outputs = OUTPUTS[card.effect]
    if card.disposition == "glucose_and_insulin":
        outputs = GLUCOSE_OUTPUTS
    for one in card.observables:
        where = f"observables.{one.name}"
        if one.output not in outputs:
            yield Problem(field=f"{where}.output", value=one.output, allowed=" or ".join(outputs))
            continue
        wanted = OUTPUT_UNITS[one.output].replace("{amount}", card.amount_unit)
        yield from measures(f"{where}.unit", one.unit, wanted)
        if one.believable is not None and not one.believable[0] < one.believable[1]:
            low, high = one.believable
            allowed = "from low to high"
            yield Problem(
                field=f"{where}.believable", value=f"{low:g} to {high:g}", allowed=allowed
            )
        residual = one.residual
        if residual.additive == 0 and residual.proportional == 0:
            yield Problem(field=f"{where}.residual", value="0", allowed="an error above 0")


def _targets(card: ModelCard) -> Iterator[Problem]:
    observables = {one.name: one.unit for one in card.observables}
    for place, one in enumerate(card.targets):
        where = f"targets[{place}]"
        if one.low >= one.high:
            yield Problem(
                field=where,
                value=f"{one.low:g} to {one.high:g}",
                unit=one.unit,
                allowed="from low to high",
                remedy="swap the two ends",
            )
        if one.observable not in observables:
            allowed = " or ".join(observables)
            yield Problem(field=f"{where}.observable", value=one.observable, allowed=allowed)
            continue
        unit = observables[one.observable]
        if (one.within is None) == (one.metric == "time_in_range"):
            allowed = f"two limits in {unit} for the metric time_in_range, and for no other"
            yield Problem(field=f"{where}.within", value=str(one.within or ""), allowed=allowed)
        if one.metric == "time_in_range":
            unit = "%"
        wanted = f"{unit}.h" if one.metric.startswith("area") else unit
        yield from measures(f"{where}.unit", one.unit, wanted)
