"""The file's covariates, doses, meals and levels in the words of the twins."""

from collections.abc import Mapping, Sequence

from fedtwin_research.twins.patient_file import DoseLine, LevelLine, MealLine, PatientFile
from fedtwin_research.twins.problems import Problems
from fedtwin_research.twins.wanted import route_for
from fedtwin_twins.pharmacology.card_model import CardModel
from fedtwin_twins.twin.covariate_rows import Recorded
from fedtwin_twins.twin.observation import Observation
from fedtwin_twins.twin.quantities import Quantity
from fedtwin_twins.twin.refusals import Problem
from fedtwin_twins.twin.schedule import Dose, Meal, Schedule

_SEX = "female"


def covariates_of(
    content: PatientFile, beside: Mapping[str, Quantity], problems: Problems
) -> dict[str, Recorded]:
    """Everything that is known: recorded, from genes, from other drugs."""
    found: dict[str, Recorded] = dict(content.covariates)
    if content.sex is not None:
        if _SEX in found:
            remedy = "leave out one of the two"
            problems.add(
                [Problem(field="sex", value=content.sex, allowed="sex or female", remedy=remedy)]
            )
        found[_SEX] = content.sex
    for name, value in beside.items():
        given = found.get(name)
        if isinstance(given, Quantity) and given != value:
            problems.add(
                [
                    Problem(
                        field=f"covariates.{name}",
                        value=f"{given.value:g}",
                        allowed=f"{value.value:g}, which follows from genes or other_drugs",
                        remedy="find out which of the two is right, and leave the other out",
                    )
                ]
            )
        found.setdefault(name, value)
    return found


def schedule_of(
    doses: Sequence[DoseLine],
    meals: Sequence[MealLine],
    models: Sequence[CardModel],
    places: Mapping[str, Sequence[int]],
    problems: Problems,
    prefix: str = "",
) -> Schedule:
    """Doses, then meals, each in the order of the file.

    Args:
        doses: of the file.
        meals: of the file.
        models: that are asked.
        places: of the lines in the file, by list.
        problems: where those of routes go.
        prefix: before the names of fields.
    """
    given: list[Dose | Meal] = []
    original = places.get("doses", range(len(doses)))
    for place, line in zip(original, doses, strict=True):
        where = f"{prefix}doses[{place}].route"
        route = _route(models, line, where, problems)
        given.append(
            Dose(
                time=line.time,
                amount=line.amount,
                route=route,
                duration=line.duration,
                rate=line.rate,
                interval=line.interval,
                additional=line.additional,
                steady_state=line.steady_state,
            )
        )
    given.extend(Meal(time=line.time, carbohydrate=line.carbohydrate) for line in meals)
    return Schedule(tuple(given))


def _route(models: Sequence[CardModel], line: DoseLine, where: str, problems: Problems) -> str:
    """The route; where there is none such, one that takes such amounts, to check the rest."""
    found = problems.attempt(route_for, models, line.route, where)
    if found is not None or not models:
        return found or ""
    first = models[0]
    alike = [one for one in first.routes if line.amount.measures_like(first.dose_unit(one))]
    return alike[0] if alike else first.routes[0]


def observations_of(
    levels: Sequence[LevelLine], models: Sequence[CardModel]
) -> tuple[Observation, ...]:
    """Measurements; one without an observable is of the models' first."""
    first = models[0].observables[0].name
    return tuple(
        Observation(
            time=line.time,
            observable=line.observable or first,
            value=line.value,
            below=line.below,
            quantification_limit=line.limit,
        )
        for line in levels
    )
