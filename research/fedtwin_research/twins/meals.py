"""What must be told of meals and insulin: what is planned, and when the basal insulin ends."""

from collections.abc import Iterator, Sequence

from fedtwin_research.twins.hours import Hours
from fedtwin_research.twins.wanted import LOW_GLUCOSE, Wanted, with_meals
from fedtwin_twins.patient_twin import TwinForecast
from fedtwin_twins.pharmacology.card_model import CardModel
from fedtwin_twins.twin.moments import Clock
from fedtwin_twins.twin.quantities import Quantity
from fedtwin_twins.twin.refusals import Problem
from fedtwin_twins.twin.schedule import GivenDose
from fedtwin_twins.twin.tabulate import Patient

_SHORT_H = 1.0 / 60.0


def cautions_of_plan(
    models: Sequence[CardModel], patient: Patient, hours: Hours, wanted: Wanted | None
) -> list[Problem]:
    """What must stand beside an answer of models that take meals; nothing for others."""
    if not any(with_meals(model) for model in models):
        return []
    given, _ = patient.schedule.given(Clock(patient.origin))
    insulin = {
        route.name
        for model in models
        for route in model.card.routes
        if route.input == "subcutaneous_insulin"
    }
    return [
        *_basal(given, insulin, hours, wanted),
        *(() if wanted is None else _planned(given, hours, insulin)),
    ]


def _basal(
    given: Sequence[GivenDose], insulin: set[str], hours: Hours, wanted: Wanted | None
) -> Iterator[Problem]:
    """Insulin that ends before the forecast does: glucose rises then, in the model as in life."""
    running = [one for one in given if one.route in insulin and one.duration_h > 0]
    now = None if wanted is None else wanted.current
    if now is not None and now.duration_h > 0:
        return
    end = max((one.hour + one.duration_h for one in running), default=None)
    if end is not None and end > hours.end - _SHORT_H:
        return
    yield Problem(
        field="doses",
        value="no basal insulin" if end is None else f"the basal insulin ends at {end:.4g} h",
        allowed=f"a rate that runs to the end of the forecast at {hours.end:.4g} h",
        remedy="without it glucose rises: add it with its duration, of a pump or a long-acting "
        "insulin",
    )


def _planned(given: Sequence[GivenDose], hours: Hours, insulin: set[str]) -> Iterator[Problem]:
    """What comes after the start and stands beside every candidate."""
    later = [one for one in given if one.hour >= hours.horizon.start_h]
    if not later:
        return
    shown = ", ".join(
        f"{one.amount} {one.route}{f' over {one.duration_h:g} h' if one.duration_h else ''} "
        f"at {one.hour:.4g} h"
        for one in later
    )
    at_once = any(one.route in insulin and not one.duration_h for one in later)
    yield Problem(
        field="what is planned after the start",
        value="taken as it stands",
        remedy=f"it stands beside every candidate: {shown}"
        + ("; insulin among them is given in addition to what is proposed" if at_once else ""),
    )


def cautions_of_what_follows(
    models: Sequence[CardModel], hours: Hours, proposed: TwinForecast
) -> list[Problem]:
    """Low glucose under a proposal after the hour until which it was judged."""
    judged = hours.horizon.judged_h
    known = [
        one for one in models[0].intake.observables if one.observable.name == proposed.observable
    ]
    if judged is None or not with_meals(models[0]) or known[0].molar_mass is None:
        return []
    mass = Quantity(known[0].molar_mass, "g/mol")
    low = Quantity(LOW_GLUCOSE, "mmol/L").to(proposed.unit, molar_mass=mass)
    found = []
    for level, words in ((proposed.levels[0], "the lower edge of the band"), (0.5, "the median")):
        column = proposed.quantiles[:, proposed.levels.index(level)]
        below = proposed.hours[(proposed.hours > judged) & (column < low)]
        if below.numel():
            found.append(f"{words} from {float(below[0]):.4g} h")
    if not found:
        return []
    return [
        Problem(
            field=f"{proposed.observable} as proposed, after it is judged at {judged:.4g} h",
            value=f"below {low:.3g} {proposed.unit}: {', '.join(found)}",
            remedy="judge it for longer, or look at the basal rate",
        )
    ]
