"""Writing a model card at the end of a study, from the plan and what the sites reported.

Everything that comes in was noised at the sites or is public, so a card adds nothing to what an
attacker could learn; a count below the plan's smallest cell is still not shown.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedtwin_protocol.card import (
    Calibration,
    CalibrationBin,
    Mechanism,
    Metric,
    ModelCard,
    SiteFacts,
)
from fedtwin_protocol.card_audits import NO_AUDITS, Audit
from fedtwin_protocol.errors import ReleaseError
from fedtwin_protocol.hold_out import hold_out_metrics, metric_noise
from fedtwin_protocol.secure_terms import secure_terms
from fedtwin_protocol.study import StudyPlan

ALL_SITES: Final = "all sites"


@dataclass(frozen=True, kw_only=True, slots=True)
class RunFacts:
    """What the coordinator knows at the end of a study.

    Attributes:
        patients: reported (noised) cohort count by site.
        rounds_used: rounds in which a site's update was used, by site.
        rounds: whole rounds that were taken, those that went wrong among them.
        gone_wrong: rounds that were thrown away, with the reason.
        tables: noised hold-out table by site, (bins, 2): counts by predicted risk and outcome
            (no, yes); empty where the plan buys no evaluation.
        software: versions by name.
        created: the time of writing, aware.
        audits: results of privacy audits of this plan and model.
        all_patients: noised count of all sites together, where none is known of each.
        tables_of: sites behind a table of all of them together.
    """

    patients: Mapping[str, float]
    rounds_used: Mapping[str, int]
    rounds: int
    created: datetime
    tables: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    software: Mapping[str, str] = field(default_factory=dict)
    audits: tuple[Audit, ...] = ()
    all_patients: float | None = None
    tables_of: int = 0
    gone_wrong: Mapping[int, str] = field(default_factory=dict)


def write_card(plan: StudyPlan, facts: RunFacts) -> ModelCard:
    """Write the card of a finished study.

    Args:
        plan: the signed plan.
        facts: what the coordinator knows; all of it already noised at the sites.

    Raises:
        ReleaseError: a table has another shape than the plan's, or a site without a count.
    """
    return ModelCard(
        study=plan.study,
        version=plan.version,
        consortium=plan.consortium,
        plan_hash=plan.hash,
        title=plan.title,
        question=plan.question,
        purpose=plan.purpose,
        endpoint=endpoint_in_words(plan),
        population=population_in_words(plan),
        features=plan.features,
        columns=plan.contract.columns,
        model=_model_in_words(plan),
        sites=_sites(plan, facts),
        patients=_all_patients(plan, facts),
        rounds=facts.rounds,
        rounds_gone_wrong=tuple(
            f"round {number}: {reason}" for number, reason in sorted(facts.gone_wrong.items())
        ),
        privacy=_mechanism(plan, facts.rounds),
        metrics=_metrics(plan, facts),
        calibration=_calibrations(plan, facts),
        recalibration=_recalibration(plan),
        limits=(*plan.limits, *_LIMITS, *(() if facts.audits else (NO_AUDITS,))),
        software=dict(facts.software),
        created=facts.created,
        audits=facts.audits,
    )


_ASKED = {
    "event": "any of",
    "time_to_event": "the time to the first of",
    "value": "the first value of",
    "count": "the number of",
}


def endpoint_in_words(plan: StudyPlan) -> str:
    """The endpoint as a sentence."""
    endpoint = plan.endpoint
    codes = ", ".join(endpoint.codes)
    if endpoint.kind != "value_above":
        what = f"{_ASKED[endpoint.kind]} {codes}"
    else:
        what = f"the first of {codes} above {endpoint.threshold:g} {endpoint.unit}"
    bounds = f", learned from {endpoint.bounds_in_words}" if endpoint.bounds_in_words else ""
    if endpoint.transform != "none":
        bounds += f", as its {endpoint.transform.replace('_', ' ')}"
    return (
        f"{endpoint.name}: {what}, within {endpoint.horizon_days} days after the index date{bounds}"
    )


def population_in_words(plan: StudyPlan) -> str:
    """The cohort as a sentence."""
    cohort = plan.cohort
    if cohort.index.date is not None:
        index = cohort.index.date.date().isoformat()
    else:
        index = f"the {cohort.index.which} of {', '.join(cohort.index.codes)}"
    text = (
        f"patients aged {cohort.minimum_age_years:g} to {cohort.maximum_age_years:g} years at the "
        f"index date ({index})"
    )
    if cohort.require_codes:
        text += f", with one of {', '.join(cohort.require_codes)}"
    if cohort.exclude_codes:
        text += f", without {', '.join(cohort.exclude_codes)}"
    return text


_RECALIBRATION = (
    "Hospitals differ in {differ}. Before use, fit slope and intercept of the predicted {what} on "
    "your own patients; the two numbers never need to leave the hospital."
)
_RECALIBRATED = {
    "value": ("their patients and in how they measure", "values"),
    "count": ("how common the outcome is", "log counts"),
}


_SITE_EFFECT = (
    "The weights are the noised sum that the population values follow from ('fedtwin research "
    "population' shows them). Hospitals differ: 'fedtwin client report' adds what your own "
    "patients say beyond them, and nothing of that needs to leave the hospital."
)


def _recalibration(plan: StudyPlan) -> str:
    if plan.population is not None:
        return _SITE_EFFECT
    differ, what = _RECALIBRATED.get(plan.endpoint.kind, ("how common the outcome is", "log-odds"))
    return _RECALIBRATION.format(differ=differ, what=what)


_LIMITS = (
    "A research model: not a medical device, and no decision about a patient may rest on it alone.",
    "It describes association, not the effect of a treatment.",
    "Sites with few patients, and groups that are rare at every site, are described less well.",
)
_COUNTS = {"patients", "outcomes"}
_PROTECTION = {
    "secure": (
        "Only sums over all sites can be seen, by anybody, coordinator included, and each carries "
        "noise that the sites added in shares. Any sum would have looked almost the same without "
        "any one patient: odds change by a factor of at most exp(epsilon), except with probability "
        "delta. It holds although as many sites as the plan says vanish, and as many as it says "
        "are in league with the coordinator."
    ),
    "local": (
        "Each site adds noise to everything before it leaves. Whatever anybody outside the site "
        "sees, coordinator included, would have looked almost the same without any one patient: "
        "odds change by a factor of at most exp(epsilon), except with probability delta."
    ),
    "none": "Nothing: no noise was added. Only for data that may be shared as they are.",
}
_ACCOUNTANT = {
    "secure": (
        "Privacy loss distributions at each site, over the summed cohort count, every training sum "
        "and the summed hold-out table; Skellam noise and rounding accounted; neighbours differ by "
        "one patient with all records at every hospital that the plan reckons with"
    ),
    "local": (
        "Privacy loss distributions at each site, over the cohort count, every training step, "
        "the votes and the hold-out table; neighbours differ by one patient with all records"
    ),
    "none": "none: mode 'none' has no finite epsilon, and the stated figures do not hold",
}


def _mechanism(plan: StudyPlan, rounds: int) -> Mechanism:
    privacy = plan.privacy
    return Mechanism(
        mode=privacy.mode,
        clipping_norm=privacy.clipping_norm,
        noise_multiplier=privacy.noise_multiplier,
        sampling_rate=privacy.sampling_rate,
        steps=rounds * plan.training.local_steps,
        epsilon=privacy.epsilon,
        delta=privacy.delta,
        accountant=_ACCOUNTANT[privacy.mode],
        protects_against=_PROTECTION[privacy.mode],
        ledger="Each site's own ledger holds what was charged, written before noise was drawn.",
    )


def _model_in_words(plan: StudyPlan) -> str:
    text = f"{plan.model.family}, {len(plan.contract.columns)} columns"
    if plan.model.hidden:
        text += f", hidden layers {' - '.join(str(width) for width in plan.model.hidden)}"
    training = plan.training
    return f"{text}; {training.mechanism}, rule '{plan.aggregation.rule}', {training.rounds} rounds"


def _sites(plan: StudyPlan, facts: RunFacts) -> tuple[SiteFacts, ...]:
    if plan.privacy.mode == "secure":
        return tuple(
            SiteFacts(name=name, patients=None, rounds=used)
            for name, used in sorted(facts.rounds_used.items())
        )
    uncounted = sorted(set(facts.rounds_used) - set(facts.patients))
    if uncounted:
        raise ReleaseError(f"expected a cohort count of every site, found none of: {uncounted}")
    return tuple(
        SiteFacts(
            name=name,
            patients=_shown(facts.patients[name], plan.sites.smallest_cell),
            rounds=facts.rounds_used.get(name, 0),
        )
        for name in sorted(facts.patients)
    )


def _all_patients(plan: StudyPlan, facts: RunFacts) -> int | None:
    if facts.all_patients is None:
        return None
    return _shown(facts.all_patients, plan.sites.smallest_cell)


def _shown(count: float, smallest: int) -> int | None:
    rounded = round(count)
    return rounded if rounded >= smallest else None


def _summed(plan: StudyPlan, facts: RunFacts) -> tuple[NDArray[np.float64], float]:
    """The sum of the sites' tables and the noise sd of its cells."""
    total = np.sum([_checked(plan, name, table) for name, table in facts.tables.items()], axis=0)
    noise = plan.privacy.evaluation_noise or 0.0
    if plan.privacy.mode == "secure":
        honest = secure_terms(plan).honest_present
        return total, noise * float(np.sqrt(facts.tables_of / honest))
    noise = noise if plan.privacy.mode == "local" else 0.0
    return total, noise * float(np.sqrt(len(facts.tables)))


