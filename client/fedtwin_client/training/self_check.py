"""A node's check of its own privacy: the moment and the independence test on what it would send.

Runs the very code that answers tasks, with the cryptographic noise, on made-up patients of the
plan's shape; no record of the hospital is read, so the findings may be shown to anybody. It says
nothing of a program that the site has installed for another model family.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil, sqrt
from typing import Any, Final

import numpy as np

from fedtwin_client.cohort.rows import CohortRows
from fedtwin_client.training.apps import TaskInput
from fedtwin_client.training.built_in import BuiltIn
from fedtwin_client.training.noise import Floats, NoiseSource
from fedtwin_protocol.made_up import made_up_rows
from fedtwin_protocol.parameters import flatten, initial_parameters
from fedtwin_protocol.payload import Array, Payload
from fedtwin_protocol.study import StudyPlan
from fedtwin_twins.audits.finding import Finding
from fedtwin_twins.audits.independence import Rows, measure_mixing, mixing_finding
from fedtwin_twins.audits.moments import (
    Claim,
    Probe,
    measure_moments,
    moments_finding,
    patients_for_probe,
)

FAR: Final = 1e3
"""Size of the columns of patients whose contribution must be clipped."""
_PATIENTS: Final = 60
_REPORTED: Final = 500.0

AppOf = Callable[[StudyPlan, CohortRows, "NoiseSource | bytes"], Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Made:
    """Made-up patients: columns (patients, columns) and outcomes (patients,)."""

    features: Floats
    outcomes: Floats

    def more(self, features: Floats, outcome: float, patients: int) -> "Made":
        """These and so many patients of one kind."""
        return Made(
            features=np.concatenate([self.features, np.tile(features, (patients, 1))]),
            outcomes=np.concatenate([self.outcomes, np.full(patients, outcome)]),
        )


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
    if plan.privacy.mode == "none":
        return findings
    findings.append(check_training(plan, seed, app_of))
    findings.append(check_count(plan, seed, app_of))
    if plan.privacy.evaluation_noise is not None:
        findings.append(check_table(plan, seed, app_of))
    return findings


def check_independence(plan: StudyPlan, seed: int, app_of: AppOf = BuiltIn) -> Finding:
    """The exact sums of one step, with everybody and without noise, must be additive."""
    bare = _without_penalty(plan)
    bare = bare.model_copy(
        update={
            "privacy": plan.privacy.model_copy(update={"mode": "none", "sampling_rate": 1.0}),
            # So long a step that it is the sum itself, not a small difference of parameters.
            "training": bare.training.model_copy(
                update={"local_steps": 1, "learning_rate": _REPORTED}
            ),
        }
    )
    parameters = _parameters(bare, seed)

    def exact_sum(rows: Rows) -> Floats:
        made = Made(features=rows["features"], outcomes=rows["outcomes"])
        return _sent(bare, app_of(bare, _cohort(bare, made), bytes(32)), parameters, 0)

    made = _made(bare, _PATIENTS, seed)
    features = made.features.copy()
    features[::7] *= FAR  # some unlike the others, so that shared statistics move
    rows = {"features": features, "outcomes": made.outcomes}
    mixing = measure_mixing(exact_sum, rows, plan.privacy.clipping_norm, seed)
    return mixing_finding("independence", mixing)


def check_training(plan: StudyPlan, seed: int, app_of: AppOf = BuiltIn) -> Finding:
    """The moment test of a round's update."""
    audited = _without_penalty(plan)
    parameters = _parameters(audited, seed)
    privacy, steps = plan.privacy, plan.training.local_steps
    rate, clip = privacy.sampling_rate, privacy.clipping_norm
    claim = Claim(
        patient_bound=rate * steps * clip,
        noise_sd=privacy.noise_multiplier * clip * sqrt(steps),
        sampling_variance=rate * (1 - rate) * steps * clip**2,
    )
    # On a sample, or after a step at the site, only nobody's sum varies by its noise alone.
    quiet = _made(audited, _PATIENTS if rate == 1 and steps == 1 else 0, seed)
    more = patients_for_probe(claim, flatten(parameters).size)
    far = FAR * np.random.Generator(np.random.PCG64(seed)).choice(
        (-1.0, 1.0), len(plan.contract.columns)
    )
    probes = [
        Probe(
            name=f"unlike patients with outcome {outcome:g}",
            rows=quiet.more(far, outcome, more),
            patients=more,
        )
        for outcome in (0.0, 1.0)
    ]
    apps = _Apps(audited, app_of)

    def release(made: Made, number: int) -> Floats:
        return _sent(audited, apps.of(made), parameters, number)

    return moments_finding("moments-update", measure_moments(release, quiet, probes, claim))


