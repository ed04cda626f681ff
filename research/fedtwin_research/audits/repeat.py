"""Repeating what can be repeated of a study's audits without the sites' data.

The plan's mechanism, written again here, runs on made-up patients of the plan's columns; attackers
then try what they would try on the real thing:

1. *epsilon*: the stated figure against the plan's own numbers.
2. *membership*: LiRA on models that were learned from half of a small pool whose outcomes are coin
   flips. Only memory can tell who was in; without protection the same attack must find many more.
3. *inversion*: the first layer's gradient of one patient, as it would be sent.
   A network that reads records is attacked on patients with one record each; of the other families
   that read records these two are not repeated, and it is said (`families.why_not`).
4. *one-run-bound*: canaries with a number of their own each; the auditor sends the same parameters
   in every round, as a dishonest coordinator could.

A mechanism that promises nothing (mode `none`) is attacked all the same, and held to nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf, isfinite, sqrt
from typing import Final

import numpy as np

from fedtwin_protocol.parameters import flatten, initial_parameters
from fedtwin_protocol.study import StudyPlan
from fedtwin_research.audits.families import family_of, why_not
from fedtwin_research.audits.family import Family, Floats
from fedtwin_research.audits.linear import Linear
from fedtwin_research.audits.pools import made_inputs, made_outcomes, overfitting_pool
from fedtwin_research.audits.shadows import learn_as_planned, learn_openly
from fedtwin_twins.audits.finding import Finding
from fedtwin_twins.audits.inversion import cosines, inversion_finding, read_record
from fedtwin_twins.audits.membership import (
    Curve,
    attack,
    membership_finding,
    most_found,
)
from fedtwin_twins.audits.one_run import (
    best_guesses,
    epsilon_bound,
    one_run_finding,
    right_guesses,
)

CANARIES: Final = 1000
RECORDS: Final = 200
TOLERANCE: Final = 1e-3
_FAR: Final = 1e3

Cost = Callable[[StudyPlan], float]
"""Epsilon that a plan costs its worst patient, at the plan's delta; infinite without noise."""
Progress = Callable[[str], None]

