"""How many patients a CPU second simulates, and how far from the truth: one thread, float64.

Every patient has two compartments and first-order absorption, takes 60 doses 12 hours apart and is
asked at 200 times over 30 days; an indirect response (inhibited production, Dayneka 1993, model I)
follows the concentration. Eight parameters vary log-normally by 30 %. Errors are the largest
relative ones of 100 patients beside SciPy's DOP853 at tolerances of 1e-10, and are part of the
unit. Baselines: the closed form written by hand in NumPy for this very schedule; for the others,
Runge-Kutta in equal steps of .3 h operation by operation. Freed memory is kept, on both sides, as a
trial's processes keep it.
"""

import argparse
import time
from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from dp_step import on_one_thread
from figures import Figure
from scipy.integrate import solve_ivp

from fedtwin_twins.kinetics import advancing, fixed_step
from fedtwin_twins.kinetics.disposition import Disposition
from fedtwin_twins.kinetics.events import Route
from fedtwin_twins.kinetics.linear import LinearKinetics
from fedtwin_twins.kinetics.quadrature import responses
from fedtwin_twins.kinetics.systems import System
from fedtwin_twins.kinetics.turnover import indirect_response, sigmoid
from fedtwin_twins.twin.batch import Doses
from fedtwin_twins.twin.freed_memory import keep_freed_memory

PATIENTS, CHECKED = 10_000, 100
DOSE, INTERVAL, DOSES, STEP = 100.0, 12.0, 60, 0.3
TIMES = np.linspace(0.0, 720.0, 200)
TYPICAL = {
    "clearance": 10.0,
    "volume": 50.0,
    "flow": 5.0,
    "tissue": 100.0,
    "absorption": 1.0,
    "production": 10.0,
    "loss": 0.1,
    "half": 0.5,
}
LARGEST = 0.8
TOLERANCE = 1e-3
"""Relative error of the responses that is asked for, as good as that of the steps of .3 h."""


def measure(options: argparse.Namespace) -> list[Figure]:
    """The figures of this module that are wanted."""
    wanted = options.wanted
    keep_freed_memory()
    return on_one_thread(lambda: _figures(wanted))


def _figures(wanted: set[str]) -> list[Figure]:
    found = []
    with torch.no_grad():
        if "closed-form-per-s" in wanted:
            speed, levels = _speed(_closed_form)
            by_hand, same = _speed(_by_hand)
            assert np.abs(same / levels[:, 1:] - 1).max() < 1e-9
            found.append(_figure("closed-form-per-s", speed, by_hand, 50_000, _error(levels, 0)))
        others = wanted - {"closed-form-per-s"}
        even = _speed(lambda: _stepped(step_h=STEP), 1)[0] if others else 0.0
        if "kinetics-effect-per-s" in wanted:
            speed, effect = _speed(_response)
            found.append(_figure("kinetics-effect-per-s", speed, even, 30_000, _error(effect, 1)))
        if "ode-eager-per-s" in wanted:
            speed, plain = _speed(_stepped)
            found.append(_figure("ode-eager-per-s", speed, even, 9_000, _error(plain, 1)))
        if "ode-compiled-per-s" in wanted:
            by = advancing.compiled(_system(PATIENTS))
            if by.caution is not None:
                print(by.caution)
            speed, quick = _speed(lambda: _stepped(by), 9)
            found.append(_figure("ode-compiled-per-s", speed, even, 80_000, _error(quick, 1)))
    return found


def _figure(name: str, value: float, baseline: float, goal: float, error: float) -> Figure:
    return Figure(
        id=name,
        value=round(value),
        unit=f"patients/CPU-s, error {error:.1e}",
        baseline=round(baseline),
        goal=goal,
        higher_is_better=True,
    )


def _speed(work: Callable[[], np.ndarray], repeats: int = 3) -> tuple[float, np.ndarray]:
    """Patients a CPU second, the best of a few runs after one to warm up, and the answer."""
    answer, best = work(), np.inf
    for _ in range(repeats):
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start)
    return PATIENTS / best, answer


def _error(found: np.ndarray, place: int) -> float:
    """The largest relative error, of what is not 0 by its nature."""
    truth = _truth()[place][:, 1:]
    return float(np.abs(found[:CHECKED, 1:] / truth - 1).max())


@cache
def _parameters() -> dict[str, np.ndarray]:
    draw = np.random.default_rng(0)
    return {
        name: value * np.exp(0.3 * draw.normal(size=(PATIENTS, 1)))
        for name, value in TYPICAL.items()
    }


@cache
def _tensors() -> dict[str, torch.Tensor]:
    return {name: torch.as_tensor(value) for name, value in _parameters().items()}


@cache
def _schedule() -> tuple[Doses, torch.Tensor]:
    times = INTERVAL * torch.arange(DOSES, dtype=torch.float64).expand(PATIENTS, -1)
    nothing = torch.zeros_like(times)
    doses = Doses(
        time=times,
        amount=nothing + DOSE,
        duration=nothing,
        route=nothing.long(),
        interval=nothing,
    )
    return doses, torch.as_tensor(TIMES).expand(PATIENTS, -1)


