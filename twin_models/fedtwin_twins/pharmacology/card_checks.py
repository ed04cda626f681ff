"""What no single field of a card shows: names that meet, units that fit, ranges in order."""

from collections.abc import Iterable, Iterator
from typing import Final

from fedtwin_twins.pharmacology.card import ModelCard
from fedtwin_twins.pharmacology.card_parts import (
    Cited,
    CovariateCard,
    DerivedCard,
    ParameterCard,
    RelationCard,
)
from fedtwin_twins.pharmacology.derived import DERIVED
from fedtwin_twins.pharmacology.equations import HOURS_SINCE_FIRST_DOSE, OF_FIRST_DOSE, RELATIONS
from fedtwin_twins.pharmacology.structure_checks import structure_problems
from fedtwin_twins.twin.plausible import molar_mass_of
from fedtwin_twins.twin.quantities import Quantity
from fedtwin_twins.twin.refusals import Problem, Refusal


def problems_of(card: ModelCard) -> list[Problem]:
    """Everything that keeps a card from being used."""
    return [
        *_names_once(card),
        *_covariates(card),
        *_parameters(card),
        *structure_problems(card),
        *_sources(card),
    ]


def _names_once(card: ModelCard) -> Iterator[Problem]:
    for where, names in (
        ("routes", [one.name for one in card.routes]),
        ("covariates and derived", [one.name for one in _all_covariates(card)]),
        ("parameters", [one.name for one in card.parameters]),
        ("observables", [one.name for one in card.observables]),
    ):
        for name in dict.fromkeys(names):
            if names.count(name) > 1:
                yield Problem(field=where, value=name, allowed="each name once")


def _all_covariates(card: ModelCard) -> list[CovariateCard | DerivedCard]:
    return [*card.covariates, *card.derived]


def _covariates(card: ModelCard) -> Iterator[Problem]:
    for one in _all_covariates(card):
        (hard_low, hard_high), (soft_low, soft_high) = one.hard, one.soft
        if not hard_low <= soft_low <= soft_high <= hard_high:
            yield Problem(
                field=f"covariates.{one.name}",
                value=f"hard {one.hard}, soft {one.soft}",
                allowed="the soft range inside the hard one, both from low to high",
            )
    for recorded in card.covariates:
        yield from _default(recorded)
        for name, level in recorded.levels.items():
            if not recorded.hard[0] <= level <= recorded.hard[1]:
                yield Problem(
                    field=f"covariates.{recorded.name}.levels.{name}",
                    value=f"{level:g}",
                    allowed=f"in the hard range, {recorded.hard[0]:g} to {recorded.hard[1]:g}",
                )
    known = {one.name: one.unit for one in card.covariates}
    for derived in card.derived:
        yield from _derived(derived, known)
        known[derived.name] = derived.unit


def _default(one: CovariateCard) -> Iterator[Problem]:
    allowed = set(one.levels.values())
    outside = one.default is not None and not one.hard[0] <= one.default <= one.hard[1]
    if outside or (allowed and one.default is not None and one.default not in allowed):
        yield Problem(
            field=f"covariates.{one.name}.default",
            value=f"{one.default:g}",
            unit=one.unit,
            allowed="a value that the model may be used at",
        )


def _derived(one: DerivedCard, known: dict[str, str]) -> Iterator[Problem]:
    where = f"derived.{one.name}"
    equation = DERIVED.get(one.equation)
    if equation is None:
        yield Problem(field=f"{where}.equation", value=one.equation, allowed=" or ".join(DERIVED))
        return
    yield from _exactly(f"{where}.inputs", one.inputs, equation.inputs)
    yield from _exactly(f"{where}.coefficients", one.coefficients, equation.coefficients)
    for role, name in one.inputs.items():
        if name not in known:
            yield Problem(
                field=f"{where}.inputs.{role}", value=name, allowed=" or ".join(known) or "none"
            )
        elif role in equation.inputs:
            yield from _converts(f"{where}.inputs.{role}", known[name], equation.inputs[role], name)
    yield from _converts(f"{where}.unit", one.unit, equation.unit, one.name)


def _exactly(where: str, given: Iterable[str], wanted: Iterable[str]) -> Iterator[Problem]:
    if set(given) != set(wanted):
        yield Problem(
            field=where,
            value=", ".join(sorted(given)) or "none",
            allowed=", ".join(sorted(wanted)) or "none",
        )


def _converts(where: str, unit: str, wanted: str, name: str) -> Iterator[Problem]:
    try:
        Quantity(1.0, unit).to(wanted, molar_mass=molar_mass_of(name), field=where)
    except Refusal as refusal:
        yield from refusal.problems


