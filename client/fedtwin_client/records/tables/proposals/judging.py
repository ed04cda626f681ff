"""What one column of values may mean: code, unit, how surely, and what a person must decide."""

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from fedtwin_client.records.codes.units import normal_unit
from fedtwin_client.records.tables.proposals.fitting import (
    Fit,
    code_in,
    convertible,
    fit_in,
    fits_of,
    mixed_units,
    same_scale,
)
from fedtwin_client.records.tables.proposals.lexicon import MEASURES, Measure
from fedtwin_client.records.tables.proposals.matching import Heading, Match, heading_of, matches
from fedtwin_client.records.tables.proposals.names import CONDITIONS
from fedtwin_client.records.tables.proposals.profiles import SENTINELS, Profile, means_yes

Role: TypeAlias = Literal[
    "patient", "time", "known", "birth", "age", "sex", "value", "beside", "lines", "left"
]
SURE = 0.85
WORTH_PROPOSING = 0.55
_NEARLY_ALL = 0.95
_FEW_GRADES = 6


@dataclass(kw_only=True, slots=True)
class Judgement:
    """What is proposed for one column.

    Attributes:
        profile: what it holds.
        role: what it is to the table; `left` is not proposed.
        kind: of a value, as the mapping has it.
        code: proposed; none for roles and for codes in cells.
        unit: proposed; none if a person must decide.
        unit_column: the column with its units.
        value_column: the column with the values of its codes.
        missing: marks to add to the column.
        values: what its cells stand for.
        score: from 0 to 1.
        why: what speaks for it.
        unsure: what a person must decide.
    """

    profile: Profile
    role: Role = "left"
    kind: str | None = None
    code: str | None = None
    unit: str | None = None
    unit_column: str | None = None
    value_column: str | None = None
    missing: list[str | float] = field(default_factory=list)
    values: dict[str, bool] = field(default_factory=dict)
    score: float = 0.0
    why: list[str] = field(default_factory=list)
    unsure: list[str] = field(default_factory=list)


def judge(profile: Profile, unit_column: Profile | None = None) -> Judgement:
    """Judge a column that is no patient, time or trait.

    Args:
        profile: what it holds.
        unit_column: the column that holds its units, if there is one.
    """
    judged = Judgement(profile=profile)
    heading = heading_of(profile.name)
    if profile.looks == "number":
        _judge_number(judged, heading, unit_column)
    elif profile.looks == "flag":
        _judge_flag(judged, heading)
    elif profile.looks == "codes":
        judged.role, judged.kind, judged.score = "value", "code", 0.8
        judged.why.append(f"the cells look like codes of {profile.vocabulary}")
        judged.unsure.append(f"are these codes of {profile.vocabulary}?")
    if judged.role == "left":
        judged.why.append(_not_proposed(profile))
    return judged


def _not_proposed(profile: Profile) -> str:
    says = {
        "empty": "no cell holds anything",
        "date": "a date that is not the row's time",
        "text": "text",
        "unit": "units",
        "coded": "a few different words",
        "flag": "yes or no; no disease is known by this name",
        "number": "numbers; no measure is known by this name",
        "codes": "codes",
    }
    return says[profile.looks]


def _judge_flag(judged: Judgement, heading: Heading) -> None:
    found = sorted(matches(heading.words, CONDITIONS), key=lambda match: -match.score)
    if not found:
        return
    best = found[0]
    judged.role, judged.kind, judged.code = "value", "flag", best.meant
    judged.score = round(best.score, 2)
    judged.why.append(best.why)
    words = {cell: means_yes(cell) for cell in judged.profile.values}
    if not set(words) <= {"0", "1", "0.0", "1.0"}:
        judged.values = words
        judged.why.append("yes: " + ", ".join(cell for cell, yes in words.items() if yes))
    if best.score < SURE:
        judged.unsure.append(f"is this {best.meant}?")
    if len(set(words.values())) < 2:
        judged.unsure.append("all cells say the same")


def _judge_number(judged: Judgement, heading: Heading, unit_column: Profile | None) -> None:
    profile = judged.profile
    choices = [
        (_choice_score(match, heading, profile), match)
        for match in matches(heading.words, ((item, item.names) for item in MEASURES))
    ]
    choices.sort(key=lambda choice: -choice[0])
    if not choices or choices[0][0] < WORTH_PROPOSING:
        if choices:
            judged.score = round(choices[0][0], 2)
            judged.unsure.append(
                f"perhaps {choices[0][1].meant.name}, but the values or the name speak against it"
            )
        return
    score, best = choices[0]
    judged.role, judged.kind, judged.score = "value", "number", round(score, 2)
    judged.why.append(best.why)
    rivals = [match.meant.name for other, match in choices[1:] if other > score - 0.1]
    if rivals:
        judged.unsure.append(f"or is it {' or '.join(dict.fromkeys(rivals))}?")
    if best.score < SURE:
        judged.unsure.append(f"is this {best.meant.name}?")
    numbers = _without_marks(judged, best.meant)
    if unit_column is not None:
        _take_unit_column(judged, best.meant, unit_column)
    else:
        _choose_unit(judged, best.meant, heading, numbers)
    judged.code = code_in(best.meant, judged.unit)
    if profile.strays:
        judged.unsure.append(f"{profile.strays:,} cells are no numbers and would be put aside")


