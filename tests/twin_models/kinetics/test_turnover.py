"""Responses along a concentration, against an adaptive solver of high order."""

import json
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from torch.autograd import gradcheck

from fedtwin_twins.kinetics.quadrature import responses
from fedtwin_twins.kinetics.turnover import (
    Stage,
    effect_compartment,
    indirect_response,
    log_linear,
    sigmoid,
    transit,
)
from fedtwin_twins.twin.refusals import Refusal

from ..genes import SHARED
from .oracle import DOUBLE, Body, Dose, Way, column, make_doses, make_kinetics, row, simulate

CASES = SHARED / "cases" / "pharmacology"
BODY = Body(10.0, 50.0, [(5.0, 100.0)], [Way(1, 0.9), Way(0)])
DOSES = [Dose(0.0, 100.0), Dose(7.3, 60.0, 2.0, 1), Dose(24.0, 100.0)]
TIMES = [0.0, 0.4, 3.0, 7.3, 9.3, 24.0, 25.0, 40.0, 71.0]


def solved(
    change: Callable[[float, float, np.ndarray], list[float]], start: list[float]
) -> np.ndarray:
    """The responses by DOP853, from event to event, along exact concentrations."""
    edges = sorted({0.0, 7.3, 9.3, 24.0, *TIMES})
    state, found = np.array(start), {0.0: np.array(start)}

    def level(time: float) -> float:
        return float(simulate([(-np.inf, BODY)], DOSES, [time])[0][0])

    for low, high in pairwise(edges):
        grown = solve_ivp(
            lambda time, now: change(level(time), time, now),
            (low, high),
            state,
            "DOP853",
            rtol=1e-9,
            atol=1e-12,
        )
        state = grown.y[:, -1]
        found[high] = state
    return np.array([found[time] for time in TIMES])


def asked(stages: list[Stage]) -> np.ndarray:
    kinetics = make_kinetics([[(-np.inf, BODY)]])
    return responses(kinetics, make_doses([DOSES]), row(TIMES), stages)[0].numpy()


@pytest.mark.parametrize("acts_on", ["production", "loss"])
@pytest.mark.parametrize("inhibits", [True, False])
@pytest.mark.parametrize("hill", [None, 2.0])
def test_the_four_indirect_responses(acts_on: str, inhibits: bool, hill: float | None) -> None:
    stage = indirect_response(
        production=column(10.0),
        loss=column(0.2),
        effect=lambda moment: sigmoid(
            moment.concentration,
            moment.values["maximum"],
            moment.values["half"],
            moment.values.get("hill"),
        ),
        acts_on=acts_on,  # type: ignore[arg-type]
        inhibits=inhibits,
        values={"maximum": column(0.8), "half": column(0.5)}
        | ({} if hill is None else {"hill": column(hill)}),
        largest_effect=column(0.8),
    )

    def change(level: float, _: float, state: np.ndarray) -> list[float]:
        power = max(level, 0.0) ** (hill or 1.0)
        effect = (-1 if inhibits else 1) * 0.8 * power / (0.5 ** (hill or 1.0) + power)
        made, lost = (1 + effect, 1.0) if acts_on == "production" else (1.0, 1 + effect)
        return [10.0 * made - 0.2 * lost * state[0]]

    assert asked([stage])[:, 0] == pytest.approx(solved(change, [50.0])[:, 0], rel=1e-4)


def test_effect_compartment_and_a_chain_behind_it() -> None:
    chain = transit(
        column(0.3),
        2,
        lambda moment: log_linear(moment.previous, moment.values["slope"], moment.values["scale"]),
        values={"slope": column(2.0), "scale": column(0.3)},
    )

    def change(level: float, _: float, state: np.ndarray) -> list[float]:
        signal = 2.0 * np.log1p(state[0] / 0.3)
        return [0.7 * (level - state[0]), 0.3 * (signal - state[1]), 0.3 * (state[1] - state[2])]

    found = asked([effect_compartment(column(0.7)), *chain])
    expected = solved(change, [0.0, 0.0, 0.0])
    assert np.abs(found - expected).max(axis=0) == pytest.approx(0, abs=2e-4)


def test_a_loss_that_is_quick_is_followed() -> None:
    """Loss of 50/h: the response is all but the equilibrium of the moment."""
    stage = effect_compartment(column(50.0))
    level = simulate([(-np.inf, BODY)], DOSES, [70.0])[0]
    kinetics = make_kinetics([[(-np.inf, BODY)]])
    found = responses(kinetics, make_doses([DOSES]), row([70.0]), [stage])
    assert float(found) == pytest.approx(float(level[0]), rel=2e-3)