def _checked(plan: StudyPlan, name: str, table: NDArray[np.float64]) -> NDArray[np.float64]:
    expected = (plan.evaluation.bins, 2)
    if np.shape(table) != expected or not np.isfinite(table).all():
        raise ReleaseError(
            f"expected a finite hold-out table of shape {expected} of site '{name}', "
            f"found shape {np.shape(table)}"
        )
    return table


def _metrics(plan: StudyPlan, facts: RunFacts) -> tuple[Metric, ...]:
    """Figures of the summed table; counts, and a table of too few patients, are held back."""
    if not facts.tables:
        return ()
    table, noise_sd = _summed(plan, facts)
    values, noise = hold_out_metrics(table), metric_noise(table, noise_sd)
    smallest = plan.sites.smallest_cell
    if values["patients"] < smallest:
        return ()
    bought = (
        f"from {plan.evaluation.bins} bins of predicted risk by outcome, held-out patients of "
        f"{facts.tables_of or len(facts.tables)} sites, each cell of the sum with noise of sd "
        f"{noise_sd:.3g}"
    )
    moved = {name: f"; the noise alone moves it by {sd:.2g} (sd)" for name, sd in noise.items()}
    return tuple(
        Metric(name=name, value=round(value, 4), bought=bought + moved.get(name, ""))
        for name, value in values.items()
        if np.isfinite(value) and not (name in _COUNTS and value < smallest)
    )


