"""The closed form against matrix exponentials, published figures, and its own derivatives."""

import json
from functools import partial

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from torch.autograd import gradcheck, gradgradcheck

from fedtwin_twins.kinetics.disposition import Disposition
from fedtwin_twins.kinetics.events import Order, Route
from fedtwin_twins.kinetics.linear import LinearKinetics
from fedtwin_twins.twin.refusals import Refusal

from ..genes import SHARED
from .oracle import DOUBLE, Body, Dose, Way, column, make_doses, make_kinetics, row, simulate

CASES = SHARED / "cases" / "pharmacology"
WAYS = [Way(0), Way(1), Way(3), Way(0, duration=1.0), Way(5)]


@pytest.mark.skipif(not CASES.exists(), reason="the shared cases are not here")
@pytest.mark.parametrize("compartments", [1, 2, 3])
@pytest.mark.case("S01")
def test_published_figures_of_all_nine_models(compartments: int) -> None:
    case = json.loads((CASES / "S01_advan_closed_forms.json").read_text())
    given, schedule = case["inputs"]["params"], case["inputs"]["doses"]
    exchanges = [(given["Q"], given["V2"]), (given["Q2"], given["V3"])][: compartments - 1]
    body = Body(given["CL"], given["V"], exchanges, [Way(0), Way(1, given["KA"])])
    kinetics = make_kinetics([[(-np.inf, body)]])
    for name, duration, route in (("iv_bolus", 0.0, 0), ("iv_infusion", 1.0, 0), ("oral", 0.0, 1)):
        doses = [Dose(time, schedule["amt"], duration, route) for time in schedule["times"]]
        found = kinetics.concentrations(make_doses([doses]), row([23.0]))
        expected = case["expected"]["t=23"][f"{compartments}cmt_{name}"]
        assert float(found[0, 0]) == pytest.approx(expected, abs=case["tolerance"]["abs"])