def _choice_score(match: Match[Measure], heading: Heading, profile: Profile) -> float:
    """Name and values together; values that fit nowhere speak against a name."""
    measure = match.meant
    numbers = profile.numbers[~_marks_of(measure, profile.numbers)]
    unit = _unit_of(heading, measure)
    fits = fits_of(measure, numbers)
    best = max((fit.score for fit in fits), default=0.0)
    if unit is not None:
        fits.append(fit_in(measure, unit, numbers))
        best = fits[-1].score
    elif heading.written is not None:
        best = 0.0
    plausible = max((fit.plausible for fit in fits), default=0.0)
    score = 0.7 * match.score + 0.3 * best
    # Whole numbers of a few kinds are marks or grades (`ca`, vessels from 0 to 3), not calcium.
    graded = profile.distinct <= _FEW_GRADES and profile.count >= 30
    return min(score, 0.5) if plausible < 0.5 or graded else score


def _unit_of(heading: Heading, measure: Measure) -> str | None:
    """The unit in a name, if the measure may have it."""
    unit = heading.unit or heading.written
    return unit if unit in measure.codes or (unit and convertible(measure, unit)) else None


def _marks_of(measure: Measure, numbers: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Numbers that people write for nothing, where no unit makes them plausible."""
    low, _ = measure.plausible
    odd = np.isin(numbers, list(SENTINELS))
    if low > 0:
        odd |= numbers == 0
    if not odd.any():
        return odd
    for fit in [fit_in(measure, unit, numbers[odd]) for unit in measure.codes]:
        if fit.plausible == 1.0:
            return np.zeros(len(numbers), dtype=np.bool_)
    return odd


def _without_marks(judged: Judgement, measure: Measure) -> npt.NDArray[np.float64]:
    numbers = judged.profile.numbers
    odd = _marks_of(measure, numbers)
    for value in np.unique(numbers[odd]):
        count = int((numbers == value).sum())
        judged.missing.append(float(value))
        judged.unsure.append(f"{count:,} cells are {value:g}: does that mean 'not recorded'?")
    return numbers[~odd]


def _take_unit_column(judged: Judgement, measure: Measure, units: Profile) -> None:
    judged.unit_column = units.name
    judged.why.append(f"units in the column '{units.name}'")
    known = {cell: normal_unit(cell) for cell in units.values}
    unfit = [cell for cell, unit in known.items() if not unit or not convertible(measure, unit)]
    if len(units.values) > 1:
        judged.unsure.append(f"units are mixed: {', '.join(units.values)}")
    if unfit:
        judged.unsure.append(f"units that do not fit: {', '.join(unfit)}")


def _choose_unit(
    judged: Judgement, measure: Measure, heading: Heading, numbers: npt.NDArray[np.float64]
) -> None:
    mixed = mixed_units(measure, numbers)
    if mixed is not None:
        main, second, count = mixed
        judged.unsure.append(
            f"two units in one column: {len(numbers) - count:,} values look like {main}, {count:,} "
            f"like {second}; separate them in the source"
        )
        judged.score = min(judged.score, 0.6)
        return
    unit = _unit_of(heading, measure)
    if unit is not None:
        _check_named(judged, measure, fit_in(measure, unit, numbers), numbers)
    elif heading.written is not None:
        judged.unsure.append(
            f"'{heading.written}' in the name is no unit of {measure.name} that is known"
        )
    else:
        _tell_by_values(judged, measure, numbers)


def _check_named(
    judged: Judgement, measure: Measure, fit: Fit, numbers: npt.NDArray[np.float64]
) -> None:
    """A unit that stands in the name, held against the values."""
    judged.unit = fit.unit
    judged.why.append(f"{fit.unit} in the name; {_shares(measure, fit, numbers)}")
    if fit.plausible >= _NEARLY_ALL and fit.usual:
        return
    better = [other for other in fits_of(measure, numbers) if other.score > fit.score + 0.2]
    if better:
        judged.unit = None
        judged.unsure.append(f"the name says {fit.unit}, the values look like {better[0].unit}")
    else:
        judged.unsure.append(
            f"{1 - fit.plausible:.0%} of the values are not plausible in {fit.unit}"
            if fit.plausible < _NEARLY_ALL
            else f"the median is unusual for {measure.name} in {fit.unit}"
        )


def _shares(measure: Measure, fit: Fit, numbers: npt.NDArray[np.float64]) -> str:
    """How many of the values are plausible, in this unit and in the others."""
    others = [
        f"{other.plausible:.0%} in {other.unit}"
        for other in fits_of(measure, numbers)
        if not same_scale(measure, fit.unit, other.unit)
    ]
    mine = f"{fit.plausible:.0%} of the values are plausible in {fit.unit}"
    return ", ".join([mine, *others])


def _tell_by_values(judged: Judgement, measure: Measure, numbers: npt.NDArray[np.float64]) -> None:
    """No unit in the name: the values tell it, if they fit one only."""
    fits = fits_of(measure, numbers)
    likely = [fit for fit in fits if fit.plausible >= _NEARLY_ALL]
    good = [fit for fit in likely if fit.usual] or likely
    scales = [fit for fit in good[1:] if not same_scale(measure, good[0].unit, fit.unit)]
    if not good or scales:
        listed = ", ".join(f"{fit.unit} ({fit.plausible:.0%} plausible)" for fit in fits)
        judged.unsure.append(f"no unit in the name, and the values do not tell it: {listed}")
        return
    best = good[0]
    judged.unit = best.unit
    judged.why.append(_shares(measure, best, numbers))
    if len(measure.codes) > 1:
        judged.unsure.append(f"no unit in the name; the values look like {best.unit}")
    if not best.usual:
        judged.unsure.append(f"the median is unusual for {measure.name} in {best.unit}")