def _parameters(card: ModelCard) -> Iterator[Problem]:
    covariates = {one.name for one in _all_covariates(card)}
    earlier: dict[str, str] = {}
    for one in card.parameters:
        where = f"parameters.{one.name}"
        yield from _value(one, where, earlier)
        for place, relation in enumerate(one.relations):
            yield from _relation(relation, f"{where}.relations[{place}]", covariates)
        earlier[one.name] = one.unit


def _value(one: ParameterCard, where: str, earlier: dict[str, str]) -> Iterator[Problem]:
    """Where it comes from, and whether its distribution can hold it."""
    ways = (one.typical is not None, bool(one.sum_of), one.complement_of is not None)
    if sum(ways) != 1:
        yield Problem(
            field=f"{where}.typical",
            allowed="a typical value, or what it is the sum or the complement of, and one of them",
        )
    for name in one.sum_of:
        if name not in earlier:
            yield Problem(field=f"{where}.sum_of", value=name, allowed="an earlier parameter")
        elif earlier[name] != one.unit:
            yield Problem(
                field=f"{where}.sum_of",
                value=f"{name} in {earlier[name]}",
                allowed=f"parameters in {one.unit}: they are added as they are",
            )
    if one.complement_of is not None and earlier.get(one.complement_of) != "1":
        yield Problem(
            field=f"{where}.complement_of",
            value=one.complement_of,
            allowed="an earlier parameter with the unit 1",
        )
    is_fraction = one.unit == "1" and one.typical is not None and 0.0 < one.typical < 1.0
    if one.distribution == "logit_normal" and (one.relations or not is_fraction):
        yield Problem(
            field=f"{where}.distribution",
            value=one.distribution,
            allowed="a typical value between 0 and 1 with the unit 1, and no relations",
        )


def _relation(one: RelationCard, where: str, covariates: set[str]) -> Iterator[Problem]:
    known = RELATIONS[one.equation]
    given = set(one.coefficients)
    listed = given - known.coefficients
    if not known.coefficients <= given or bool(listed) != bool(known.listed):
        allowed = ", ".join(sorted(known.coefficients))
        if known.listed:
            allowed = f"{allowed} and the {known.listed}".removeprefix(" and ")
        yield Problem(field=f"{where}.coefficients", value=", ".join(given), allowed=allowed)
    allowed_covariates = covariates
    if one.equation in OF_FIRST_DOSE:
        allowed_covariates = {HOURS_SINCE_FIRST_DOSE}
    if known.listed == "covariates":
        for name in sorted(listed - covariates):
            yield Problem(
                field=f"{where}.coefficients", value=name, allowed=" or ".join(sorted(covariates))
            )
    elif one.covariate not in allowed_covariates:
        yield Problem(
            field=f"{where}.covariate",
            value=one.covariate or "",
            allowed=" or ".join(sorted(allowed_covariates)) or "none",
        )
    yield from _numbers(one, where)


def _numbers(one: RelationCard, where: str) -> Iterator[Problem]:
    """Coefficients that no number comes of, and names that must be numbers."""
    for key in _DIVIDED.get(one.equation, ()):
        value = one.coefficients.get(key)
        if value is not None and value <= 0.0:
            yield Problem(
                field=f"{where}.coefficients.{key}", value=f"{value:g}", allowed="above 0"
            )
    known = RELATIONS[one.equation]
    if known.listed in ("values", "hours"):
        for key in sorted(set(one.coefficients) - known.coefficients):
            if not _is_number(key):
                yield Problem(field=f"{where}.coefficients", value=key, allowed="a number")


_DIVIDED: Final = {
    "power": ("reference",),
    "proportional": ("reference",),
    "by_value": ("reference",),
    "weighted_sum": ("reference",),
    "fold": ("factor",),
    "maturation": ("half",),
    "approach": ("final", "half_time"),
}
"""Coefficients that a relation divides by, or takes a power of."""


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _sources(card: ModelCard) -> Iterator[Problem]:
    cited: list[tuple[str, Cited]] = [
        *((f"parameters.{one.name}", one.source) for one in card.parameters),
        *((f"derived.{one.name}", one.source) for one in card.derived),
        *((f"observables.{one.name}", one.residual.source) for one in card.observables),
    ]
    for where, one in (
        ("between_patients", card.between_patients),
        ("between_occasions", card.between_occasions),
    ):
        if one is not None:
            cited.append((where, one.source))
    for where, source in cited:
        if source.reference not in card.references:
            yield Problem(
                field=f"{where}.source.reference",
                value=source.reference,
                allowed=" or ".join(card.references),
            )
