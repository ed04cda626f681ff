"""A patient's file as a question to a twin: models, record, hours, wishes; or a refusal of it all.

Where the file names a drug, every card of it is asked; a card that must not be used for this
patient, or that needs a covariate that was not recorded, is set aside with the reason said. Where
it names models, each of them must fit.
"""

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path

from fedtwin_research.twins.genes_and_drugs import GenesAndDrugs, genes_and_drugs
from fedtwin_research.twins.hours import Hours, hours_of, too_early
from fedtwin_research.twins.meals import cautions_of_plan
from fedtwin_research.twins.patient_file import PatientFile
from fedtwin_research.twins.problems import Problems
from fedtwin_research.twins.reading import ReadFile
from fedtwin_research.twins.record import covariates_of, observations_of, schedule_of
from fedtwin_research.twins.wanted import Wanted, current_of, wanted_of, with_meals
from fedtwin_twins.pharmacology.adverse_event_models import ADVERSE_EVENTS
from fedtwin_twins.pharmacology.card_model import CardModel
from fedtwin_twins.pharmacology.library import Entry, library, shipped
from fedtwin_twins.twin.covariate_rows import UNUSABLE
from fedtwin_twins.twin.observation_rows import BEFORE_FIRST_DOSE
from fedtwin_twins.twin.refusals import Problem, Refusal, refuse_if_any
from fedtwin_twins.twin.schedule import Schedule
from fedtwin_twins.twin.tabulate import Patient, tabulate

