"""A study in plain words, for the officer of a hospital who must decide on it.

Everything said here is read from the signed plan; nothing is promised that the plan does not fix.
"""

import math
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fedtwin_protocol.contract import Feature
from fedtwin_protocol.parameters import BUILT_IN_FAMILIES, summed_shapes
from fedtwin_protocol.secure_terms import secure_terms
from fedtwin_protocol.study import StudyPlan


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """A heading and what is said under it.

    Attributes:
        title: the heading.
        lines: sentences.
        table: rows of cells under them, the first row the columns' names; may be empty.
    """

    title: str
    lines: tuple[str, ...]
    table: tuple[tuple[str, ...], ...] = ()


def describe(plan: StudyPlan) -> tuple[Section, ...]:
    """The study, section by section."""
    return (
        _question(plan),
        _patients(plan),
        _data(plan),
        _leaving(plan),
        _privacy(plan),
        _staying(plan),
        _result(plan),
    )


def as_text(sections: Iterable[Section], width: int = 88) -> str:
    """The sections as plain text of lines of at most `width` characters, tables excepted."""
    blocks = []
    for section in sections:
        lines = [section.title.upper()]
        for line in section.lines:
            lines += textwrap.wrap(line, width, initial_indent="- ", subsequent_indent="  ")
        lines += _aligned(section.table)
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) + "\n"


def noised_numbers(plan: StudyPlan) -> int:
    """How many numbers one training update of a built-in family holds; 0 for other families."""
    if plan.model.family not in BUILT_IN_FAMILIES:
        return 0
    return sum(math.prod(shape) for shape in summed_shapes(plan).values())


_ASKED = {
    "event": "any event",
    "time_to_event": "when the first event comes",
    "value": "the first value",
    "count": "how many events",
}


def _question(plan: StudyPlan) -> Section:
    endpoint = plan.endpoint
    if endpoint.kind == "value_above":
        what = f"a value above {endpoint.threshold:g} {endpoint.unit} of {_codes(endpoint.codes)}"
    else:
        what = f"{_ASKED[endpoint.kind]} with {_codes(endpoint.codes)}"
    lines = (
        f"Consortium '{plan.consortium}' asks: {plan.title}",
        f"Purpose: {plan.purpose}",
        f"What is learned: {_learned(plan)} of '{endpoint.name}', that is {what} within "
        f"{_days(endpoint.horizon_days)} after the index date.",
        *(
            [f"It is learned as its {endpoint.transform.replace('_', ' ')}."]
            if endpoint.transform != "none"
            else []
        ),
        *(
            [f"It is learned from {endpoint.bounds_in_words}; more or less counts as the bound."]
            if endpoint.bounds_in_words
            else []
        ),
        f"Model: {_family(plan)}; no program code comes with the study.",
        f"Plan {plan.study}, version {plan.version}, fingerprint {plan.hash[:16]}.",
    )
    return Section(title="The question", lines=lines)


def _learned(plan: StudyPlan) -> str:
    return "the population's values" if plan.population is not None else f"the {plan.question}"


def _patients(plan: StudyPlan) -> Section:
    cohort = plan.cohort
    if cohort.index.date is not None:
        index = f"{cohort.index.date:%d %B %Y}"
    else:
        index = f"the {cohort.index.which} record of {_codes(cohort.index.codes)}"
    lines = [
        f"Index date: {index}. A prediction uses only what was known by then.",
        f"Age at the index date: {cohort.minimum_age_years:g} to {cohort.maximum_age_years:g} "
        "years, inclusive.",
    ]
    if cohort.require_codes:
        lines.append(f"Only patients with, by then, {_codes(cohort.require_codes)}.")
    if cohort.exclude_codes:
        lines.append(f"Not patients with, by then, {_codes(cohort.exclude_codes)}.")
    if cohort.holdout_fraction:
        lines.append(
            f"{cohort.holdout_fraction:.0%} of them are held out: never trained on, used only to "
            "test the model."
        )
    lines.append(
        f"This hospital takes part only with at least {plan.sites.smallest_cohort} such patients, "
        "and does not say why if it does not."
    )
    return Section(title="Which patients", lines=tuple(lines))


def _data(plan: StudyPlan) -> Section:
    head = ("name", "codes", "unit", "window", "if missing")
    line = (
        f"{len(plan.features)} items are read of each patient's record, here in the hospital, "
        "besides what decides who takes part and the outcome named above. Nothing else is read."
    )
    lines = [line]
    if plan.sequence is not None:
        words = plan.sequence.vocabulary
        lines.append(
            f"Besides, the last {plan.sequence.most_records} records by the index date with one of "
            f"{len(words)} codes: {_codes([word.code for word in words])}."
        )
    return Section(
        title="Which data are read",
        lines=tuple(lines),
        table=(head, *map(_feature_row, plan.features)),
    )


