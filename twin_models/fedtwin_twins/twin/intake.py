"""What a model takes in, and how each thing is checked before it becomes a tensor.

A `TwinModel` says its routes, covariates and observables; a model card says more: how large a dose
can be, what a level's name means, which covariates follow from others, and what may be measured
before the first dose.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from fedtwin_twins.twin.model import CarryRule, CovariateRange, Observable, TwinModel


@dataclass(frozen=True, kw_only=True, slots=True)
class RouteIntake:
    """One of a model's routes.

    Attributes:
        unit: UCUM, of the amounts in the table.
        lag_h: typical delay before the dose appears.
        duration_h: typical duration of an input whose duration the model sets; 0: none.
        single_dose: smallest and largest believable single dose in `unit`; none: any above 0.
        infusible: whether a dose may last (a duration or a rate).
        molar_mass: g/mol, of what is given; none: masses and amounts of substance do not mix.
        part_of: the route by which doses are given, if this is only a part of it.
    """

    unit: str
    lag_h: float = 0.0
    duration_h: float = 0.0
    single_dose: tuple[float, float] | None = None
    infusible: bool = True
    molar_mass: float | None = None
    part_of: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class CovariateIntake:
    """One recorded covariate.

    Attributes:
        range: name, unit, where it may be believed, the default.
        levels: numbers by name, of a covariate such as sex; empty for a measured one.
    """

    range: CovariateRange
    levels: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class DerivedIntake:
    """A covariate that may be given, or follows from others.

    Attributes:
        range: name, unit and where it may be believed.
        inputs: the covariates it follows from, recorded or derived before it.
        compute: from the inputs by name, each (patients, spans), in their units.
    """

    range: CovariateRange
    inputs: tuple[str, ...]
    compute: Callable[[Mapping[str, Tensor]], Tensor]


@dataclass(frozen=True, kw_only=True, slots=True)
class ObservableIntake:
    """One observable.

    Attributes:
        observable: name, code, unit, limit of quantification.
        endogenous: it is there without any dose (a clotting time, a count of cells).
        signed: it may be below 0.
        molar_mass: g/mol, of the analyte; none: masses and amounts of substance do not mix.
        believable: smallest and largest believable value in the observable's unit; none: any.
    """

    observable: Observable
    endogenous: bool = False
    signed: bool = False
    molar_mass: float | None = None
    believable: tuple[float, float] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Intake:
    """Everything that a model takes in.

    Attributes:
        routes: by name, in the model's order.
        covariates: recorded ones, by name.
        derived: in an order in which each follows from those before it.
        used: covariates that parameters need themselves.
        observables: in the model's order.
        carry_rule: what a covariate is between two records.
        occasion_hours: hours after the first dose at which a new occasion begins.
    """

    routes: Mapping[str, RouteIntake]
    covariates: Mapping[str, CovariateIntake]
    derived: tuple[DerivedIntake, ...] = ()
    used: frozenset[str] = frozenset()
    observables: tuple[ObservableIntake, ...]
    carry_rule: CarryRule
    occasion_hours: tuple[float, ...] = ()


def intake_of(model: TwinModel) -> Intake:
    """What can be known of any model's intake from its own words."""
    return Intake(
        routes={name: RouteIntake(unit=model.dose_unit(name)) for name in model.routes},
        covariates={one.name: CovariateIntake(range=one) for one in model.covariates},
        used=frozenset(one.name for one in model.covariates),
        observables=tuple(ObservableIntake(observable=one) for one in model.observables),
        carry_rule=model.carry_rule,
    )
