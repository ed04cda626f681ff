"""Prognostic scores: what is foretold of a patient under the control arm, before randomisation.

A score is made of what `VirtualPatients` hold, which is known before the trial, and of nothing
else: a prognostic model is never handed anything later. Freezing a score fixes its values and
writes down their digest; randomisation notes the digest, and an adjusted analysis refuses a score
with another one. Adjusting for such a score never biases the estimate, however poor the score is
(Schuler et al. 2022, doi 10.1515/ijb-2021-0072; EMA qualification opinion on PROCOVA, 2022).
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from fedtwin_twins.trials.population import VirtualPatients
from fedtwin_twins.trials.streams import Floats

_RIDGE = 1e-6


class PrognosticModel(Protocol):
    """Foretells the outcome under the control arm from what is known before the trial."""

    @property
    def name(self) -> str:
        """For the report."""
        ...

    def predict(self, patients: VirtualPatients) -> Floats:
        """The expected outcome of each patient, (patients,)."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class FrozenScore:
    """A score that can't be changed any more.

    Attributes:
        values: of each patient, (patients,), read-only.
        model: name of the model it is from.
        digest: SHA-256 over model, patients' numbers and values.
    """

    values: Floats
    model: str
    digest: str


def freeze(model: PrognosticModel, patients: VirtualPatients) -> FrozenScore:
    """Foretell and fix the outcomes under the control arm.

    Raises:
        ValueError: the model foretells no finite number for somebody.
    """
    values = np.array(model.predict(patients), dtype=np.float64)
    if values.shape != (len(patients),) or not np.isfinite(values).all():
        raise ValueError(
            f"{model.name}: expected one finite score for each of {len(patients)} patients"
        )
    values.setflags(write=False)
    return FrozenScore(
        values=values, model=model.name, digest=_digest(model.name, patients.numbers, values)
    )


def check_unchanged(score: FrozenScore, patients: VirtualPatients) -> None:
    """Refuse a score whose values are not those that were frozen.

    Raises:
        ValueError: they have changed, or belong to other patients.
    """
    if _digest(score.model, patients.numbers, score.values) != score.digest:
        raise ValueError("the prognostic score is not the one that was frozen for these patients")


def _digest(name: str, numbers: np.ndarray, values: Floats) -> str:
    parts = (name.encode(), numbers.astype("<i8").tobytes(), values.astype("<f8").tobytes())
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


@dataclass(frozen=True, kw_only=True, slots=True)
class HistoryModel:
    """A linear regression on patients who were treated as the control arm is, before the trial.

    Attributes:
        name: for the report.
        columns: what it reads, as `baseline` names it.
        centre: of each column, (columns,).
        scale: of each column, (columns,).
        weights: of the scaled columns, (columns,).
        intercept: the mean outcome.
    """

    name: str
    columns: tuple[str, ...]
    centre: Floats
    scale: Floats
    weights: Floats
    intercept: float

    def predict(self, patients: VirtualPatients) -> Floats:
        """The expected outcome under the control arm, (patients,)."""
        there = baseline(patients)
        zeros = np.zeros(len(patients))
        found = np.full(len(patients), self.intercept)
        for place, column in enumerate(self.columns):
            away = there.get(column, zeros) - self.centre[place]
            found = found + away / self.scale[place] * self.weights[place]
        return found


def baseline(patients: VirtualPatients) -> dict[str, Floats]:
    """Columns of what is known before the trial: covariates, their squares, conditions, phenotypes.

    The squares are there because a window is missed on both sides.
    """
    found = dict(patients.covariates)
    for name, column in patients.covariates.items():
        if not np.isin(column, (0.0, 1.0)).all():
            found[f"{name} squared"] = column**2
    found.update({name: has.astype(np.float64) for name, has in patients.conditions.items()})
    for gene, types in patients.genotypes.items():
        each = np.array(types.phenotype())
        for phenotype in sorted(set(types.phenotypes)):
            found[f"{gene} {phenotype}"] = (each == phenotype).astype(np.float64)
    return found


def learn_from_history(
    patients: VirtualPatients, outcome: Floats, name: str, only: Sequence[str] | None = None
) -> HistoryModel:
    """Fit the regression; patients without an outcome (NaN) are left out.

    Args:
        patients: who were treated as the control arm is, before the trial.
        outcome: theirs, (patients,).
        name: for the report.
        only: columns to read; all if none are named.

    Raises:
        ValueError: too few patients have an outcome, or a column is not there.
    """
    there = baseline(patients)
    if unknown := sorted(set(only or ()) - set(there)):
        raise ValueError(f"prognosis: there is no column {unknown[0]}; there are {sorted(there)}")
    seen = np.isfinite(outcome)
    columns = (
        tuple(
            column for column in sorted(only or there) if np.ptp(there[column][seen], axis=None) > 0
        )
        if seen.any()
        else ()
    )
    if seen.sum() < 10 * (len(columns) + 1):
        raise ValueError(
            f"prognosis: expected at least {10 * (len(columns) + 1)} patients with an outcome to "
            f"learn {len(columns)} columns from, found {int(seen.sum())}"
        )
    matrix = np.stack([there[column][seen] for column in columns], axis=1)
    centre, scale = matrix.mean(axis=0), matrix.std(axis=0)
    scaled = (matrix - centre) / scale
    mean = float(outcome[seen].mean())
    gram = scaled.T @ scaled + _RIDGE * seen.sum() * np.eye(len(columns))
    weights = np.linalg.solve(gram, scaled.T @ (outcome[seen] - mean))
    return HistoryModel(
        name=name, columns=columns, centre=centre, scale=scale, weights=weights, intercept=mean
    )
