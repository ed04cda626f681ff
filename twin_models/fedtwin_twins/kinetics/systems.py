"""Any system of ordinary differential equations with its schedule, as the solvers take it.

Events are met exactly: no step reaches over a dose, the end of an infusion or a change of
parameters, each patient at their own times. A steady state is reached by doses that are written
out before it: a system that is not linear has no shortcut to it, and none at all where more comes
in than can ever go out.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from fedtwin_twins.kinetics.events import OBSERVATION_FIRST, Entered, Order, Route, entered, of_rows
from fedtwin_twins.twin.batch import Doses
from fedtwin_twins.twin.refusals import Problem, Refusal

States = tuple[Tensor, ...]
RightSide = Callable[[Tensor, States, Mapping[str, Tensor]], States]
"""From hours, states and values in force, each (patients,), to the states' rates of change."""
Advance = Callable[
    [Tensor, Tensor | float, States, Mapping[str, Tensor], tuple[Tensor, ...] | None], States
]
"""From hours, size of a step, states, values and what runs in to the states after it."""
RUN_IN = 60
"""Doses that are written out before a steady state."""


def michaelis_menten(concentration: Tensor, largest: Tensor, half: Tensor) -> Tensor:
    """Saturable elimination, amount/h (Michaelis and Menten 1913, Biochem Z 49:333).

    Args:
        concentration: amount/volume.
        largest: Vmax, amount/h.
        half: Km, the concentration at which half of it is reached.
    """
    return largest * concentration / (half + concentration)


@dataclass(frozen=True, kw_only=True, slots=True)
class System:
    """Equations, where doses go in, and how it begins.

    Attributes:
        right_side: the equations. If written with operators alone, they serve numbers (`stiff`) as
            well as tensors.
        start: each state at first, (patients,).
        values: parameters by name, each (patients, spans) or (patients, 1).
        into: for each route the place of the state that its doses enter.
        routes: fraction, lag and duration by route; they have no stages here.
        starts: h, (patients, spans), when spans of parameters begin; none: nothing changes.
        since: h, when the states are at their start, or at the first dose, if that is earlier.
        order: what counts at an asked time that is also the time of a dose.
        largest_output: amount/h, (patients, 1), that can ever be eliminated (Vmax), where that is
            limited; none: no limit.
    """

    right_side: RightSide
    start: States
    values: Mapping[str, Tensor]
    into: tuple[int, ...] = (0,)
    routes: tuple[Route, ...] = (Route(),)
    starts: Tensor | None = None
    since: float = 0.0
    order: Order = OBSERVATION_FIRST
    largest_output: Tensor | None = None

    def __post_init__(self) -> None:
        if len(self.into) != len(self.routes):
            raise ValueError(f"expected {len(self.routes)} places to enter, got {len(self.into)}")
        if any(route.stages for route in self.routes):
            raise ValueError("expected routes without stages: absorption is part of the equations")

    def some(self, rows: slice) -> "System":
        """Of some of the patients; what is the same for all, (1, ...), stays so."""

        def cut(values: Tensor) -> Tensor:
            return of_rows(values, rows)

        return replace(
            self,
            start=tuple(map(cut, self.start)),
            values={name: cut(one) for name, one in self.values.items()},
            routes=tuple(route.some(rows) for route in self.routes),
            starts=None if self.starts is None else cut(self.starts),
            largest_output=None if self.largest_output is None else cut(self.largest_output),
        )

    def events(self, doses: Doses) -> list[Entered]:
        """What comes in, steady states written out.

        Raises:
            Refusal: as `entered`; or a steady state whose doses exceed the largest output.
        """
        self._check_output(doses)
        return entered(written_out(doses, RUN_IN), self.routes, self.span_starts())[0]

    def span_starts(self) -> Tensor:
        """When spans of parameters begin, (patients or 1, spans), h."""
        if self.starts is not None:
            return self.starts
        return torch.full_like(self.start[0][:1, None].detach(), -torch.inf)

    def _check_output(self, doses: Doses) -> None:
        repeated = doses.interval > 0
        if self.largest_output is None or not bool(repeated.any()):
            return
        rate = doses.amount / torch.where(repeated, doses.interval, 1.0)
        for number, route in enumerate(self.routes):
            fraction = 1.0 if route.bioavailability is None else route.bioavailability[:, :1]
            wrong = repeated & (doses.route == number) & (rate * fraction >= self.largest_output)
            if bool(wrong.any()):
                patient, dose = (int(place) for place in wrong.nonzero()[0])
                limit = self.largest_output.expand(rate.shape[0], 1)[patient, 0]
                raise Refusal(
                    Problem(
                        field=f"patients[{patient}].doses[{dose}].interval",
                        value=f"{float(doses.interval[patient, dose]):g}",
                        unit="h",
                        allowed=f"doses below the largest elimination of {float(limit):g} per hour",
                        remedy="no steady state exists: give less, or write the doses out",
                    )
                )


def written_out(doses: Doses, before: int) -> Doses:
    """With every steady state as so many doses before it, and no steady state any more.

    Args:
        doses: (patients, doses).
        before: how many doses are written before each.

    Returns:
        (patients, doses + before x those columns that hold a steady state).
    """
    repeated = doses.interval > 0
    columns = repeated.any(0).nonzero()[:, 0].tolist()
    if not columns:
        return doses
    parts = {one.name: [getattr(doses, one.name)] for one in fields(Doses)}
    back = torch.arange(before, 0, -1, dtype=doses.time.dtype, device=doses.time.device)
    for column in columns:
        here = repeated[:, column : column + 1]
        time = doses.time[:, column : column + 1] - doses.interval[:, column : column + 1] * back
        parts["time"].append(torch.where(here, time, torch.inf))
        for name in ("amount", "duration", "route"):
            given = getattr(doses, name)[:, column : column + 1]
            empty = torch.zeros_like(given)
            parts[name].append(torch.where(here, given, empty).expand(-1, before))
    time, order = torch.cat(parts["time"], 1).sort(dim=1, stable=True)
    rest = {
        name: torch.cat(parts[name], 1).gather(1, order) for name in ("amount", "duration", "route")
    }
    return Doses(time=time, interval=torch.zeros_like(time), **rest)
