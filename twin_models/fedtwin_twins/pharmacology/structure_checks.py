"""Whether a card's routes, parameters, variability, observables and targets fit its structure."""

from collections.abc import Iterator
from typing import Final

from fedtwin_twins.pharmacology.card import ModelCard
from fedtwin_twins.pharmacology.card_parts import (
    ParameterCard,
    ResidualCard,
    RouteCard,
    Variability,
)
from fedtwin_twins.pharmacology.covariance import LARGEST_SD, covariance
from fedtwin_twins.pharmacology.structures import (
    DISPOSITIONS,
    EFFECTS,
    GLUCOSE_OUTPUTS,
    INPUTS,
    OUTPUT_UNITS,
    OUTPUTS,
    RELEASED,
    SATURABLE,
)
from fedtwin_twins.twin.quantities import Quantity
from fedtwin_twins.twin.refusals import Problem, Refusal
from fedtwin_twins.twin.residuals import Convention, parts_of
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


def _in_moles(unit: str, wanted: str) -> bool:
    """Whether the analyte's molar mass leads from one to the other."""
    try:
        Quantity(1.0, wanted).to(unit, molar_mass=Quantity(1.0, "g/mol"))
    except Refusal:
        return False
    return True


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
        for dose in route.available_doses:
            if dose > route.largest_single_dose:
                yield Problem(
                    field=f"{where}.available_doses",
                    value=f"{dose:g}",
                    unit=route.unit,
                    allowed=f"at most the largest single dose, {route.largest_single_dose:g}",
                )
        if card.disposition != "glucose_and_insulin" and route.unit != card.amount_unit:
            yield Problem(field=f"{where}.unit", value=route.unit, allowed=card.amount_unit)
        if (route.compartments is not None) != (route.input == "transit"):
            yield Problem(
                field=f"{where}.compartments",
                value="" if route.compartments is None else str(route.compartments),
                allowed="a number of compartments if the input is transit, and only then",
            )
        yield from _parts(card, route, where)
        yield from _route_parameters(route, parameters, card.effect == "metabolite")
        if route.half_dose is not None and card.disposition == "glucose_and_insulin":
            yield Problem(
                field=f"{where}.half_dose",
                value=f"{route.half_dose:g}",
                allowed="none with glucose_and_insulin",
            )


def _parts(card: ModelCard, route: RouteCard, where: str) -> Iterator[Problem]:
    """Of a dose that goes in by several ways at once."""
    if (len(route.parts) >= 2) != (route.input == "parallel") or len(route.parts) == 1:
        yield Problem(
            field=f"{where}.parts",
            value=", ".join(route.parts) or "none",
            allowed="two routes or more if the input is parallel, and only then",
        )
    after = card.routes[card.routes.index(route) + 1 :]
    able = [one.name for one in after if one.input != "parallel"]
    for name in route.parts:
        if name not in able:
            yield Problem(
                field=f"{where}.parts",
                value=name,
                allowed=" or ".join(able) or "a route that is written below this one",
                remedy="a part is a route of its own, written below, and takes its fraction there",
            )


def _route_parameters(
    route: RouteCard, parameters: dict[str, ParameterCard], metabolite: bool
) -> Iterator[Problem]:
    wanted = INPUTS[route.input]
    for role, unit in (
        ("rate", "/h"),
        ("duration", "h"),
        ("lag", "h"),
        ("bioavailability", "1"),
        ("first_pass", "1"),
    ):
        name = getattr(route, role)
        where = f"routes.{route.name}.{role}"
        optional = role in ("lag", "bioavailability") and route.input != "parallel"
        optional |= role == "first_pass" and metabolite and route.input != "parallel"
        optional |= role == "duration" and route.input in RELEASED
        if (name is not None) != (role in wanted) and not (optional and role not in wanted):
            needed = "a parameter's name" if role in wanted else f"none for the input {route.input}"
            if role == "first_pass" and not metabolite:
                needed = "none: the effect is not metabolite"
            yield Problem(field=where, value=name or "", allowed=needed)
        elif name is not None and name not in parameters:
            yield Problem(field=where, value=name, allowed=" or ".join(parameters))
        elif name is not None:
            yield from measures(f"parameters.{name}.unit", parameters[name].unit, unit)
            yield from _above_0(parameters[name], zero=role == "lag")


def _above_0(one: ParameterCard, *, zero: bool = False) -> Iterator[Problem]:
    """Sizes, flows, rates and times: a model with none of them foretells no number."""
    if one.typical is not None and (one.typical < 0.0 or (one.typical == 0.0 and not zero)):
        yield Problem(
            field=f"parameters.{one.name}.typical",
            value=f"{one.typical:g}",
            unit=one.unit,
            allowed="0 or more" if zero else "above 0",
        )


