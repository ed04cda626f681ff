"""Discrete-time hazards for audits: what the sites compute, written a second time.

A patient at risk in interval j has the event there with chance h_j = 1 / (1 + exp(-(w . x + b_j)));
the gradient of the loss is (s x, h - y) with s the sum of h - y over the intervals at risk (Tutz
and Schmid 2016, Modeling Discrete Time-to-Event Data, section 3.4).
"""

import numpy as np

from fedtwin_research.audits.family import Floats, Marks, clipped
from fedtwin_research.audits.linear import LOGISTIC, newton
from fedtwin_twins.audits.membership import confidence
from fedtwin_twins.risk import logistic


class Hazards:
    """Hazards over a plan's intervals; values are the columns' weights, then the intercepts.

    Args:
        columns: how many.
        interval_days: where the intervals end.
    """

    def __init__(self, columns: int, interval_days: tuple[int, ...]) -> None:
        self._columns = columns
        self._ends = np.asarray(interval_days, np.float64)
        self.penalised = np.append(np.ones(columns), np.zeros(len(interval_days)))

    def clipped_sums(
        self, models: Floats, features: Floats, outcomes: Floats, taken: Marks, clip: float
    ) -> Floats:
        """Sums of clipped gradients, (models, values)."""
        at_risk, event = self._intervals(outcomes)
        error = at_risk * logistic(self._scores(models, features)) - event
        total = error.sum(axis=2)
        squared = total**2 * (features**2).sum(axis=1) + (error**2).sum(axis=2)
        scale = clipped(np.ones(taken.shape), np.sqrt(squared), taken, clip)
        baseline = np.einsum("mp,mpj->mj", scale, error)
        return np.concatenate([(scale * total) @ features, baseline], axis=1)

    def confidence(self, models: Floats, features: Floats, outcomes: Floats) -> Floats:
        """The log-odds of what was seen: the event in its interval, or none in those at risk."""
        at_risk, event = self._intervals(outcomes)
        found = self._scores(models, features)
        seen = -(np.logaddexp(0, np.where(event > 0, -found, found)) * at_risk).sum(axis=2)
        seen = np.minimum(seen, -1e-300)
        return confidence(np.asarray(seen - np.log(-np.expm1(seen))), np.ones(len(features)))

    def first_layer(self, gradients: Floats) -> tuple[Floats, Floats]:
        """One output, whose bias is that of all intervals together: s x and s."""
        baseline = gradients[..., self._columns :].sum(axis=-1, keepdims=True)
        return gradients[..., None, : self._columns], baseline

    def fit(self, models: Floats, features: Floats, outcomes: Floats, taken: Marks) -> Floats:
        """The largest likelihood with a small ridge, over patients' intervals at risk."""
        at_risk, event = self._intervals(outcomes)
        patients, intervals = at_risk.shape
        indicator = np.tile(np.eye(intervals), (patients, 1))
        design = np.concatenate([np.repeat(features, intervals, axis=0), indicator], axis=1)
        counted = (taken[:, :, None] * at_risk).reshape(len(taken), -1)
        return newton(models, design, event.ravel(), counted, LOGISTIC)

    def _scores(self, models: Floats, features: Floats) -> Floats:
        """(models, patients, intervals)."""
        columns = self._columns
        shared = models[:, :columns] @ features.T
        return np.asarray(shared[:, :, None] + models[:, None, columns:], np.float64)

    def _intervals(self, outcomes: Floats) -> tuple[Floats, Floats]:
        """Where each patient was at risk to the end or had the event, (patients, intervals)."""
        days, happened = outcomes[:, :1], outcomes[:, 1:] > 0.5
        place = np.searchsorted(self._ends, days[:, 0], side="left")  # ends belong to intervals
        event = (place[:, None] == np.arange(len(self._ends))) & happened
        at_risk = (days >= self._ends) | event
        return at_risk.astype(np.float64), event.astype(np.float64)