def check_count(plan: StudyPlan, seed: int, app_of: AppOf = BuiltIn) -> Finding:
    """The moment test of the cohort count, well above where it is held at the smallest cohort."""
    noise = plan.privacy.cohort_count_noise
    claim = Claim(patient_bound=1.0, noise_sd=sqrt(noise**2 + 1 / 12))  # it is rounded
    quiet = _made(plan, plan.sites.smallest_cohort + ceil(10 * noise), seed)
    more = patients_for_probe(claim, 1)
    probe = Probe(name="more patients", rows=_repeated(quiet, more), patients=more)
    apps = _Apps(plan, app_of)

    def release(made: Made, number: int) -> Floats:
        task = TaskInput(
            kind="query.cohort", round_number=number, payload=Payload(), reported_count=None
        )
        count: Any = apps.of(made).answer(task).metrics["metrics"]["cohort-count"]
        return np.array([float(count)])

    return moments_finding("moments-count", measure_moments(release, quiet, [probe], claim))


def check_table(plan: StudyPlan, seed: int, app_of: AppOf = BuiltIn) -> Finding:
    """The moment test of the hold-out table."""
    noise = plan.privacy.evaluation_noise
    claim = Claim(patient_bound=1.0, noise_sd=0.0 if noise is None else noise)
    quiet = _made(plan, _PATIENTS, seed)
    parameters = _parameters(plan, seed)
    more = patients_for_probe(claim, 2 * plan.evaluation.bins)
    probe = Probe(name="more held-out patients", rows=_repeated(quiet, more), patients=more)
    apps = _Apps(plan, app_of, held_out=True)

    def release(made: Made, number: int) -> Floats:
        task = _task("evaluate", parameters, number)
        table: Any = apps.of(made).answer(task).metrics["metrics"]["hold-out-table"]
        return np.array(table, np.float64)

    return moments_finding("moments-table", measure_moments(release, quiet, [probe], claim))


class _Apps:
    """One app for each set of patients, as one worker answers all rounds of a study."""

    def __init__(self, plan: StudyPlan, app_of: AppOf, held_out: bool = False) -> None:
        self._plan, self._app_of, self._held_out = plan, app_of, held_out
        self._known: dict[int, Any] = {}

    def of(self, made: Made) -> Any:
        if id(made) not in self._known:
            rows = _cohort(self._plan, made, self._held_out)
            self._known[id(made)] = self._app_of(self._plan, rows, os.urandom(32))
        return self._known[id(made)]


def _sent(plan: StudyPlan, app: Any, parameters: Mapping[str, Array], number: int) -> Floats:
    """What an update says of the patients, as a sum: (numbers,).

    Parameters that moved at the site are turned back into the sum of the steps that moved them.
    """
    answer = app.answer(_task("train", parameters, number)).arrays["arrays"]
    if plan.training.mechanism != "local_steps":
        return flatten(answer)
    batch = _REPORTED * plan.privacy.sampling_rate
    return (flatten(parameters) - flatten(answer)) * batch / plan.training.learning_rate


def _task(kind: str, parameters: Mapping[str, Array], number: int) -> TaskInput:
    return TaskInput(
        kind=kind,
        round_number=number,
        payload=Payload(arrays={"arrays": parameters}),
        reported_count=_REPORTED,
    )


def _made(plan: StudyPlan, patients: int, seed: int) -> Made:
    outcomes = np.random.Generator(np.random.PCG64(seed + 1)).random(patients) < 0.5
    return Made(
        features=made_up_rows(plan.contract, patients, seed), outcomes=outcomes.astype(np.float64)
    )


def _repeated(made: Made, patients: int) -> Made:
    return made.more(made.features[0], float(made.outcomes[0]), patients)


def _parameters(plan: StudyPlan, seed: int) -> dict[str, Array]:
    """The plan's shapes with values off the start, where more of a gradient is at work."""
    generator = np.random.Generator(np.random.PCG64(seed + 2))
    return {
        name: (array + 0.3 * generator.standard_normal(array.shape)).astype(array.dtype)
        for name, array in initial_parameters(plan).items()
    }


def _without_penalty(plan: StudyPlan) -> StudyPlan:
    """The penalty needs no data; without it a step is the noised sum and nothing else."""
    return plan.model_copy(update={"model": plan.model.model_copy(update={"l2": 0.0})})


def _cohort(plan: StudyPlan, made: Made, held_out: bool = False) -> CohortRows:
    patients = len(made.outcomes)
    return CohortRows(
        subject_ids=np.arange(patients),
        features=made.features,
        labels=made.outcomes,
        holdout=np.full(patients, held_out),
        columns=plan.contract.columns,
        exclusions={},
        missing={},
        implausible={},
    )