def _leaving(plan: StudyPlan) -> Section:
    privacy = plan.privacy
    lines = [
        f"Once: how many patients take part{_as_part(plan)}, "
        + _noised(privacy.cohort_count_noise, f"{privacy.cohort_count_noise:g} patients")
        + ".",
        f"At most {_times(plan.training.rounds)}, once a round: {_update(plan)}.",
    ]
    if privacy.evaluation_noise is None:
        besides = "" if privacy.vote_noise is None else ", besides the vote below,"
        lines.append(f"No result of testing the model on this hospital's patients{besides} leaves.")
    else:
        noise = _noised(privacy.evaluation_noise, f"{privacy.evaluation_noise:g} patients")
        lines.append(
            f"Once, at the end: a table of {2 * plan.evaluation.bins} counts of held-out patients "
            f"(predicted risk in {plan.evaluation.bins} steps, by outcome){_as_part(plan)}, each "
            f"{noise}."
        )
    if privacy.vote_noise is not None:
        noise = _noised(privacy.vote_noise, f"{privacy.vote_noise:g} patients")
        lines.append(
            f"At most {_times(plan.training.rounds)}, once a round: one number that says whether "
            f"the held-out patients are worse off with the new model than with the last good one, "
            f"{noise}. The other hospitals' votes are asked as well; a round that most find worse "
            "is thrown away."
        )
    lines.append(
        "Besides: the decision to take part, the software's version, faults as a sentence without "
        "patients' data, and a sign of life every few seconds."
    )
    return Section(title="What leaves the hospital", lines=tuple(lines))


def _privacy(plan: StudyPlan) -> Section:
    privacy = plan.privacy
    if privacy.mode == "none":
        lines: tuple[str, ...] = (
            "NONE IS PROMISED. What leaves is not protected by noise; it can reveal single "
            "patients. Accept this only for data that may be given away.",
        )
        return Section(title="Privacy", lines=lines)
    factor = math.exp(privacy.epsilon)
    lines = (
        "The unit is the patient, with all records here. What leaves looks almost the same whether "
        "or not any one patient takes part.",
        f"Epsilon {privacy.epsilon:g}: by a factor of {factor:.3g} (e to the {privacy.epsilon:g}) "
        "at most can what leaves in this study change anybody's odds that a given patient's record "
        "was used, whatever else they know or own.",
        f"Delta {privacy.delta:g}: the chance, at most, that this bound does not hold, about 1 in "
        f"{round(1 / privacy.delta):,}.",
        f"One patient's part in a training update is cut to size {privacy.clipping_norm:g}.",
        *(_sums_in_words(plan) if privacy.mode == "secure" else _own_noise_in_words(plan)),
        _several_hospitals(privacy.hospitals_per_patient),
        "This hospital recomputes these figures from the plan, enters every use in its own ledger "
        "before it happens, and refuses what the ledger does not allow.",
    )
    if plan.model.family not in BUILT_IN_FAMILIES:
        lines += (
            "All this holds only if the program that this hospital's IT has installed for "
            f"'{plan.model.family}' cuts and adds noise as stated; the node does not check it.",
        )
    return Section(title="Privacy", lines=lines)


def _own_noise_in_words(plan: StudyPlan) -> tuple[str, ...]:
    return (
        f"Noise of {plan.privacy.noise_multiplier:g} times that size is added here, before "
        "anything leaves. It protects against everybody outside this hospital, the coordinator "
        "included.",
    )


def _sums_in_words(plan: StudyPlan) -> tuple[str, ...]:
    """Who sees what, and on whom it rests; by numbers only where the plan names its sites."""
    privacy = plan.privacy
    lines: tuple[str, ...] = (
        "Nobody outside sees this hospital's part of a sum: it leaves under masks that fall away "
        "only when all parts are added up. The coordinator sees the sum over all hospitals.",
        f"The sum carries noise of {privacy.noise_multiplier:g} times that size, of which every "
        "hospital adds a share. Against the others, and against anybody who is told what they "
        "added, only this hospital's own share protects.",
    )
    if plan.sites.invited:
        terms = secure_terms(plan)
        lines += (
            f"{len(terms.sites)} hospitals are named. The promise holds although "
            f"{terms.may_vanish} of them vanish and {terms.colluding} are in league with the "
            f"coordinator; with fewer than {terms.threshold} hospitals there is no sum.",
        )
    return lines


def _several_hospitals(many: int) -> str:
    if many == 1:
        return (
            "The plan says that nobody has records in several of its hospitals; for somebody who "
            "has, the bounds of these hospitals add up."
        )
    return f"It holds for somebody with records in up to {many} of the hospitals, too."


