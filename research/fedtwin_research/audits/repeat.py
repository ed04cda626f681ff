"""Repeating what can be repeated of a study's audits without the sites' data.

The plan's mechanism, written again here, runs on made-up patients of the plan's columns; attackers
then try what they would try on the real thing:

1. *epsilon*: the stated figure against the plan's own numbers.
2. *membership*: LiRA on models that were learned from half of a small pool whose outcomes are coin
   flips. Only memory can tell who was in; without protection the same attack must find many more.
3. *inversion*: the first layer's gradient of one patient, as it would be sent.
4. *one-run-bound*: canaries with a number of their own each; the auditor sends the same parameters
   in every round, as a dishonest coordinator could.

A mechanism that promises nothing (mode `none`) is attacked all the same, and held to nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf, isfinite, sqrt
from typing import Final

import numpy as np

from fedtwin_protocol.made_up import made_up_rows
from fedtwin_protocol.parameters import flatten, initial_parameters
from fedtwin_protocol.study import StudyPlan
from fedtwin_research.audits.families import Floats, Logistic, family_of
from fedtwin_research.audits.shadows import Pool, learn_as_planned, learn_openly
from fedtwin_twins.audits.finding import Finding
from fedtwin_twins.audits.inversion import cosines, inversion_finding, read_record
from fedtwin_twins.audits.membership import (
    Curve,
    attack,
    confidence,
    membership_finding,
    most_found,
    random_halves,
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
_JUDGEMENTS: Final = 60_000
_MOST_MODELS: Final = {"logistic_regression": 1024, "network": 192}

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
class Repeated:
    """What was repeated.

    Attributes:
        findings: one for each audit.
        private: how well members are told from others, learned as planned.
        unprotected: the same, learned without clip and noise.
        cosines: of what inversion read with the record, as sent.
        open_cosines: the same without noise.
    """

    findings: tuple[Finding, ...]
    private: Curve
    unprotected: Curve
    cosines: Floats
    open_cosines: Floats


def repeat_audits(
    plan: StudyPlan, seed: int, cost: Cost, progress: Progress = lambda _: None
) -> Repeated:
    """Repeat the audits of a plan's mechanism.

    Args:
        plan: of a built-in family.
        seed: of everything; the same seed gives the same figures.
        cost: the accountant.
        progress: told what is done next.

    Raises:
        ReleaseError: the family or mechanism is not known here.
        PlanError: the plan cannot be priced.
    """
    family_of(plan)
    findings = []
    if plan.privacy.mode != "none":
        progress("pricing the plan")
        findings.append(epsilon_finding(plan, cost(plan)))
    progress("looking for members (LiRA)")
    private, unprotected = membership_curves(plan, seed)
    allowed = _allowed(plan)
    findings.append(membership_finding(private, unprotected, allowed, "membership"))
    progress("inverting updates")
    shown, open_shown = inversion_cosines(plan, seed)
    inverted = inversion_finding(open_shown, shown, "inversion")
    findings.append(inverted if plan.privacy.mode != "none" else _held_to_nothing(inverted, 1.0))
    if plan.privacy.mode != "none":
        progress("bounding epsilon from one run")
        findings.append(one_run(plan, seed))
    return Repeated(
        findings=tuple(findings),
        private=private,
        unprotected=unprotected,
        cosines=shown,
        open_cosines=open_shown,
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


def membership_curves(plan: StudyPlan, seed: int) -> tuple[Curve, Curve]:
    """LiRA on models learned as planned, and on models learned without protection."""
    pool = overfitting_pool(plan, seed)
    family = family_of(plan)
    curves = []
    for models in (learn_as_planned(plan, pool, seed + 3), learn_openly(plan, pool)):
        scores = confidence(family.log_odds(models, pool.features), pool.outcomes)
        curves.append(attack(scores, pool.taken))
    return curves[0], curves[1]


def overfitting_pool(plan: StudyPlan, seed: int) -> Pool:
    """A pool so small that a model without protection learns its coin flips by heart."""
    columns = len(plan.contract.columns)
    patients = min(max(40, 4 * (columns + 1)), 1200)
    models = min(max(64, _JUDGEMENTS // patients), _MOST_MODELS[plan.model.family])
    generator = np.random.Generator(np.random.PCG64(seed + 1))
    return Pool(
        features=made_up_rows(plan.contract, patients, seed),
        outcomes=(generator.random(patients) < 0.5).astype(np.float64),
        taken=random_halves(models, patients, seed + 2),
    )


def inversion_cosines(plan: StudyPlan, seed: int) -> tuple[Floats, Floats]:
    """Cosines with the record of what is read off one patient's update, with noise and without."""
    family = family_of(plan)
    made = made_up_rows(plan.contract, 2 * RECORDS, seed + 4)
    records = made[np.linalg.norm(made, axis=1) > 0][:RECORDS]  # nothing is no record to find
    generator = np.random.Generator(np.random.PCG64(seed + 5))
    outcomes = (generator.random(len(records)) < 0.5).astype(np.float64)
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
    """The lower bound on epsilon from one run of the plan's clip, noise, sampling and steps."""
    privacy, steps = plan.privacy, plan.steps
    generator = np.random.Generator(np.random.PCG64(seed + 6))
    taken = generator.random(CANARIES) < 0.5
    family = Logistic({"weights": (CANARIES,)})
    canaries = _FAR * np.eye(CANARIES)
    still = np.zeros((1, CANARIES + 1))
    sd = privacy.noise_multiplier * privacy.clipping_norm
    whole = family.clipped_sums(
        still, canaries, np.ones(CANARIES), taken[None], privacy.clipping_norm
    )[0, :CANARIES]
    # Canaries do not meet in their own numbers, so a sample of them is a sample of these.
    rounds = generator.binomial(steps, privacy.sampling_rate, CANARIES)
    scores = -whole * rounds + sd * sqrt(steps) * generator.standard_normal(CANARIES)
    guesses = best_guesses(CANARIES, _mu(plan), privacy.delta)
    right = right_guesses(scores, taken.astype(np.float64), guesses)
    bound = epsilon_bound(CANARIES, guesses, right, privacy.delta)
    return one_run_finding(bound, privacy.epsilon, CANARIES, guesses, right)


def _mu(plan: StudyPlan) -> float:
    """How far apart the scores of a canary in and out are, in units of their noise."""
    privacy = plan.privacy
    signal = privacy.sampling_rate * plan.steps
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
