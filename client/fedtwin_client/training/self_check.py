"""A node's check of its own privacy: the moment and the independence test on what it would send.

Runs the very code that answers tasks, with the cryptographic noise, on made-up patients of the
plan's shape; no record of the hospital is read, so the findings may be shown to anybody. It says
nothing of a program that the site has installed for another model family.
"""

from dataclasses import replace
from math import ceil, prod, sqrt
from typing import Any, Final

import numpy as np

from fedtwin_client.training.built_in import BuiltIn
from fedtwin_client.training.noise import Floats
from fedtwin_client.training.trial_rounds import FAR, REPORTED, AppOf, Made, TrialRounds, make_up
from fedtwin_protocol.parameters import flatten, initial_parameters, parameter_shapes
from fedtwin_protocol.payload import Array
from fedtwin_protocol.study import StudyPlan
from fedtwin_protocol.votes import VOTE_TASK
from fedtwin_twins.audits.finding import Finding
from fedtwin_twins.audits.independence import (
    ExactSum,
    Rows,
    measure_mixing,
    measure_move,
    mixing_finding,
    move_finding,
)
from fedtwin_twins.audits.moments import (
    Probe,
    measure_moments,
    moments_finding,
    patients_for_probe,
)

_PATIENTS: Final = 60


def check_privacy(plan: StudyPlan, seed: int, app_of: AppOf = BuiltIn) -> list[Finding]:
    """Audit everything that this node would send in a study.

    Args:
        plan: the study; in mode `none` only the independence of patients is tested.
        seed: of the made-up patients; the noise is cryptographic and never repeats.
        app_of: makes the app that answers tasks.

    Raises:
        PlanError: the model family is not built in.
    """
    findings = [check_independence(plan, seed, app_of)]
    if _shares_a_shift(plan):
        findings.append(check_move(plan, seed, app_of))
    if plan.privacy.mode == "none":
        return findings
    findings.append(check_training(plan, seed, app_of))
    findings.append(check_count(plan, seed, app_of))
    if plan.privacy.evaluation_noise is not None:
        findings.append(check_table(plan, seed, app_of))
    if plan.privacy.vote_noise is not None:
        findings.append(check_vote(plan, seed, app_of))
    return findings


def check_independence(plan: StudyPlan, seed: int, app_of: AppOf = BuiltIn) -> Finding:
    """The exact sums of one step, with everybody and without noise, must be additive."""
    whole, rows = _exact_sum(plan, seed, app_of)
    shared = prod(parameter_shapes(plan)["site_moments"]) if _shares_a_shift(plan) else 0

    def additive(some: Rows) -> Floats:
        summed = whole(some)
        return summed[: len(summed) - shared]

    mixing = measure_mixing(additive, rows, plan.privacy.clipping_norm, seed)
    return mixing_finding("independence", mixing)


def check_move(plan: StudyPlan, seed: int, app_of: AppOf = BuiltIn) -> Finding:
    """What a site's patients share must stay within the bound of the whole sum."""
    whole, rows = _exact_sum(plan, seed, app_of)
    return move_finding("site-shift", measure_move(whole, rows, plan.privacy.clipping_norm))


def _shares_a_shift(plan: StudyPlan) -> bool:
    return plan.population is not None and plan.population.site_variance_ratio > 0


def _exact_sum(plan: StudyPlan, seed: int, app_of: AppOf) -> tuple[ExactSum, Rows]:
    """The sum of one step, with everybody and without noise, and made-up patients for it."""
    bare = _changed(plan, "privacy", mode="none", sampling_rate=1.0)
    # So long a step that it is the sum itself, not a small difference of parameters.
    bare = _changed(_audited(bare), "training", local_steps=1, learning_rate=REPORTED)
    parameters = _parameters(bare, seed)

    def exact_sum(rows: Rows) -> Floats:
        return TrialRounds(bare, "train", parameters, app_of).release(Made(**rows), 0)

    made = make_up(bare, _PATIENTS, seed)
    features = made.features.copy()
    features[::7] *= FAR  # some unlike the others, so that shared statistics move
    return exact_sum, made.arrays() | {"features": features}