@pytest.mark.skipif(not CASES.exists(), reason="the shared cases are not here")
@pytest.mark.parametrize("creatinine_clearance", [106.5, 40.0])
@pytest.mark.case("S05")
def test_metformin_whose_hill_exponent_is_below_one(creatinine_clearance: float) -> None:
    case = json.loads((CASES / "S05_metformin_chae.json").read_text())
    name = f"CRCL_{creatinine_clearance:g}".replace(".", "p")
    clearance = 52.6 * (creatinine_clearance / 106.5) ** 0.782
    kinetics = make_kinetics([[(-np.inf, Body(clearance, 113.0, (), [Way(1, 0.41)]))]])
    stages = transit(
        column(1 / 0.5),
        3,
        lambda moment: sigmoid(moment.concentration, column(19.8), column(3.68), column(0.55)),
    )
    doses, times = make_doses([[Dose(0.0, 500.0)]]), row(case["inputs"]["t_h"])
    levels = kinetics.concentrations(doses, times)[0].numpy()
    found = responses(kinetics, doses, times, stages)[0, :, -1].numpy()
    expected = case["expected"][name]
    assert levels == pytest.approx(expected["C_mgL"], rel=case["tolerance"]["rel"])
    assert found == pytest.approx(expected["pct_glucose"], rel=case["tolerance"]["rel"])


def test_derivatives() -> None:
    def response(loss: torch.Tensor, hill: torch.Tensor, clearance: torch.Tensor) -> torch.Tensor:
        kinetics = make_kinetics([[(-np.inf, BODY)]])
        object.__setattr__(kinetics.disposition, "clearance", clearance)
        stage = indirect_response(
            production=column(10.0),
            loss=loss,
            effect=lambda moment: sigmoid(
                moment.concentration, column(0.8), column(0.5), moment.values["hill"]
            ),
            acts_on="production",
            inhibits=True,
            values={"hill": hill},
        )
        return responses(kinetics, make_doses([DOSES]), row(TIMES[1:5]), [stage])

    given = [column(value).requires_grad_() for value in (0.2, 0.55, 10.0)]
    assert gradcheck(response, given, atol=1e-5)


def test_patients_of_unlike_schedules_do_not_disturb_one_another() -> None:
    schedules = [DOSES, [Dose(3.0, 500.0)], []]
    kinetics = make_kinetics([[(-np.inf, BODY)]] * 3)
    stage = indirect_response(
        production=column(10.0),
        loss=column(0.2),
        effect=lambda moment: sigmoid(moment.concentration, column(0.8), column(0.5)),
        acts_on="production",
        inhibits=True,
    )
    together = responses(kinetics, make_doses(schedules), row(TIMES).expand(3, -1), [stage])
    for place, doses in enumerate(schedules):
        alone = responses(
            make_kinetics([[(-np.inf, BODY)]]), make_doses([doses]), row(TIMES), [stage]
        )
        assert torch.allclose(together[place], alone[0], rtol=1e-4)
    assert torch.allclose(together[2], torch.full_like(together[2], 50.0))


def test_a_schedule_that_all_share_says_what_each_hears_alone() -> None:
    """What is worked out once for all is compared with what is worked out for one alone."""
    bodies = [
        Body(10.0 * much, 50.0, [(5.0, 100.0)], [Way(1, 0.9 / much)]) for much in (0.7, 1.0, 1.6)
    ]
    doses = [Dose(12.0 * place, 100.0) for place in range(6)]
    loss = (0.2, 0.1, 0.3)

    def levels_and_response(
        chosen: list[Body], losses: tuple[float, ...]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        kinetics = make_kinetics([[(-np.inf, body)] for body in chosen])
        given = make_doses([doses] * len(chosen))
        times = row([*TIMES, 80.0]).expand(len(chosen), -1)
        stage = effect_compartment(column(*losses))
        return (
            kinetics.concentrations(given, times),
            kinetics.areas(given, times),
            responses(kinetics, given, times, [stage], tolerance=1e-9)[..., 0],
        )

    together = levels_and_response(bodies, loss)
    for place, body in enumerate(bodies):
        alone = levels_and_response([body], loss[place : place + 1])
        for whole, one, apart in zip(together, alone, (1e-12, 1e-12, 1e-7), strict=True):
            assert torch.allclose(whole[place], one[0], rtol=apart, atol=1e-12)


def test_a_tolerance_is_kept_and_a_foolish_one_refused() -> None:
    kinetics = make_kinetics([[(-np.inf, BODY)]])
    given, times = make_doses([[Dose(12.0 * place, 100.0) for place in range(6)]]), row(TIMES[1:])
    stages = [effect_compartment(column(0.3))]
    truth = responses(kinetics, given, times, stages, tolerance=1e-9)
    for tolerance in (1e-3, 1e-5, 1e-7):
        found = responses(kinetics, given, times, stages, tolerance=tolerance)
        assert float((found / truth - 1).abs().max()) < tolerance
    with pytest.raises(Refusal, match=r"tolerance is 0\.5"):
        responses(kinetics, given, times, stages, tolerance=0.5)


def test_a_steady_state_of_doses_is_refused() -> None:
    kinetics = make_kinetics([[(-np.inf, BODY)]])
    doses = make_doses([[Dose(0.0, 100.0)]], [12.0])
    with pytest.raises(Refusal, match=r"interval is 12 h; .*write out the doses"):
        responses(kinetics, doses, row([1.0]), [effect_compartment(column(1.0))])
    assert doses.time.dtype == DOUBLE
