"""The course of one arm: doses, missed ones, levels drawn with their error, and changes of dose."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import ndtr, ndtri
from torch import Tensor

from fedtwin_twins.trials.arms import Adjustment, Arm
from fedtwin_twins.trials.dosing import Doser, by_belief, first_amounts, in_proportion
from fedtwin_twins.trials.drug import Truth, as_tensor, doses_of
from fedtwin_twins.trials.population import VirtualPatients
from fedtwin_twins.trials.streams import Floats, Integers, Streams
from fedtwin_twins.twin.batch import Batch, Observed


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """The patients of one arm, with all that befalls them whichever arm they are in.

    Attributes:
        patients: as known before the trial.
        places: of them among all patients of the replicate, (patients,).
        streams: of all patients of the replicate.
        truth: what really goes on in them.
        leaves_day: when they leave the trial, (patients,); infinite for who stays.
        doser: the dosing model at their bedside, if the plan names one.
        route: of every dose.
    """

    patients: VirtualPatients
    places: Integers
    streams: Streams
    truth: Truth
    leaves_day: Floats
    doser: Doser | None
    route: str

    def uniforms(self, purpose: str, draw: int) -> Floats:
        """For each of these patients, (patients,)."""
        return self.streams.uniforms(purpose, draw)[self.places]


@dataclass(frozen=True, kw_only=True, slots=True)
class Course:
    """What happened in an arm.

    Attributes:
        times_h: of the doses, (doses,).
        prescribed: amounts, (patients, doses).
        batch: the patients under what they really took.
        levels: measured, (patients, levels); NaN where nobody was there.
        level_hours: when, (levels,).
    """

    times_h: Floats
    prescribed: Floats
    batch: Batch
    levels: Floats
    level_hours: Floats


def run_arm(arm: Arm, group: Group, taken: np.ndarray, days: float) -> Course:
    """Let an arm run.

    Args:
        arm: how is dosed.
        group: who is in it.
        taken: which doses are taken, (patients, doses or more).
        days: how long.

    Raises:
        Refusal: the plan does not fit the population or the models.
    """
    interval = arm.doses.interval_h
    times = np.arange(0.0, days * 24.0, interval)
    prescribed = np.repeat(
        first_amounts(arm, group.patients, group.doser)[:, None], len(times), axis=1
    )
    prescribed[:, 0] *= arm.start.loading_factor
    there = times[None, :] < 24.0 * group.leaves_day[:, None]
    kept = taken[:, : len(times)] & there
    watch = _Watch(arm=arm, group=group, times=times, kept=kept)
    for adjust, day in ((arm.adjust, day) for day in (arm.adjust.days if arm.adjust else ())):
        if adjust is not None and day < days:
            watch.change(adjust, day, prescribed)
    return Course(
        times_h=times,
        prescribed=prescribed,
        batch=watch.batch(prescribed),
        levels=watch.levels(),
        level_hours=np.array(watch.hours),
    )


class _Watch:
    """Levels so far, and the changes that follow from them."""

    def __init__(self, *, arm: Arm, group: Group, times: Floats, kept: np.ndarray) -> None:
        self._arm, self._group, self._times, self._kept = arm, group, times, kept
        self.hours: list[float] = []
        self._values: list[Floats] = []
        self._below: list[np.ndarray] = []

    def batch(self, prescribed: Floats) -> Batch:
        """The patients under what they took."""
        truth = self._group.truth
        doses = doses_of(
            truth.model,
            self._times,
            prescribed * self._kept,
            self._arm.doses.infusion_h,
            self._group.route,
        )
        return truth.batch(doses)

    def levels(self) -> Floats:
        """All that were drawn, (patients, levels)."""
        shape = (len(self._group.patients), 0)
        return np.stack(self._values, axis=1) if self._values else np.zeros(shape)

    def change(self, adjust: Adjustment, day: float, prescribed: Floats) -> None:
        """Draw levels on a day, and change the doses that come after them."""
        first = int(np.searchsorted(self._times, day * 24.0))
        start = float(self._times[min(first, len(self._times) - 1)])
        hours = [start + hour for hour in adjust.samples_h if start + hour > 0]
        for hour in hours:
            self._draw(hour, prescribed)
        now = max([start, *hours]) + adjust.delay_h
        after = int(np.searchsorted(self._times, now))
        if after >= len(self._times) or not hours:
            return
        last = prescribed[:, after - 1].copy() if after else prescribed[:, 0].copy()
        chosen = self._chosen(adjust, prescribed[:, :after], last, float(self._times[after]))
        prescribed[:, after:] = chosen[:, None]

    def _draw(self, hour: float, prescribed: Floats) -> None:
        group = self._group
        observable = group.truth.model.observables[0]
        with torch.no_grad():
            times = torch.full((len(group.patients), 1), hour, dtype=torch.float64)
            true = group.truth.model.predict(self.batch(prescribed), group.truth.effects, times)
            centre = observable.error.scaled(true)
            spread = observable.error.deviation(true)
        uniform = group.uniforms("levels", len(self.hours))
        middle, sd = centre[:, 0].numpy(), spread[:, 0].numpy()
        if observable.error.convention == "on_logarithm":
            measured = np.exp(middle + sd * ndtri(uniform))
        else:
            # Cut at 0: no assay reads a negative level, however large its error.
            start = ndtr(-middle / sd)
            measured = middle + sd * ndtri(start + uniform * (1 - start))
        limit = observable.quantification_limit or 0.0
        below = measured < limit
        gone = hour >= 24.0 * group.leaves_day
        self.hours.append(hour)
        self._below.append(below & ~gone)
        self._values.append(np.where(gone, np.nan, np.maximum(measured, limit)))

    def _chosen(self, adjust: Adjustment, past: Floats, last: Floats, now_h: float) -> Floats:
        if adjust.by == "level":
            return in_proportion(last, self._values[-1], adjust, self._arm.doses)
        assert self._group.doser is not None  # the plan was checked
        times = self._times[: past.shape[1]]
        return by_belief(
            self._group.doser, adjust, self._arm.doses, (times, past), self._observed(), now_h
        )

    def _observed(self) -> Observed:
        values = self.levels()
        present = np.isfinite(values)
        return Observed(
            time=as_tensor(np.broadcast_to(self.hours, values.shape)),
            value=as_tensor(np.where(present, values, 1.0)),
            kind=torch.zeros(values.shape, dtype=torch.int64),
            present=_marks(present),
            below=_marks(np.stack(self._below, axis=1)),
        )


def _marks(flags: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(flags))