def check_training(plan: StudyPlan, seed: int, app_of: AppOf = BuiltIn) -> Finding:
    """The moment test of a round's update."""
    audited = _audited(plan)
    parameters = _parameters(audited, seed)
    privacy, steps = plan.privacy, plan.training.local_steps
    rate, clip = privacy.sampling_rate, privacy.clipping_norm
    rounds = TrialRounds(audited, "train", parameters, app_of)
    claim = replace(
        rounds.claim(clip, privacy.noise_multiplier * sqrt(steps)),
        patient_bound=rate * steps * clip,
        sampling_variance=rate * (1 - rate) * steps * clip**2,
    )
    # On a sample, or after a step at the site, only nobody's sum varies by its noise alone.
    quiet = make_up(audited, _PATIENTS if rate == 1 and steps == 1 else 0, seed)
    more = patients_for_probe(claim, flatten(parameters).size)
    far = FAR * np.random.Generator(np.random.PCG64(seed)).choice(
        (-1.0, 1.0), len(plan.contract.columns)
    )
    if plan.endpoint.kind == "count" and float(parameters["weights"] @ far) > 0:
        far = -far  # whose mean is beyond all numbers counts as nobody, and would show nothing
    probes = [
        Probe(
            name=f"unlike patients with outcome {outcome:g}",
            rows=quiet.more(far, outcome, more, plan.endpoint.horizon_days),
            patients=more,
        )
        for outcome in (0.0, 1.0)
    ]
    seen = measure_moments(rounds.release, quiet, probes, claim)
    return moments_finding("moments-update", seen)


def check_count(plan: StudyPlan, seed: int, app_of: AppOf = BuiltIn) -> Finding:
    """The moment test of the cohort count, well above where it is held at the smallest cohort."""
    noise = plan.privacy.cohort_count_noise
    audited = plan if plan.privacy.mode == "local" else _audited(plan)
    rounds = TrialRounds(audited, "query.cohort", {}, app_of)
    claim = rounds.claim(1.0, noise)
    if plan.privacy.mode == "local":  # it is rounded to whole patients
        claim = replace(claim, noise_sd=sqrt(noise**2 + 1 / 12))
    quiet = make_up(plan, plan.sites.smallest_cohort + ceil(10 * noise), seed)
    more = patients_for_probe(claim, 1)
    probe = Probe(name="more patients", rows=quiet.repeated(more), patients=more)
    return moments_finding("moments-count", measure_moments(rounds.release, quiet, [probe], claim))


def check_table(plan: StudyPlan, seed: int, app_of: AppOf = BuiltIn) -> Finding:
    """The moment test of the hold-out table."""
    audited = _audited(plan)
    rounds = TrialRounds(audited, "evaluate", _parameters(audited, seed), app_of)
    claim = rounds.claim(1.0, plan.privacy.evaluation_noise or 0.0)
    quiet = make_up(audited, _PATIENTS, seed)
    more = patients_for_probe(claim, 2 * plan.evaluation.bins)
    probe = Probe(name="more held-out patients", rows=quiet.repeated(more), patients=more)
    return moments_finding("moments-table", measure_moments(rounds.release, quiet, [probe], claim))


def check_vote(plan: StudyPlan, seed: int, app_of: AppOf = BuiltIn) -> Finding:
    """The moment test of a vote on a candidate that costs a patient as much as any may."""
    audited = _audited(plan)
    rounds = TrialRounds(audited, VOTE_TASK, _parameters(audited, seed), app_of)
    claim = rounds.claim(1.0, plan.privacy.vote_noise or 0.0)
    quiet = make_up(audited, _PATIENTS, seed)
    more = patients_for_probe(claim, 1)
    probes = [
        Probe(
            name=f"unlike held-out patients with outcome {outcome:g}",
            rows=quiet.more(FAR * quiet.features[0], outcome, more, plan.endpoint.horizon_days),
            patients=more,
        )
        for outcome in (0.0, 1.0)
    ]
    return moments_finding("moments-vote", measure_moments(rounds.release, quiet, probes, claim))


def _parameters(plan: StudyPlan, seed: int) -> dict[str, Array]:
    """The plan's shapes with values off the start, where more of a gradient is at work."""
    generator = np.random.Generator(np.random.PCG64(seed + 2))
    return {
        name: (array + 0.3 * generator.standard_normal(array.shape)).astype(array.dtype)
        for name, array in initial_parameters(plan).items()
    }


def _audited(plan: StudyPlan) -> StudyPlan:
    """Without the penalty, which needs no data, and without the smallest cohort."""
    return _changed(_changed(plan, "model", l2=0.0), "sites", smallest_cohort=0)


def _changed(plan: StudyPlan, part: str, **values: Any) -> StudyPlan:
    """A copy of a plan with numbers of one part changed; it is audited and never signed."""
    return plan.model_copy(update={part: getattr(plan, part).model_copy(update=values)})