def _staying(plan: StudyPlan) -> Section:
    lines = (
        "Records, names, numbers and dates of patients; single predictions; and who takes part.",
        "How well the model does for this hospital in detail, and the local recalibration"
        + (
            ", that is by how much its patients differ from the population."
            if plan.population
            else "."
        ),
        f"Counts below {plan.sites.smallest_cell} are not shown in anything that is published.",
    )
    return Section(title="What does not leave", lines=lines)


def _result(plan: StudyPlan) -> Section:
    readers = " and ".join(
        {"site": "the hospitals that are members", "researcher": "the consortium's researchers"}[
            reader
        ]
        for reader in plan.readers
    )
    until = (
        f"The study ends by {plan.expires:%d %B %Y}."
        if plan.expires
        else "No end date is set; the study ends with its last round."
    )
    lines = (
        f"A signed model with a card that says what it was made of and how well it does, for "
        f"{readers or 'nobody'}.",
        until,
        "This hospital can leave at any time; what it has sent by then stays in the model.",
        *(f"Limits stated by the authors: {limit}" for limit in plan.limits),
    )
    return Section(title="Who gets the result, and until when", lines=lines)


def _as_part(plan: StudyPlan) -> str:
    return ", as this hospital's masked part of a sum" if plan.privacy.mode == "secure" else ""


def _update(plan: StudyPlan) -> str:
    count = noised_numbers(plan)
    numbers = f"{count} numbers" if count else "as many numbers as the model has parameters"
    rate = plan.privacy.sampling_rate
    if plan.population is not None:
        what = f"{numbers}, {_MOMENTS}"
        if plan.population.site_variance_ratio > 0:
            what += ", and products of two such sums of this hospital"
    elif plan.training.summed:
        whom = "all patients" if rate == 1 else f"a random {rate:.1%} of the patients"
        what = f"{numbers}, the sum over {whom} of the direction that would improve the model"
    else:
        what = (
            f"{numbers}, the model after {plan.training.local_steps} steps of training here, each "
            f"on a random {rate:.1%} of the patients"
        )
    noise = plan.privacy.noise_multiplier * plan.privacy.clipping_norm
    where = "" if plan.training.summed else " in every step"
    what += _as_part(plan)
    return f"{what}, {_noised(noise, f'{noise:.3g} in each number')}{where if noise else ''}"


_MOMENTS = (
    "sums over all patients of products of two of the items read, the outcome among them, from "
    "which the population's values follow"
)


def _noised(noise: float, words: str) -> str:
    return f"blurred by random noise of standard deviation {words}" if noise else "WITHOUT noise"


def _family(plan: StudyPlan) -> str:
    columns = len(plan.contract.columns)
    if plan.model.family == "logistic_regression":
        return f"a logistic regression of {columns} columns"
    if plan.model.family == "network":
        hidden = "-".join(str(width) for width in plan.model.hidden) or "no"
        return f"a neural network of {columns} columns with {hidden} hidden units"
    if plan.model.family in BUILT_IN_FAMILIES:
        return f"a {plan.model.family.replace('_', ' ')} of {columns} columns"
    return f"'{plan.model.family}', which this hospital's IT must have installed"


def _feature_row(feature: Feature) -> tuple[str, ...]:
    origin = {"age": "date of birth", "sex": "recorded sex"}.get(feature.kind, "")
    return (
        feature.name,
        _codes(feature.codes) if feature.codes else origin,
        {"1": "", "a": "years"}.get(feature.unit, feature.unit),
        _window(feature),
        _if_missing(feature),
    )


def _window(feature: Feature) -> str:
    if feature.kind in {"age", "sex"}:
        return ""
    days = feature.window_days
    reach = "any time before" if days is None else f"{_days(days)} before"
    if feature.counts:
        return f"how many, {reach}"
    return reach if feature.kind == "presence" else f"{feature.summary}, {reach}"


def _if_missing(feature: Feature) -> str:
    if feature.counts:
        return "no record counts as 0"
    if feature.kind == "presence":
        return "no record counts as no"
    if feature.missing == "exclude":
        return "patient left out"
    usual = "no category" if feature.kind == "category" else f"{feature.center:g}"
    return f"{usual} is assumed" + (" and marked" if feature.missing == "flag" else "")


def _codes(codes: Sequence[str]) -> str:
    shown = [code.replace("//", " ", 1) for code in codes[:6]]
    more = f" and {len(codes) - 6} more codes" if len(codes) > 6 else ""
    return " or ".join(shown) + more


def _days(days: int) -> str:
    years = round(days / 365.25)
    if years and abs(days - years * 365.25) < 3:
        return f"{years} years" if years > 1 else "1 year"
    return f"{days} days" if days != 1 else "1 day"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _aligned(table: Sequence[Sequence[str]]) -> list[str]:
    if not table:
        return []
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    return [
        "  "
        + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    ]
