"""A card in the words of the twins: parameters, covariates, observables, what it takes in."""

from fedtwin_twins.pharmacology.card import ModelCard
from fedtwin_twins.pharmacology.card_parameters import compute_derived, read_by_parameters
from fedtwin_twins.pharmacology.card_parts import (
    Cited,
    CovariateCard,
    DerivedCard,
    ObservableCard,
    ParameterCard,
    RelationCard,
    RouteCard,
)
from fedtwin_twins.twin.intake import (
    CovariateIntake,
    DerivedIntake,
    Intake,
    ObservableIntake,
    RouteIntake,
)
from fedtwin_twins.twin.model import CovariateRange, Observable, Parameter, Source
from fedtwin_twins.twin.quantities import Quantity
from fedtwin_twins.twin.refusals import Problem
from fedtwin_twins.twin.residuals import ResidualError


def parameters_of(card: ModelCard) -> tuple[Parameter, ...]:
    """With the typical value of sums computed, and relations written out."""
    typical: dict[str, float] = {}
    found = []
    for one in card.parameters:
        value = one.typical
        if value is None and one.complement_of is not None:
            value = 1.0 - typical[one.complement_of]
        elif value is None:
            value = sum(typical[name] for name in one.sum_of)
        typical[one.name] = value
        found.append(
            Parameter(
                name=one.name,
                unit=one.unit,
                typical=value,
                relation=_relation_words(one),
                source=_source(card, one.source),
            )
        )
    return tuple(found)


def _relation_words(one: ParameterCard) -> str:
    parts = [_factor_words(relation) for relation in one.relations]
    if one.sum_of:
        parts.insert(0, " + ".join(one.sum_of))
    if one.complement_of is not None:
        parts.insert(0, f"1 - {one.complement_of}")
    if one.distribution != "lognormal":
        parts.append(f"distribution {one.distribution}")
    return " x ".join(parts)


def _factor_words(relation: RelationCard) -> str:
    numbers = ", ".join(f"{name} {value:g}" for name, value in relation.coefficients.items())
    covariate = f" of {relation.covariate}" if relation.covariate else ""
    return f"{relation.equation}{covariate} ({numbers})"


def _source(card: ModelCard, cited: Cited) -> Source:
    reference = card.references[cited.reference]
    return Source(citation=reference.citation, doi=reference.doi, place=cited.place)


def covariate_range(one: CovariateCard | DerivedCard) -> CovariateRange:
    """Name, unit, and where it may be believed."""
    default = one.default if isinstance(one, CovariateCard) else None
    return CovariateRange(
        name=one.name, unit=one.unit, hard=one.hard, soft=one.soft, default=default
    )


def observables_of(card: ModelCard) -> tuple[Observable, ...]:
    """With their errors."""
    return tuple(_observable(one) for one in card.observables)


def _observable(one: ObservableCard) -> Observable:
    residual = one.residual
    error = ResidualError(
        convention=residual.convention,  # type: ignore[arg-type]
        additive=residual.additive,
        proportional=residual.proportional,
        at_zero=residual.at_zero,
    )
    return Observable(
        name=one.name,
        code=one.code,
        unit=one.unit,
        error=error,
        quantification_limit=one.quantification_limit,
    )


def intake_of_card(card: ModelCard) -> Intake:
    """What the model takes in, with the card's bounds, levels and derived covariates."""
    inputs = {name for one in card.derived for name in one.inputs.values()}
    unread = {one.name for one in card.covariates} - inputs
    occasions = card.between_occasions
    return Intake(
        routes={one.name: _route(card, one) for one in card.routes},
        covariates={
            one.name: CovariateIntake(range=covariate_range(one), levels=one.levels)
            for one in card.covariates
        },
        derived=tuple(
            DerivedIntake(
                range=covariate_range(one),
                inputs=tuple(one.inputs.values()),
                compute=compute_derived(card, one),
            )
            for one in card.derived
        ),
        # A covariate that only bounds the population is asked for as well: it is checked.
        used=frozenset(read_by_parameters(card) | unread),
        observables=tuple(
            ObservableIntake(
                observable=_observable(one),
                endogenous=one.endogenous,
                signed=one.signed,
                molar_mass=card.analyte.molar_mass_g_per_mol,
                believable=one.believable,
            )
            for one in card.observables
        ),
        carry_rule=card.covariate_rule,
        occasion_hours=occasions.hours if occasions is not None else (),
    )


def _route(card: ModelCard, route: RouteCard) -> RouteIntake:
    typical = {one.name: one for one in parameters_of(card)}
    ways = [one for one in card.routes if one.name in route.parts] or [route]
    whole = [one.name for one in card.routes if route.name in one.parts]

    def hours(name: str | None) -> float:
        return 0.0 if name is None else Quantity(typical[name].typical, typical[name].unit).to("h")

    return RouteIntake(
        unit=route.unit,
        lag_h=max(hours(one.lag) for one in ways),
        duration_h=max(hours(one.duration) for one in ways),
        single_dose=route.believable_single_dose,
        molar_mass=card.analyte.molar_mass_g_per_mol if route.input == "meal" else None,
        infusible=route.input in ("direct", "subcutaneous_insulin", "intravenous_insulin"),
        part_of=whole[0] if whole else "",
    )


def cautions_of(card: ModelCard) -> tuple[Problem, ...]:
    """What must stand beside every result of the model: what is open, and what is unchecked."""
    questions = tuple(
        Problem(field=f"{card.id}, open question {place}", value="not settled", remedy=question)
        for place, question in enumerate(card.open_questions, start=1)
    )
    unchecked = tuple(
        Problem(field=f"{card.id}, not checked {place}", value="not checked", remedy=sentence)
        for place, sentence in enumerate(card.unchecked, start=1)
    )
    return questions + unchecked