def _calibrations(plan: StudyPlan, facts: RunFacts) -> tuple[Calibration, ...]:
    if not facts.tables:
        return ()
    table, noise_sd = _summed(plan, facts)
    found = [_calibration("all sites", table, noise_sd, plan.sites.smallest_cell)]
    if plan.evaluation.per_site and plan.privacy.mode != "secure":
        one_sd = noise_sd / float(np.sqrt(len(facts.tables)))
        found += [
            _calibration(name, facts.tables[name], one_sd, plan.sites.smallest_cell)
            for name in sorted(facts.tables)
        ]
    return tuple(found)


def _calibration(
    scope: str, table: NDArray[np.float64], noise_sd: float, smallest: int
) -> Calibration:
    """Bins of a noised table; negative cells, which only noise can make, count as zero."""
    cells = np.clip(table, 0, None)
    totals = cells.sum(axis=1)
    width = 1 / len(cells)
    bins = tuple(
        CalibrationBin(
            predicted=round((k + 0.5) * width, 6),
            observed=round(float(cells[k, 1] / totals[k]), 4),
            patients=round(float(totals[k])),
        )
        for k in range(len(cells))
        if totals[k] >= smallest
    )
    return Calibration(
        scope=scope, noise_sd=round(noise_sd, 4), bins=bins, left_out=len(cells) - len(bins)
    )
