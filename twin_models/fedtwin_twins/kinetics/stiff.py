"""Stiff systems that are not linear, patient by patient, by LSODA.

LSODA changes between Adams' and backward differentiation formulas as it finds the system stiff
(Petzold 1983, SIAM J Sci Stat Comput 4:136; Hindmarsh 1983, ODEPACK), here in SciPy's hands. It
starts anew at every dose, end of an infusion and change of parameters. A few patients a second: for
the bedside, not for a trial; and nothing can be differentiated through it.
"""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.integrate import solve_ivp
from torch import Tensor

from fedtwin_twins.kinetics.events import at_spans, doses_of_rows, span_places
from fedtwin_twins.kinetics.lengths import all_alike
from fedtwin_twins.kinetics.steps import steps
from fedtwin_twins.kinetics.systems import States, System
from fedtwin_twins.twin.batch import Doses
from fedtwin_twins.twin.refusals import Problem, Refusal

Array = NDArray[np.float64]
WHOLE = all_alike(1e9)
"""No step is cut but by what happens."""


def solve(
    system: System,
    doses: Doses,
    times: Tensor,
    *,
    relative: float = 1e-8,
    absolute: float = 1e-10,
) -> States:
    """Every state at every asked time.

    Args:
        system: equations, written with operators alone or with NumPy's functions.
        doses: (patients, doses).
        times: h, (patients, times), in any order, none before the start.
        relative: error that a step may make, of each state.
        absolute: the same, in the state's unit.

    Returns:
        each state, (patients, times), float64, on the device of `times`.

    Raises:
        Refusal: as `System.events`; or the solver gives up.
    """
    options = {"rtol": relative, "atol": absolute}
    with torch.no_grad():
        rows = [
            _patient(system.some(rows), doses_of_rows(doses, rows), times[rows], options)
            for rows in (slice(row, row + 1) for row in range(times.shape[0]))
        ]
    whole = torch.as_tensor(np.stack(rows), dtype=torch.float64, device=times.device)
    return tuple(whole[:, number] for number in range(whole.shape[1]))


def _patient(system: System, doses: Doses, times: Tensor, options: Mapping[str, float]) -> Array:
    """Every state at every asked time, (states, times)."""
    walk = steps(system, doses, times, WHOLE)
    begin, size = (one[:, 0].double().tolist() for one in (walk.begin, walk.size))
    amounts = [one[:, 0].double().tolist() for one in walk.amounts]
    changed = [one[:, 0].double().tolist() for one in walk.inflow or ()]
    arrivals = {place: number for number, place in enumerate(walk.arrivals)}
    state = np.array([float(one.reshape(-1)[0]) for one in system.start])
    running = np.zeros(len(state))
    path = []
    for place in range(len(begin) + 1):
        before = state
        if place in arrivals:
            state, number = state.copy(), arrivals[place]
            for into, amount in zip(system.into, amounts, strict=True):
                state[into] += amount[number]
            for into, change in zip(system.into, changed, strict=changed != []):
                running[into] += change[number]
        path.append(state if system.order.dose_first else before)
        if place == len(begin):
            break
        span = (begin[place], begin[place] + size[place])
        state = _onwards(_change(system, span[0], running), state, span, options)
    found: Array = np.stack(path)[walk.asked[0].cpu().numpy()].T
    return found


def _change(system: System, hour: float, running: Array) -> Callable[[float, Array], Array]:
    """The right-hand side from an hour until the next moment that matters."""
    spans = span_places(system.span_starts(), torch.tensor([[hour]], dtype=torch.float64))
    values = {name: float(at_spans(one, spans)[0, 0]) for name, one in system.values.items()}
    inflow = running.copy()

    def change(now: float, state: Array) -> Array:
        rates = system.right_side(now, tuple(state), values)  # type: ignore[arg-type]
        found: Array = np.asarray(rates, np.float64) + inflow
        return found

    return change


def _onwards(
    change: Callable[[float, Array], Array],
    state: Array,
    span: tuple[float, float],
    options: Mapping[str, float],
) -> Array:
    found = solve_ivp(change, span, state, method="LSODA", t_eval=span[1:], **options)
    if not found.success:
        raise Refusal(
            Problem(
                field="times",
                value=f"{span[0]:g} to {span[1]:g}",
                unit="h",
                allowed=f"equations that can be solved there ({found.message})",
                remedy="check the parameters, or allow larger errors",
            )
        )
    return np.asarray(found.y[:, -1], np.float64)