_TIMES: Final = (
    *("fast_mean_transit_time", "slow_mean_transit_time", "mean_transit_time", "transit_time"),
    *("half_maximal_concentration", "hill_exponent", "loss_rate", "baseline_cells"),
    *("metabolite_clearance", "metabolite_volume"),
)
"""What an effect divides by, or takes a power of."""


def _structure(card: ModelCard) -> Iterator[Problem]:
    """Every parameter that the structure needs, in a unit that measures the same."""
    parameters = {one.name: one for one in card.parameters}
    for name, unit in {**DISPOSITIONS[card.disposition], **EFFECTS[card.effect]}.items():
        wanted = card.written(unit)
        if name not in parameters:
            yield Problem(
                field=f"parameters.{name}",
                unit=wanted,
                remedy=f"{card.disposition} with the effect {card.effect} needs it",
            )
        else:
            yield from measures(f"parameters.{name}.unit", parameters[name].unit, wanted)
            if name in DISPOSITIONS[card.disposition] or name in _TIMES:
                yield from _above_0(parameters[name])
    for name, unit in card.optional.items():
        if name in parameters:
            yield from measures(f"parameters.{name}.unit", parameters[name].unit, unit)
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
    if card.effect == "metabolite" and "clearance" not in DISPOSITIONS[card.disposition]:
        yield Problem(
            field="disposition",
            value=card.disposition,
            allowed="one with a clearance: what is cleared becomes the metabolite",
        )


def _variability(card: ModelCard) -> Iterator[Problem]:
    parameters = {one.name: one for one in card.parameters if one.complement_of is None}
    names = set(parameters)
    # An eta that is added is in the parameter's unit: it is held against its value.
    largest = {
        name: LARGEST_SD * abs(one.typical or 0.0)
        for name, one in parameters.items()
        if one.distribution == "normal" and one.typical
    }
    for where, one in (
        ("between_patients", card.between_patients),
        ("between_occasions", card.between_occasions),
    ):
        if one is None:
            continue
        yield from covariance(one, where, largest)[1]
        for block in one.blocks:
            for name in block.parameters:
                yield from _convention(one, parameters.get(name), f"{where}.convention")
                if name not in names:
                    yield Problem(
                        field=f"{where}.blocks",
                        value=name,
                        allowed="a parameter, and not one that is what another leaves of 1",
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


def _convention(one: Variability, of: ParameterCard | None, where: str) -> Iterator[Problem]:
    if of is not None and of.distribution != "lognormal" and one.convention.startswith("cv"):
        yield Problem(
            field=where,
            value=f"{one.convention} for {of.name}, which is {of.distribution}",
            allowed="variance or sd: a coefficient of variation is one of a lognormal parameter",
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
        wanted = card.written(OUTPUT_UNITS[one.output])
        if one.output != "concentration" or not _in_moles(one.unit, wanted):
            yield from measures(f"{where}.unit", one.unit, wanted)
        if one.believable is not None and not one.believable[0] < one.believable[1]:
            low, high = one.believable
            allowed = "from low to high"
            yield Problem(
                field=f"{where}.believable", value=f"{low:g} to {high:g}", allowed=allowed
            )
        yield from _residual(one.residual, f"{where}.residual")


def _residual(one: ResidualCard, where: str) -> Iterator[Problem]:
    convention: Convention = one.convention  # type: ignore[assignment]
    parts = parts_of(convention)
    numbers = {"additive": one.additive, "proportional": one.proportional}
    if sum(numbers[name] for name in parts) == 0:
        allowed = f"above 0 in {' or '.join(parts)}, for the convention {convention}"
        yield Problem(field=where, value="0", allowed=allowed)
    for name in set(numbers) - set(parts):
        if numbers[name] != 0:
            yield Problem(
                field=f"{where}.{name}",
                value=f"{numbers[name]:g}",
                allowed=f"none with the convention {convention}",
                remedy="choose the convention that has both, or leave it out",
            )
    relative = "additive" if convention == "on_logarithm" else "proportional"
    if relative in parts and numbers[relative] > LARGEST_SD:
        yield Problem(
            field=f"{where}.{relative}",
            value=f"{numbers[relative]:g}",
            allowed=f"a fraction up to {LARGEST_SD:g}",
            remedy="write a percentage as a fraction, and a variance as its root",
        )


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
