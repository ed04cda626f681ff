"""Concentrations, amounts and areas of linear kinetics in closed form, many patients at once.

Exact (to rounding) for any schedule of boluses, infusions, first-order, zero-order and transit
absorption, steady states included; differentiable in every parameter, lags and durations too.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fedtwin_twins.kinetics.courses import Course, CourseInput, area, course
from fedtwin_twins.kinetics.curves import curve, total
from fedtwin_twins.kinetics.disposition import Disposition
from fedtwin_twins.kinetics.events import OBSERVATION_FIRST, Order, Route, alike, at_spans, of_rows
from fedtwin_twins.kinetics.passages import moved, moved_modes
from fedtwin_twins.kinetics.superposition import superposed
from fedtwin_twins.twin.batch import Doses

BLOCK = 4096
"""Patients whose doses are gone through together on a CPU: a step's cost is shared by many."""
NUMBERS = 25_600
"""Asked times of patients that are answered together on a CPU, so that they stay in its cache."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LinearKinetics:
    """One to three compartments with their ways in.

    Attributes:
        disposition: clearance and volumes.
        routes: a dose's `route` is a place in them.
        starts: h, (patients, spans), when the parameters' spans begin, as `Traits.starts`; none:
            no parameter changes.
        order: what counts at an asked time that is also the time of a dose or a change.
    """

    disposition: Disposition
    routes: tuple[Route, ...]
    starts: Tensor | None = None
    order: Order = OBSERVATION_FIRST

    def concentrations(self, doses: Doses, times: Tensor) -> Tensor:
        """In the central compartment.

        Args:
            doses: (patients, doses), ascending in time.
            times: h, (patients, times), in any order.

        Returns:
            (patients, times), amount/volume.

        Raises:
            Refusal: a dose by a route that is not there, or a steady state whose lag or infusion
                is longer than its interval.
        """
        return self._blocks(doses, times, _concentrations)

    def amounts(self, doses: Doses, times: Tensor) -> Tensor:
        """In each compartment, the central one first; arguments and errors as `concentrations`.

        Returns:
            (patients, times, compartments).
        """
        return self._blocks(doses, times, _amounts)

    def areas(self, doses: Doses, times: Tensor, since: float | Tensor = 0.0) -> Tensor:
        """Under the concentration, from an hour to each time.

        Args:
            doses: as in `concentrations`.
            times: h, (patients, times), in any order.
            since: h, one for all or (patients, 1).

        Returns:
            (patients, times), h x amount/volume; negative before `since`.

        Raises:
            Refusal: as `concentrations`.
        """
        return self._areas(doses, times, since, _areas)

    def areas_of_amounts(self, doses: Doses, times: Tensor, since: float | Tensor = 0.0) -> Tensor:
        """Under the amount in each compartment; arguments and errors as `areas`.

        Returns:
            (patients, times, compartments), h x amount.
        """
        return self._areas(doses, times, since, _areas_of_amounts)

    def given(self, doses: Doses) -> CourseInput:
        """With doses, what a course follows from."""
        starts = self.starts
        if starts is None:
            starts = torch.full_like(self.disposition.clearance[:1, :1].detach(), -torch.inf)
        return CourseInput(
            disposition=self.disposition, routes=self.routes, starts=starts, doses=doses
        )

    def _areas(
        self,
        doses: Doses,
        times: Tensor,
        since: float | Tensor,
        ask: Callable[[CourseInput, Tensor, Order], Tensor],
    ) -> Tensor:
        start = torch.as_tensor(since, dtype=times.dtype, device=times.device)
        asked = torch.cat([start.expand(times.shape[0], 1), times], 1)
        found = self._blocks(doses, asked, ask)
        return found[:, 1:] - found[:, :1]

    def _blocks(
        self,
        doses: Doses,
        times: Tensor,
        ask: Callable[[CourseInput, Tensor, Order], Tensor],
    ) -> Tensor:
        patients = times.shape[0]
        times = alike(times)
        given = self.given(doses)
        if times.device.type != "cpu" or patients <= BLOCK:
            return ask(given, times, self.order)
        parts = []
        for first in range(0, patients, BLOCK):
            rows = slice(first, first + BLOCK)
            parts.append(ask(given.some(rows), of_rows(times, rows), self.order))
        return torch.cat(parts)


def _concentrations(given: CourseInput, times: Tensor, order: Order) -> Tensor:
    found = superposed(given, times, order)
    if found is not None:
        return found
    history = course(given, times, amounts=False, areas=False)
    return _in_pieces(history, times, lambda part, asked: _concentration(part, asked, order))


def _amounts(given: CourseInput, times: Tensor, order: Order) -> Tensor:
    history = course(given, times, amounts=True, areas=False)
    return _in_pieces(history, times, lambda part, asked: _amount(part, asked, order))


def _areas(given: CourseInput, times: Tensor, order: Order) -> Tensor:
    history = course(given, times, amounts=False, areas=True)
    return _in_pieces(history, times, lambda part, asked: _gathered(part, asked, order))[..., 0]


def _areas_of_amounts(given: CourseInput, times: Tensor, order: Order) -> Tensor:
    history = course(given, times, amounts=True, areas=True)
    return _in_pieces(history, times, lambda part, asked: _gathered(part, asked, order))


def _in_pieces(history: Course, times: Tensor, read: Callable[[Course, Tensor], Tensor]) -> Tensor:
    """Read so many patients at a time that their numbers stay in the cache of a CPU."""
    patients, asked = history.state.modes[0].shape[0], times.shape[1]
    if times.device.type != "cpu" or patients * asked <= NUMBERS:
        return read(history, times)
    step = max(1, NUMBERS // asked)
    parts = []
    for first in range(0, patients, step):
        rows = slice(first, first + step)
        parts.append(read(history.some(rows), of_rows(times, rows)).contiguous())
    return torch.cat(parts)


def _concentration(history: Course, times: Tensor, order: Order) -> Tensor:
    places = history.places(times, order)

    def pick(values: Tensor) -> Tensor:
        return at_spans(values, places)

    shape = curve(history.state, history.medium)
    return shape.at(pick).after((times - pick(history.time)).clamp(min=0.0))


def _amount(history: Course, times: Tensor, order: Order) -> Tensor:
    state, medium, elapsed, _ = history.before(times, order)
    modes = moved_modes(state, medium.over(elapsed, inflow=state.inflow is not None))
    rows = medium.rows(amounts=True)
    return torch.stack(
        [total([one * mode for one, mode in zip(row, modes, strict=True)]) for row in rows], dim=-1
    )


def _gathered(history: Course, times: Tensor, order: Order) -> Tensor:
    state, medium, elapsed, places = history.before(times, order)
    later = moved(state, medium.over(elapsed, inflow=state.inflow is not None))
    more = area(state, later, medium, elapsed, medium.rows(amounts=history.amounts))
    known = [at_spans(one, places) for one in history.areas]
    return torch.stack([one + extra for one, extra in zip(known, more, strict=True)], dim=-1)
