"""Kinetics done another way: one patient, a matrix exponential from event to event."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from scipy.linalg import expm

from fedtwin_twins.kinetics.disposition import Disposition
from fedtwin_twins.kinetics.events import OBSERVATION_FIRST, Order, Route
from fedtwin_twins.kinetics.linear import LinearKinetics
from fedtwin_twins.twin.batch import Doses

DOUBLE = torch.float64


@dataclass
class Way:
    stages: int = 0
    rate: float = 0.0
    fraction: float = 1.0
    lag: float = 0.0
    duration: float | None = None


@dataclass
class Body:
    """Parameters of one span."""

    clearance: float
    volume: float
    exchanges: Sequence[tuple[float, float]] = ()
    ways: Sequence[Way] = field(default_factory=lambda: [Way()])

    @property
    def size(self) -> int:
        return 1 + len(self.exchanges) + sum(way.stages for way in self.ways)

    def entry(self, route: int) -> int:
        """Where a dose of a route goes in: the stages stand behind the compartments."""
        if self.ways[route].stages == 0:
            return 0
        return 1 + len(self.exchanges) + sum(way.stages for way in self.ways[:route])

    def matrix(self) -> np.ndarray:
        found = np.zeros((self.size, self.size))
        found[0, 0] = -self.clearance / self.volume
        for j, (exchange, volume) in enumerate(self.exchanges, start=1):
            found[0, 0] -= exchange / self.volume
            found[j, 0] += exchange / self.volume
            found[0, j] += exchange / volume
            found[j, j] -= exchange / volume
        for route, way in enumerate(self.ways):
            first = self.entry(route)
            for stage in range(way.stages):
                found[first + stage, first + stage] -= way.rate
                into = first + stage + 1 if stage + 1 < way.stages else 0
                found[into, first + stage] += way.rate
        return found


@dataclass
class Dose:
    time: float
    amount: float
    duration: float = 0.0
    route: int = 0


def simulate(
    bodies: Sequence[tuple[float, Body]], doses: Sequence[Dose], times: Sequence[float]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Concentrations, areas from the first event, amounts; doses at an asked time come after it.

    Args:
        bodies: parameters with the time from which they hold, ascending.
    """
    events: list[tuple[float, int, str, int, float]] = []
    for start, _ in bodies[1:]:
        events.append((start, 0, "span", 0, 0.0))
    for dose in doses:
        body = [one for start, one in bodies if start <= dose.time][-1]
        way = body.ways[dose.route]
        begin, amount = dose.time + way.lag, dose.amount * way.fraction
        duration = dose.duration if way.duration is None else way.duration
        if duration > 0:
            events.append((begin, 1, "rate", dose.route, amount / duration))
            events.append((begin + duration, 1, "rate", dose.route, -amount / duration))
        else:
            events.append((begin, 1, "amount", dose.route, amount))
    for time in times:
        events.append((time, -1, "ask", 0, 0.0))
    events.sort(key=lambda event: event[:2])
    size = bodies[0][1].size
    amounts, area = np.zeros(size), 0.0
    rates = np.zeros(len(bodies[0][1].ways))
    now, body = -np.inf, bodies[0][1]
    answers = {}
    for time, _, kind, route, value in events:
        if np.isfinite(now) and time > now:
            amounts, area = _step(body, amounts, area, rates, time - now)
        now = time
        if kind == "span":
            body = [one for start, one in bodies if start <= time][-1]
        elif kind == "amount":
            amounts[body.entry(route)] += value
        elif kind == "rate":
            rates[route] += value
        else:
            answers[time] = (amounts[0] / body.volume, area, amounts[: 1 + len(body.exchanges)])
    found = [answers[time] for time in times]
    return tuple(np.array([one[k] for one in found]) for k in range(3))  # type: ignore[return-value]


def _step(
    body: Body, amounts: np.ndarray, area: float, rates: np.ndarray, elapsed: float
) -> tuple[np.ndarray, float]:
    size = body.size
    whole = np.zeros((size + 2, size + 2))
    whole[:size, :size] = body.matrix()
    for route, rate in enumerate(rates):
        whole[body.entry(route), size] += rate
    whole[size + 1, 0] = 1 / body.volume
    after = expm(whole * elapsed) @ np.concatenate([amounts, [1.0, area]])
    return after[:size], float(after[size + 1])


def make_doses(doses: Sequence[Sequence[Dose]], intervals: Sequence[float] = ()) -> Doses:
    """A batch of patients' doses; the last of a patient's stand for a steady state, if said."""
    most = max(len(one) for one in doses)
    shape = (len(doses), most)
    found = {
        "time": torch.full(shape, torch.inf, dtype=DOUBLE),
        "amount": torch.zeros(shape, dtype=DOUBLE),
        "duration": torch.zeros(shape, dtype=DOUBLE),
        "route": torch.zeros(shape, dtype=torch.int64),
        "interval": torch.zeros(shape, dtype=DOUBLE),
    }
    for row, patient in enumerate(doses):
        for column, dose in enumerate(patient):
            for name in ("time", "amount", "duration", "route"):
                found[name][row, column] = getattr(dose, name)
            if intervals:
                found["interval"][row, column] = intervals[row]
    return Doses(**found)


def column(*values: float) -> torch.Tensor:
    """One value for each patient, (patients, 1)."""
    return torch.tensor(values, dtype=DOUBLE)[:, None]


Bodies = Sequence[tuple[float, Body]]


def make_kinetics(patients: Sequence[Bodies], order: Order = OBSERVATION_FIRST) -> LinearKinetics:
    """Patients of one structure, each with parameters by span."""
    spans = max(len(bodies) for bodies in patients)

    def tensor(read: Callable[[Body], float]) -> torch.Tensor:
        rows = [
            [read(bodies[min(place, len(bodies) - 1)][1]) for place in range(spans)]
            for bodies in patients
        ]
        return torch.tensor(rows, dtype=DOUBLE)

    model = patients[0][0][1]
    starts = [
        [bodies[place][0] if place < len(bodies) else np.inf for place in range(spans)]
        for bodies in patients
    ]
    routes = tuple(
        Route(
            stages=way.stages,
            rate=tensor(lambda body, r=r: body.ways[r].rate) if way.stages else None,
            bioavailability=tensor(lambda body, r=r: body.ways[r].fraction),
            lag=tensor(lambda body, r=r: body.ways[r].lag),
            duration=None
            if way.duration is None
            else tensor(lambda body, r=r: body.ways[r].duration),
        )
        for r, way in enumerate(model.ways)
    )
    return LinearKinetics(
        disposition=Disposition(
            clearance=tensor(lambda body: body.clearance),
            volume=tensor(lambda body: body.volume),
            exchanges=tuple(
                (
                    tensor(lambda body, j=j: body.exchanges[j][0]),
                    tensor(lambda body, j=j: body.exchanges[j][1]),
                )
                for j in range(len(model.exchanges))
            ),
        ),
        routes=routes,
        starts=torch.tensor(starts, dtype=DOUBLE) if spans > 1 else None,
        order=order,
    )


def row(times: Sequence[float]) -> torch.Tensor:
    """Asked times of one patient, (1, times)."""
    return torch.tensor([list(times)], dtype=DOUBLE)