def _kinetics() -> LinearKinetics:
    one = _tensors()
    return LinearKinetics(
        disposition=Disposition(
            clearance=one["clearance"],
            volume=one["volume"],
            exchanges=((one["flow"], one["tissue"]),),
        ),
        routes=(Route(stages=1, rate=one["absorption"]),),
    )


def _closed_form() -> np.ndarray:
    return _kinetics().concentrations(*_schedule()).numpy()


def _response() -> np.ndarray:
    one = _tensors()
    stage = indirect_response(
        production=one["production"],
        loss=one["loss"],
        effect=lambda moment: sigmoid(
            moment.concentration, moment.values["largest"], moment.values["half"]
        ),
        acts_on="production",
        inhibits=True,
        values={"half": one["half"], "largest": torch.full_like(one["half"], LARGEST)},
    )
    found = responses(_kinetics(), *_schedule(), [stage], tolerance=TOLERANCE)
    return found[..., 0].numpy()


def _by_hand() -> np.ndarray:
    """The same concentrations after hour 0, written for a dose every 12 hours and nothing else."""
    clearance, volume, flow, tissue, absorption = (
        _parameters()[name][:, 0]
        for name in ("clearance", "volume", "flow", "tissue", "absorption")
    )
    out, there, back = clearance / volume, flow / volume, flow / tissue
    middle = (out + there + back) / 2
    fast = middle + np.sqrt(middle**2 - out * back)
    slow = out * back / fast
    rates = np.stack([fast, slow, absorption])
    shares = absorption * np.stack(
        [
            (back - fast) / ((absorption - fast) * (slow - fast)),
            (back - slow) / ((absorption - slow) * (fast - slow)),
            (back - absorption) / ((fast - absorption) * (slow - absorption)),
        ]
    )
    fading, held = np.exp(-rates * INTERVAL), np.zeros((DOSES, 3, PATIENTS))
    now = np.zeros((3, PATIENTS))
    for dose in range(DOSES):
        now = now * fading + DOSE * shares / volume
        held[dose] = now
    found = np.empty((PATIENTS, len(TIMES) - 1))
    for place, hour in enumerate(TIMES[1:]):
        last = min(int(np.ceil(hour / INTERVAL)) - 1, DOSES - 1)
        found[:, place] = (held[last] * np.exp(-rates * (hour - INTERVAL * last))).sum(0)
    return found


def _change(_: object, states: tuple, values: dict) -> tuple:
    depot, central, tissue, response = states
    absorbed, level = values["absorption"] * depot, central * values["inverse"]
    exchanged = values["flow"] * level - values["back"] * tissue
    inhibited = values["strongest"] * level / (values["half"] + level)
    return (
        -absorbed,
        absorbed - exchanged - values["clearance"] * level,
        exchanged,
        values["production"] - inhibited - values["loss"] * response,
    )


def _system(patients: int) -> System:
    one = {name: value[:patients] for name, value in _tensors().items()}
    nothing = torch.zeros(patients, dtype=torch.float64)
    return System(
        right_side=_change,
        start=(nothing, nothing, nothing, (one["production"] / one["loss"])[:, 0]),
        values={
            "inverse": 1 / one["volume"],
            "back": one["flow"] / one["tissue"],
            "strongest": LARGEST * one["production"],
            **{
                name: one[name]
                for name in ("absorption", "flow", "half", "clearance", "production", "loss")
            },
        },
    )


def _stepped(by: advancing.Advancing | None = None, step_h: float | None = None) -> np.ndarray:
    doses, times = _schedule()
    fastest = _tensors()["absorption"]
    (response,) = fixed_step.solve(
        _system(PATIENTS), doses, times, fastest, step_h=step_h, by=by, answers=(3,)
    )
    return response.numpy()


@cache
def _truth() -> tuple[np.ndarray, np.ndarray]:
    """Concentrations and responses of the first patients, (patients, times) each."""
    rows = [_solved({name: float(one[row, 0]) for name, one in _parameters().items()})
            for row in range(CHECKED)]  # fmt: skip
    return np.array([one[0] for one in rows]), np.array([one[1] for one in rows])


def _solved(one: dict[str, float]) -> tuple[np.ndarray, np.ndarray]:
    def change(_: float, state: np.ndarray) -> tuple:
        depot, central, tissue, response = state
        level = central / one["volume"]
        exchanged = one["flow"] * (level - tissue / one["tissue"])
        inhibition = 1 - LARGEST * level / (one["half"] + level)
        return (
            -one["absorption"] * depot,
            one["absorption"] * depot - exchanged - one["clearance"] * level,
            exchanged,
            one["production"] * inhibition - one["loss"] * response,
        )

    state = np.array([0.0, 0.0, 0.0, one["production"] / one["loss"]])
    levels, effects = [0.0], [state[3]]
    for begin in INTERVAL * np.arange(DOSES):
        state[0] += DOSE
        asked = TIMES[(begin < TIMES) & (begin + INTERVAL >= TIMES)]
        stops = np.append(asked[asked < begin + INTERVAL], begin + INTERVAL)
        span = (begin, begin + INTERVAL)
        solved = solve_ivp(change, span, state, "DOP853", stops, rtol=1e-10, atol=1e-12)
        levels += (solved.y[1, : len(asked)] / one["volume"]).tolist()
        effects += solved.y[3, : len(asked)].tolist()
        state = solved.y[:, -1].copy()
    return np.array(levels), np.array(effects)