@pytest.mark.skipif(not CASES.exists(), reason="the shared cases are not here")
@pytest.mark.case("S02")
def test_tacrolimus_after_ten_days_and_at_steady_state() -> None:
    case = json.loads((CASES / "S02_tacrolimus_woillard.json").read_text())
    for one in case["expected"]["rows"]:
        rate = 3.34 * 1.53 ** one["Prograf"]
        volume = 486 * 0.29 ** one["Prograf"] / 1000  # ug/L from mg
        body = Body(one["CL"] / 1000, volume, [(0.079, 0.271)], [Way(3, rate)])
        kinetics = make_kinetics([[(-np.inf, body)]])
        tau = one["tau_h"]
        doses = [Dose(tau * k, one["dose_mg"]) for k in range(10 * 24 // tau + 1)]
        last = doses[-2].time
        found = kinetics.concentrations(
            make_doses([doses]), row([last, last + 1, last + 2, last + 4, last + tau])
        )[0]
        wanted = [one[name] for name in ("C_pre", "C1", "C2", "C4", "C_trough")]
        assert found.numpy() == pytest.approx(wanted, rel=case["tolerance"]["rel"])
        steady = make_doses([[Dose(0.0, one["dose_mg"])]], [tau])
        area = kinetics.areas(steady, row([tau]))
        assert float(area) == pytest.approx(1000 * one["dose_mg"] / one["CL"], rel=1e-9)


def random_case(seed: int) -> tuple[list[list[tuple[float, Body]]], list[list[Dose]]]:
    """Two patients of one random structure, with changing parameters."""
    draw = np.random.default_rng(seed)
    compartments, spans = draw.integers(1, 4), draw.integers(1, 4)
    kinds = [WAYS[k] for k in draw.choice(len(WAYS), draw.integers(1, 4), replace=False)]

    def about(typical: float) -> float:
        return float(typical * np.exp(0.5 * draw.normal()))

    def way(kind: Way) -> Way:
        rate = about(1.0) if kind.stages else 0.0
        duration = None if kind.duration is None else float(draw.uniform(1, 5))
        return Way(
            kind.stages, rate, float(draw.uniform(0.5, 1)), float(draw.uniform(0, 2)), duration
        )

    patients, doses = [], []
    for _ in range(2):
        later = draw.choice(np.arange(1, 40), spans - 1, replace=False)
        bodies = []
        for start in (-np.inf, *sorted(later.tolist())):
            exchanges = [(about(5), about(100)), (about(3), about(150))][: compartments - 1]
            ways = [way(kind) for kind in kinds]
            bodies.append((float(start), Body(about(10), about(50), exchanges, ways)))
        patients.append(bodies)
        count = int(draw.integers(1, 8))
        times = sorted(draw.integers(0, 40, count).tolist())
        doses.append(
            [
                Dose(
                    float(time),
                    float(draw.uniform(50, 100)),
                    float(draw.choice([0.0, 1.0, 7.0])),
                    int(draw.integers(len(kinds))),
                )
                for time in times
            ]
        )
    return patients, doses


@pytest.mark.parametrize("seed", range(24))
def test_any_schedule_as_by_matrix_exponentials(seed: int) -> None:
    """Boluses, infusions, chains and changing parameters, some at the very time that is asked."""
    patients, doses = random_case(seed)
    draw = np.random.default_rng(seed)
    times = np.concatenate([draw.uniform(0, 60, 12), draw.integers(0, 60, 8)])
    asked = torch.tensor(times, dtype=DOUBLE).expand(2, -1)
    kinetics, batch = make_kinetics(patients), make_doses(doses)
    levels, areas = kinetics.concentrations(batch, asked), kinetics.areas(batch, asked)
    amounts = kinetics.amounts(batch, asked)
    for place, (bodies, schedule) in enumerate(zip(patients, doses, strict=True)):
        level, area, amount = simulate(bodies, schedule, times.tolist())
        assert levels[place].numpy() == pytest.approx(level, rel=1e-9, abs=1e-12 * level.max())
        assert areas[place].numpy() == pytest.approx(area, rel=1e-9, abs=1e-12 * area.max())
        assert amounts[place].numpy() == pytest.approx(amount, rel=1e-9, abs=1e-12 * amount.max())


def test_as_an_adaptive_solver_of_high_order_finds_it() -> None:
    body = Body(10.0, 50.0, [(5.0, 100.0), (3.0, 150.0)], [Way(3, 1.3)])

    def change(_: float, state: np.ndarray) -> np.ndarray:
        return body.matrix() @ state

    start = np.zeros(body.size)
    start[body.entry(0)] = 100.0
    times = np.array([0.5, 2.0, 9.0, 40.0])
    solved = solve_ivp(change, (0, 40), start, "DOP853", times, rtol=1e-12, atol=1e-14)
    found = make_kinetics([[(-np.inf, body)]]).concentrations(
        make_doses([[Dose(0.0, 100.0)]]), row(times.tolist())
    )
    assert found[0].numpy() == pytest.approx(solved.y[0] / body.volume, rel=1e-9)


@pytest.mark.parametrize("stages", [1, 2, 3, 5])
@pytest.mark.parametrize("apart", [0.0, 1e-12, 1e-8, 1e-6, 1e-4, 1e-2, 0.3, -0.3])
def test_rates_may_coincide(stages: int, apart: float) -> None:
    rate = 0.2 * (1 + apart)
    body = Body(10.0, 50.0, (), [Way(stages, rate)])
    times = [0.5, 1.0, 5.0, 20.0, 80.0]
    level, *_ = simulate([(-np.inf, body)], [Dose(0.0, 100.0)], times)
    found = make_kinetics([[(-np.inf, body)]]).concentrations(
        make_doses([[Dose(0.0, 100.0)]]), row(times)
    )
    assert found[0].numpy() == pytest.approx(level, rel=1e-9)


def test_two_equal_tissues_are_one() -> None:
    twins = Body(10.0, 50.0, [(4.0, 80.0), (4.0, 80.0)])
    one = Body(10.0, 50.0, [(8.0, 160.0)])
    doses, times = make_doses([[Dose(0.0, 100.0)]]), row([0.1, 1.0, 10.0, 100.0])
    found = [
        make_kinetics([[(-np.inf, body)]]).concentrations(doses, times) for body in (twins, one)
    ]
    assert torch.allclose(*found, rtol=1e-11)


def test_micro_constants_say_the_same() -> None:
    ways = (Route(),)
    volumes = Disposition(
        clearance=column(10.0), volume=column(50.0), exchanges=((column(5.0), column(100.0)),)
    )
    rates = Disposition.of_rates(column(50.0), column(0.2), [(column(0.1), column(0.05))])
    doses, times = make_doses([[Dose(0.0, 100.0)]]), row([0.5, 5.0, 50.0])
    found = [
        LinearKinetics(disposition=one, routes=ways).concentrations(doses, times)
        for one in (volumes, rates)
    ]
    assert torch.allclose(*found, rtol=1e-13)


def test_what_counts_at_the_time_of_a_dose_or_a_change() -> None:
    """A bolus of 100 into 50 L, whose volume halves when the dose is given."""
    bodies = [(-np.inf, Body(1e-9, 50.0)), (3.0, Body(1e-9, 25.0))]
    doses = make_doses([[Dose(0.0, 100.0), Dose(3.0, 100.0)]])
    expected = {
        Order(): 2.0,
        Order(change_first=True): 4.0,
        Order(dose_first=True): 8.0,
        Order(dose_first=True, change_first=True): 8.0,
    }
    for order, level in expected.items():
        found = make_kinetics([bodies], order).concentrations(doses, row([3.0]))
        assert float(found) == pytest.approx(level, rel=1e-6), order


def parameters() -> list[torch.Tensor]:
    given = [
        [[10.0, 11.0], [9.0, 9.0]],
        [[50.0, 60.0], [40.0, 40.0]],
        [[5.0, 5.0], [6.0, 6.0]],
        [[100.0, 100.0], [90.0, 90.0]],
        [[1.0, 1.2], [0.8, 0.8]],
        [[0.5, 0.4], [0.3, 0.3]],
        [[0.8, 0.9], [0.7, 0.7]],
        [[2.0, 2.0], [3.0, 3.0]],
    ]
    return [torch.tensor(one, dtype=DOUBLE).requires_grad_() for one in given]


def bound(third: bool, *given: torch.Tensor) -> LinearKinetics:
    clearance, volume, flow, tissue, rate, lag, fraction, duration = given
    exchanges = ((flow, tissue), (flow * 0.5, tissue * 2)) if third else ((flow, tissue),)
    return LinearKinetics(
        disposition=Disposition(clearance=clearance, volume=volume, exchanges=exchanges),
        routes=(
            Route(stages=1, rate=rate, lag=lag, bioavailability=fraction),
            Route(stages=3, rate=rate * 1.3, duration=duration),
            Route(),
        ),
        starts=torch.tensor([[-torch.inf, 5.3], [-torch.inf, torch.inf]], dtype=DOUBLE),
    )


@pytest.mark.parametrize("third", [False, True])
def test_derivatives_in_every_parameter(third: bool) -> None:
    doses = make_doses(
        [
            [Dose(0, 100), Dose(1.0, 100.0, 0.0, 1), Dose(6.0, 100.0, 1.5, 2)],
            [Dose(0.2, 100), Dose(4, 20, 0, 1)],
        ]
    )
    times = torch.tensor([[1.3, 7.1, 9.9], [2.2, 3.3, 5.0]], dtype=DOUBLE)
    given = parameters()
    kinetics = partial(bound, third)
    assert gradcheck(lambda *p: kinetics(*p).concentrations(doses, times), given, fast_mode=True)
    assert gradcheck(lambda *p: kinetics(*p).areas(doses, times), given, fast_mode=True)
    if not third:
        assert gradgradcheck(
            lambda *p: kinetics(*p).concentrations(doses, times[:, :2]),
            given,
            atol=1e-4,
            fast_mode=True,
        )


def test_derivatives_where_rates_coincide() -> None:
    rate = torch.tensor([[0.2]], dtype=DOUBLE, requires_grad=True)

    def level(given: torch.Tensor, stages: int) -> torch.Tensor:
        disposition = Disposition(clearance=column(10.0), volume=column(50.0))
        kinetics = LinearKinetics(
            disposition=disposition, routes=(Route(stages=stages, rate=given),)
        )
        return kinetics.concentrations(make_doses([[Dose(0.0, 100.0)]]), row([1.0, 6.0]))

    for stages in (1, 3):
        assert gradcheck(lambda given, stages=stages: level(given, stages), [rate])


def test_blocks_of_patients_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    patients, doses = random_case(3)
    many = make_kinetics(patients * 8), make_doses(doses * 8)
    times = torch.linspace(0, 50, 30, dtype=DOUBLE).expand(16, -1)
    whole = many[0].concentrations(many[1], times)
    monkeypatch.setattr("fedtwin_twins.kinetics.linear.BLOCK", 5)
    monkeypatch.setattr("fedtwin_twins.kinetics.linear.NUMBERS", 70)
    assert torch.equal(many[0].concentrations(many[1], times), whole)


def test_what_cannot_be_is_refused() -> None:
    times = row([1.0])
    body = Body(10.0, 50.0, (), [Way(0, lag=13.0)])
    late = make_kinetics([[(-np.inf, body)]])
    with pytest.raises(Refusal, match=r"doses\[0\].lag is 13 h; expected at most the interval"):
        late.concentrations(make_doses([[Dose(0.0, 1.0)]], [12.0]), times)
    plain = make_kinetics([[(-np.inf, Body(10.0, 50.0))]])
    with pytest.raises(Refusal, match=r"doses\[0\].duration is 13 h"):
        plain.concentrations(make_doses([[Dose(0.0, 1.0, 13.0)]], [12.0]), times)
    with pytest.raises(Refusal, match=r"doses\[1\].route is 2"):
        plain.concentrations(make_doses([[Dose(0.0, 1.0), Dose(1.0, 1.0, 0.0, 2)]]), times)


def test_no_dose_is_no_concentration() -> None:
    plain = make_kinetics([[(-np.inf, Body(10.0, 50.0))]] * 2)
    doses = make_doses([[], [Dose(1.0, 50.0)]])
    found = plain.concentrations(doses, torch.tensor([[0.0, 5.0], [0.0, 1.0]], dtype=DOUBLE))
    assert found.abs().max() == 0.0