NOT_REPEATED: Final = (
    "the moment and independence tests of the software at the sites: each hospital runs "
    "'fedtwin client check --privacy'",
    "the figures on held-out patients and the counts: they came from records, with noise",
    "what each site's ledger holds: the hospital prints it with 'fedtwin client ledger'",
    "that the sites' records were as the feature contract says",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Attacked:
    """What attacks on shadow models saw.

    Attributes:
        private: how well members are told from others, learned as planned.
        unprotected: the same, learned without clip and noise.
        cosines: of what inversion read with the record, as sent.
        open_cosines: the same without noise.
    """

    private: Curve
    unprotected: Curve
    cosines: Floats
    open_cosines: Floats


@dataclass(frozen=True, kw_only=True, slots=True)
class Repeated:
    """What was repeated.

    Attributes:
        findings: one for each audit.
        not_repeated: sentences about what was not, and what was done instead.
        attacked: what the plots show; none where shadow models of the family are not learned here.
    """

    findings: tuple[Finding, ...]
    not_repeated: tuple[str, ...]
    attacked: Attacked | None


def repeat_audits(
    plan: StudyPlan, seed: int, cost: Cost, progress: Progress = lambda _: None
) -> Repeated:
    """Repeat the audits of a plan's mechanism, as far as that is possible here.

    Args:
        plan: of a built-in family.
        seed: of everything; the same seed gives the same figures.
        cost: the accountant.
        progress: told what is done next.

    Raises:
        ReleaseError: the family or mechanism is not known here.
        PlanError: the plan cannot be priced.
    """
    family, promises = family_of(plan), plan.privacy.mode != "none"
    findings, attacked = [], None
    if promises:
        progress("pricing the plan")
        findings.append(epsilon_finding(plan, cost(plan)))
    if family is not None:
        attacked = _attack(plan, family, seed, progress)
        allowed = _allowed(plan)
        findings.append(
            membership_finding(attacked.private, attacked.unprotected, allowed, "membership")
        )
        inverted = inversion_finding(attacked.open_cosines, attacked.cosines, "inversion")
        findings.append(inverted if promises else _held_to_nothing(inverted, 1.0))
    if promises:
        progress("bounding epsilon from one run")
        findings.append(one_run(plan, seed))
    reason = why_not(plan)
    return Repeated(
        findings=tuple(findings),
        not_repeated=(*([reason] if reason else []), *NOT_REPEATED),
        attacked=attacked,
    )


def _attack(plan: StudyPlan, family: Family, seed: int, progress: Progress) -> Attacked:
    progress("looking for members (LiRA)")
    private, unprotected = membership_curves(plan, family, seed)
    progress("inverting updates")
    shown, open_shown = inversion_cosines(plan, family, seed)
    return Attacked(
        private=private, unprotected=unprotected, cosines=shown, open_cosines=open_shown
    )


def epsilon_finding(plan: StudyPlan, found: float) -> Finding:
    """The stated epsilon against what the plan costs."""
    privacy = plan.privacy
    return Finding(
        name="epsilon",
        asks="the plan's noise and steps cost no more than the epsilon that is stated",
        result=found if isfinite(found) else 1e9,
        threshold=privacy.epsilon * (1 + TOLERANCE),
        passed=found <= privacy.epsilon * (1 + TOLERANCE),
        reading=(
            f"{plan.steps} steps with noise {privacy.noise_multiplier:g} and the counts cost "
            f"epsilon {found:.4f} at delta {privacy.delta:g}; stated {privacy.epsilon:g}"
        ),
    )


def membership_curves(plan: StudyPlan, family: Family, seed: int) -> tuple[Curve, Curve]:
    """LiRA on models learned as planned, and on models learned without protection."""
    pool = overfitting_pool(plan, seed)
    curves = []
    for models in (
        learn_as_planned(plan, family, pool, seed + 3),
        learn_openly(plan, family, pool),
    ):
        scores = family.confidence(models, pool.features, pool.outcomes)
        curves.append(attack(scores, pool.taken))
    return curves[0], curves[1]


def inversion_cosines(plan: StudyPlan, family: Family, seed: int) -> tuple[Floats, Floats]:
    """Cosines with the record of what is read off one patient's update, with noise and without."""
    made = made_inputs(plan, 2 * RECORDS, seed + 4)
    records = made[np.linalg.norm(made, axis=1) > 0][:RECORDS]  # nothing is no record to find
    generator = np.random.Generator(np.random.PCG64(seed + 5))
    outcomes = made_outcomes(plan, generator.random(len(records)) < 0.5)
    start = np.tile(flatten(initial_parameters(plan)), (len(records), 1))
    clip, alone_each = plan.privacy.clipping_norm, np.eye(len(records), dtype=np.bool_)
    alone = family.clipped_sums(start, records, outcomes, alone_each, clip)
    # Steps within a round leave together: their noise is averaged.
    sd = plan.privacy.noise_multiplier * clip / sqrt(plan.training.local_steps)
    noise = sd * generator.standard_normal(alone.shape) if plan.privacy.mode != "none" else 0.0
    shown, open_shown = (
        cosines(read_record(*family.first_layer(update)), records)
        for update in (alone + noise, alone)
    )
    return shown, open_shown


def one_run(plan: StudyPlan, seed: int) -> Finding:
    """The lower bound on epsilon from one run of the plan's clip, noise, sampling and steps.

    All four are the same for every family, so the canaries are those of a logistic regression.
    """
    privacy, steps = plan.privacy, plan.steps
    generator = np.random.Generator(np.random.PCG64(seed + 6))
    taken = generator.random(CANARIES) < 0.5
    family = Linear(CANARIES)
    canaries = _FAR * np.eye(CANARIES)
    still = np.zeros((1, CANARIES + 1))
    sd = privacy.noise_multiplier * privacy.clipping_norm
    whole = family.clipped_sums(
        still, canaries, np.ones(CANARIES), taken[None], privacy.clipping_norm
    )[0, :CANARIES]
    # Canaries do not meet in their own numbers, so a sample of them is a sample of these.
    rounds = generator.binomial(steps, privacy.sampling_rate, CANARIES)
    # A canary is a patient seen at as many hospitals as the plan reckons with.
    seen = hospitals_in_noise(plan)
    scores = -whole * rounds * seen + sd * sqrt(steps) * generator.standard_normal(CANARIES)
    guesses = best_guesses(CANARIES, _mu(plan), privacy.delta)
    right = right_guesses(scores, taken.astype(np.float64), guesses)
    bound = epsilon_bound(CANARIES, guesses, right, privacy.delta)
    return one_run_finding(bound, privacy.epsilon, CANARIES, guesses, right)


def hospitals_in_noise(plan: StudyPlan) -> float:
    """How much louder a patient at several hospitals is than one at a single hospital.

    In a secure sum the contributions add up under one noise; in mode `local` each hospital's noise
    adds up with them.
    """
    hospitals = plan.privacy.hospitals_per_patient
    return float(hospitals) if plan.privacy.mode == "secure" else sqrt(hospitals)


def _mu(plan: StudyPlan) -> float:
    """How far apart the scores of a canary in and out are, in units of their noise."""
    privacy = plan.privacy
    signal = hospitals_in_noise(plan) * privacy.sampling_rate * plan.steps
    sampling = privacy.sampling_rate * (1 - privacy.sampling_rate) * plan.steps
    return signal / sqrt(plan.steps * privacy.noise_multiplier**2 + sampling)


def _allowed(plan: StudyPlan) -> float:
    """Members that the stated privacy lets anybody find."""
    epsilon = plan.privacy.epsilon if plan.privacy.mode != "none" else inf
    return most_found(epsilon, plan.privacy.delta)


def _held_to_nothing(finding: Finding, threshold: float) -> Finding:
    return Finding(
        name=finding.name,
        asks=finding.asks,
        result=finding.result,
        threshold=threshold,
        passed=True,
        reading=f"{finding.reading}; nothing is promised",
    )