_SOME_DAY = datetime(2000, 1, 1, tzinfo=UTC)
SEVERAL = 2
"""Datetimes without an origin from which on one sentence serves them all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """What stands beside the file.

    Attributes:
        today: on which guidelines are asked.
        seed: of all draws.
        advise: a regimen is wanted even where the file has no goal.
        models: in place of the file's.
        cards: folder of a site's own cards.
    """

    today: date
    seed: int = 1
    advise: bool = False
    models: tuple[str, ...] = ()
    cards: Path | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """What a twin is asked.

    Attributes:
        content: of the file.
        sha256: of the file.
        settings: beside it.
        entries: the cards, by name, with where they are from.
        models: of the cards.
        patient: the record.
        hours: of the forecast, and when things are judged.
        what_if: schedules by name.
        beside: genes and other drugs.
        wanted: the search; none: no regimen is wanted.
        cautions: of the reading; they stand beside every result.
    """

    content: PatientFile
    sha256: str
    settings: Settings
    entries: Mapping[str, Entry]
    models: tuple[CardModel, ...]
    patient: Patient
    hours: Hours
    what_if: Mapping[str, Schedule]
    beside: GenesAndDrugs
    wanted: Wanted | None
    cautions: tuple[Problem, ...]


def question_of(read: ReadFile, settings: Settings) -> Question:
    """The question of a file.

    Raises:
        Refusal: with everything that is wrong with the file.
    """
    content = read.content
    problems = Problems(found=list(read.problems))
    entries = _entries(content, settings, problems)
    models = [CardModel(one.card) for one in entries.values()]
    if not models:
        raise Refusal(*problems.found)
    beside = genes_and_drugs(content, models, settings.today, problems)
    schedule = schedule_of(content.doses, content.meals, models, read.places, problems)
    patient = Patient(
        origin=_origin(content, problems),
        schedule=schedule,
        observations=observations_of(content.levels, models),
        covariates=covariates_of(content, beside.covariates, problems),
        occasions=content.occasions,
    )
    _known_names(content, models, problems)
    fitting = _fitting(models, patient, read, bool(settings.models or content.models), problems)
    _known_risks(content, problems)
    current = problems.attempt(current_of, content, fitting or models)
    meals = any(with_meals(model) for model in models)
    hours = problems.attempt(hours_of, content, patient, current, with_meals=meals)
    begins = None  # with meals, doses that are planned stand beside what is looked at
    if meals:
        begins = -math.inf if hours is None else hours.horizon.start_h
    alone = replace(patient, observations=())
    what_if = _what_if(content, fitting or models, alone, begins, read, problems)
    wanted = None
    asked = content.goal is not None or settings.advise or "goal" in read.faulty
    if not asked:
        _not_asked(content, problems)
    elif hours is not None:
        wanted = wanted_of(content, fitting or models, hours.horizon, beside.forbidden, problems)
    refuse_if_any(problems.found)
    assert hours is not None
    problems.cautions += cautions_of_plan(fitting, patient, hours, wanted)
    return Question(
        content=content,
        sha256=read.sha256,
        settings=settings,
        entries={model.name: entries[model.name] for model in fitting},
        models=tuple(fitting),
        patient=patient,
        hours=hours,
        what_if=what_if,
        beside=beside,
        wanted=wanted,
        cautions=tuple(dict.fromkeys(problems.cautions)),
    )


def _entries(content: PatientFile, settings: Settings, problems: Problems) -> dict[str, Entry]:
    """The cards that are asked for, by name."""
    known = problems.attempt(library, settings.cards)
    if known is None:
        return {}
    names = settings.models or content.models
    if not names and not content.drug:
        drugs = ", ".join(sorted({one.card.drug.name for one in known.values()}))
        remedy = "name a drug, or models: see 'fedtwin research models'"
        problems.add([Problem(field="drug", allowed=drugs, remedy=remedy)])
        return {}
    found: dict[str, Entry] = {}
    for name in names:
        if name in known:
            found[name] = known[name]
            continue
        near = difflib.get_close_matches(name, list(known), n=3)
        remedy = f"did you mean {' or '.join(near)}?" if near else "see 'fedtwin research models'"
        allowed = "a card that is here"
        problems.add([Problem(field="models", value=name, allowed=allowed, remedy=remedy)])
    if not names:
        return _of_drug(content.drug, known, problems)
    _one_drug(content.drug, found, problems)
    return found


def _of_drug(drug: str, known: Mapping[str, Entry], problems: Problems) -> dict[str, Entry]:
    asked = drug.strip().lower()
    found = {
        name: one
        for name, one in known.items()
        if asked in {one.card.drug.name.lower(), one.card.drug.atc.lower()}
    }
    if not found:
        drugs = sorted({one.card.drug.name for one in known.values()})
        near = difflib.get_close_matches(asked, drugs, n=1)
        remedy = f"did you mean {near[0]}?" if near else "there is no card of another drug"
        allowed = " or ".join(drugs)
        problems.add([Problem(field="drug", value=drug, allowed=allowed, remedy=remedy)])
    return found


def _one_drug(drug: str, found: Mapping[str, Entry], problems: Problems) -> None:
    drugs = {one.card.drug.name: None for one in found.values()}
    if drug and drug.lower() not in {name.lower() for name in drugs} and drugs:
        codes = {one.card.drug.atc for one in found.values()}
        if drug not in codes:
            remedy = "leave out one of the two fields"
            allowed = " or ".join(drugs)
            problems.add([Problem(field="drug", value=drug, allowed=allowed, remedy=remedy)])
    if len(drugs) > 1:
        problems.add(
            [Problem(field="models", value=", ".join(drugs), allowed="models of one drug")]
        )


def _origin(content: PatientFile, problems: Problems) -> datetime | None:
    """Hour 0; where there is none in truth, some other, so that times are checked all the same."""
    if content.origin is None:
        times = [one.time for part in (content.doses, content.meals) for one in part]
        times += [one.time for one in content.levels]
        dated = [one for one in times if isinstance(one, datetime)]
        if len(dated) < SEVERAL:
            return None
        allowed = "the datetime of hour 0 with its zone, such as 2026-03-01T08:00+01:00"
        remedy = f"{len(dated)} times are datetimes: the twin counts hours from the origin"
        problems.add([Problem(field="origin", allowed=allowed, remedy=remedy)])
        return min((one for one in dated if one.utcoffset() is not None), default=_SOME_DAY)
    if isinstance(content.origin, datetime):
        return content.origin
    allowed = "a datetime with its zone, such as 2026-03-01T08:00+01:00"
    problems.add([Problem(field="origin", value=str(content.origin), allowed=allowed)])
    return _SOME_DAY


def _known_names(content: PatientFile, models: Sequence[CardModel], problems: Problems) -> None:
    """Covariates that no card knows are mistakes; those of other models are left aside, said."""
    here = {name for model in models for name in _names(model)}
    anywhere = here | {name for card in shipped().values() for name in _names(CardModel(card))}
    for name in content.covariates:
        if name in here:
            continue
        if name in anywhere:
            remedy = "no model that is used here asks for it"
            problems.cautions.append(
                Problem(field=f"covariates.{name}", value="not used", remedy=remedy)
            )
            continue
        near = difflib.get_close_matches(name, sorted(anywhere), n=1, cutoff=0.5)
        remedy = f"did you mean {near[0]}?" if near else ""
        allowed = " or ".join(sorted(here))
        problems.add(
            [Problem(field=f"covariates.{name}", value="unknown", allowed=allowed, remedy=remedy)]
        )


def _names(model: CardModel) -> list[str]:
    card = model.card
    return [*(one.name for one in card.covariates), *(one.name for one in card.derived)]


def _fitting(
    models: Sequence[CardModel],
    patient: Patient,
    read: ReadFile,
    named: bool,
    problems: Problems,
) -> list[CardModel]:
    """The models that may be used for the patient."""
    fitting: list[CardModel] = []
    unfit: dict[str, tuple[Problem, ...]] = {}
    for model in models:
        try:
            tabulate([patient], model.intake)
        except Refusal as refusal:
            found = _in_the_file(refusal.problems, read)
            own = tuple(one for one in found if _of_the_model(one, model))
            problems.add(one for one in found if one not in own)
            unfit[model.name] = own
            continue
        fitting.append(model)
    if named:
        problems.add(one for own in unfit.values() for one in own)
        return fitting
    if not fitting:
        problems.add(sorted(unfit.values(), key=len)[0] if unfit else ())
        return fitting
    for name, own in unfit.items():
        reasons = "; ".join(map(str, own))
        problems.cautions.append(Problem(field=name, value="set aside", remedy=reasons))
    return fitting


def _of_the_model(problem: Problem, model: CardModel) -> bool:
    """Whether another model may do without what is wrong."""
    missing = not problem.value and problem.field.removeprefix("covariates.") in _names(model)
    return problem.remedy == UNUSABLE or missing


def _in_the_file(problems: Sequence[Problem], read: ReadFile) -> list[Problem]:
    """Problems of a twin's record under the names of the file's fields."""
    found = []
    doses = any(one.field.startswith("doses") for one in problems)
    for one in problems:
        name = one.field
        if doses and one.remedy == BEFORE_FIRST_DOSE:
            continue
        if name.startswith("observations["):
            place, _, rest = name.removeprefix("observations[").partition("]")
            original = read.places.get("levels", ())
            number = original[int(place)] if int(place) < len(original) else int(place)
            name = f"levels[{number}]{rest.replace('quantification_limit', 'limit')}"
        elif name.startswith("doses["):
            name = _dose_name(name, read)
        elif not name.startswith(("doses", "origin", "occasions")):
            name = f"covariates.{name}"
        if _follows_from_another(name, one, read):
            continue
        value = one.value
        if value.endswith(" 1"):
            value = f"{value.removesuffix(' 1')} without a unit"
        remedy = one.remedy.replace(one.field, name)
        found.append(replace(one, field=name, value=value, remedy=remedy))
    return found


def _dose_name(name: str, read: ReadFile) -> str:
    place, _, rest = name.removeprefix("doses[").partition("]")
    doses, meals = read.places.get("doses", ()), read.places.get("meals", ())
    number = int(place)
    if number < len(doses):
        return f"doses[{doses[number]}]{rest}"
    number -= len(doses)
    return f"meals[{meals[number] if number < len(meals) else number}]{rest}"


def _follows_from_another(name: str, problem: Problem, read: ReadFile) -> bool:
    """What is wrong only because something else was left out of the check."""
    faulty = read.faulty
    if problem.remedy == BEFORE_FIRST_DOSE:
        return any(one.startswith(("doses", "meals")) for one in faulty)
    given = name.removeprefix("covariates.").partition("[")[0]
    named = {"female" if one == "sex" else one.removeprefix("covariates.") for one in faulty}
    if "genes" in faulty or any(one.startswith("genes.") for one in faulty):
        return not problem.value and name.startswith("covariates.")
    return not problem.value and (given in named or "covariates" in named)


def _what_if(
    content: PatientFile,
    models: Sequence[CardModel],
    patient: Patient,
    begins: float | None,
    read: ReadFile,
    problems: Problems,
) -> dict[str, Schedule]:
    found: dict[str, Schedule] = {}
    for place, one in zip(read.places.get("what_if", ()), content.what_if, strict=False):
        where = f"what_if[{place}]"
        schedule = schedule_of(one.doses, one.meals, models, {}, problems, f"{where}.")
        if one.name in found or not one.name.strip():
            allowed = "a name of its own"
            problems.add([Problem(field=f"{where}.name", value=one.name, allowed=allowed)])
        found[one.name] = schedule
        problems.add(too_early(schedule, patient, begins, where))
        alone = replace(patient, schedule=schedule)
        for model in models:
            try:
                tabulate([alone], model.intake)
            except Refusal as refusal:
                problems.add(
                    replace(each, field=f"{where}.{each.field}")
                    for each in refusal.problems
                    if each.field.startswith("doses")
                )
    return found


def _not_asked(content: PatientFile, problems: Problems) -> None:
    """Wishes that only a goal gives a meaning."""
    for name in ("limits", "candidates", "judged_at", "baseline_risks"):
        if name in content.model_fields_set:
            remedy = "add a goal to the file, or --advise"
            problems.cautions.append(Problem(field=name, value="not used", remedy=remedy))


def _known_risks(content: PatientFile, problems: Problems) -> None:
    for name in content.baseline_risks:
        if name not in ADVERSE_EVENTS:
            near = difflib.get_close_matches(name, list(ADVERSE_EVENTS), n=1)
            remedy = f"did you mean {near[0]}?" if near else ""
            allowed = " or ".join(ADVERSE_EVENTS)
            where = f"baseline_risks.{name}"
            problems.add([Problem(field=where, value="unknown", allowed=allowed, remedy=remedy)])
