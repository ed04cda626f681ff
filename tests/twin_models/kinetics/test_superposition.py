"""The sum over doses against the recursion, which answers where there is no sum."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from fedtwin_twins.kinetics import fading, superposition
from fedtwin_twins.kinetics.disposition import Disposition
from fedtwin_twins.kinetics.events import Order, Route
from fedtwin_twins.kinetics.fading import FadingSums
from fedtwin_twins.kinetics.linear import LinearKinetics
from fedtwin_twins.kinetics.superposition import superposed
from fedtwin_twins.twin.batch import Doses

from .oracle import DOUBLE, Body, Dose, Way, make_doses, make_kinetics

PATIENTS = 3
NAMES = ("clearance", "volume", "flow", "tissue", "absorption", "lag", "fraction", "duration")
ABOUT = (10.0, 50.0, 5.0, 100.0, 1.5, 0.7, 0.8, 2.0)


def drawn_parameters(seed: int) -> list[Tensor]:
    draw = np.random.default_rng(seed)
    found = np.array(ABOUT)[:, None] * np.exp(0.3 * draw.normal(size=(len(ABOUT), PATIENTS)))
    return [torch.tensor(one, dtype=DOUBLE)[:, None].requires_grad_() for one in found]


def kinetics_of(
    given: Sequence[Tensor], compartments: int, stages: int, order: Order
) -> LinearKinetics:
    by = dict(zip(NAMES, given, strict=True))
    exchanges = ((by["flow"], by["tissue"]), (by["flow"] / 3, by["tissue"] * 2))
    routes = (
        Route(),
        Route(
            stages=stages,
            rate=by["absorption"] * stages,
            lag=by["lag"],
            bioavailability=by["fraction"],
        ),
        Route(duration=by["duration"], lag=by["lag"] / 2),
    )
    disposition = Disposition(
        clearance=by["clearance"], volume=by["volume"], exchanges=exchanges[: compartments - 1]
    )
    return LinearKinetics(disposition=disposition, routes=routes, order=order)


def drawn_doses(seed: int) -> Doses:
    """Boluses and infusions, what is swallowed, and what takes the patient's own time."""
    draw = np.random.default_rng(seed)
    rows = []
    for _ in range(PATIENTS):
        times = sorted(draw.integers(0, 40, 5).tolist())[: int(draw.integers(2, 6))]
        routes = draw.integers(0, 3, len(times)).tolist()
        durations = [float(draw.choice([0.0, 1.5])) if route == 0 else 0.0 for route in routes]
        rows.append(
            [
                Dose(float(time), float(draw.uniform(50, 100)), duration, route)
                for time, duration, route in zip(times, durations, routes, strict=True)
            ]
        )
    return make_doses(rows)


def asked_times(seed: int) -> Tensor:
    """Some of them whole hours, at which doses are given."""
    draw = np.random.default_rng(seed)
    whole = draw.integers(0, 50, (PATIENTS, 4))
    return torch.tensor(np.concatenate([whole, draw.uniform(0, 60, (PATIENTS, 4))], 1))


def with_derivatives(levels: Tensor, given: list[Tensor]) -> list[Tensor]:
    """The levels, and the first and second derivatives of their squares in all that they need."""
    first = torch.autograd.grad((levels**2).sum(), given, create_graph=True, allow_unused=True)
    there = [one for one in first if one is not None]
    mixed = sum((one.sum() * place for place, one in enumerate(there, 1)), torch.zeros(()))
    second = torch.autograd.grad(mixed, given, allow_unused=True)
    return [one.detach() for one in (levels, *there, *second) if one is not None]


def answers(seed: int, compartments: int, stages: int, *, summed: bool) -> list[Tensor]:
    """With derivatives, of drawn patients; by a sum or else by the recursion."""
    given, doses, times = drawn_parameters(seed), drawn_doses(seed), asked_times(seed)
    order = Order(dose_first=seed % 2 == 1)
    kinetics = kinetics_of(given, compartments, stages, order)
    assert (superposed(kinetics.given(doses), times, order) is not None) == summed
    return with_derivatives(kinetics.concentrations(doses, times), given)


@pytest.mark.parametrize("compartments", [1, 2, 3])
@pytest.mark.parametrize(("seed", "stages"), [(0, 1), (1, 1), (2, 3), (3, 5)])
def test_as_the_recursion_with_all_derivatives(
    seed: int, stages: int, compartments: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = answers(seed, compartments, stages, summed=True)
    monkeypatch.setattr(superposition, "FEW", -1)
    monkeypatch.setattr(superposition, "FEW_TIMES", -1)
    expected = answers(seed, compartments, stages, summed=False)
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one, other, rtol=1e-9, atol=1e-10 * float(other.abs().max()))


def sums(rates: Tensor, lag: Tensor, *, running: bool = True) -> FadingSums:
    amount = torch.tensor([[3.0, 1.0, 2.0], [1.0, 4.0, 0.0]], dtype=DOUBLE)
    start = torch.tensor([[0.0, 1.0, 4.0], [0.5, 3.0, torch.inf]], dtype=DOUBLE)
    times = torch.tensor([[1.5, 3.3, 9.0], [0.4, 4.4, 6.0]], dtype=DOUBLE)
    duration = torch.tensor([[2.0, 0.0, 0.5], [1.0, 3.0, 0.0]], dtype=DOUBLE)
    return FadingSums(rates, lag, amount, start, times, False, duration if running else None)


def rates_and_lag() -> tuple[Tensor, Tensor]:
    rates = torch.tensor([[[0.3], [0.2]], [[1.1], [0.9]]], dtype=DOUBLE, requires_grad=True)
    lag = torch.tensor([[0.2], [0.1]], dtype=DOUBLE, requires_grad=True)
    return rates, lag


@pytest.mark.parametrize("powers", [(0, 1), (1, 1), (0, 3)])
@pytest.mark.parametrize("running", [False, True])
def test_derivatives_of_the_sums_of_any_order(powers: tuple[int, int], running: bool) -> None:
    def found(rates: Tensor, lag: Tensor) -> Tensor:
        return sums(rates, lag, running=running).of(*powers)

    assert gradcheck(found, rates_and_lag())
    assert gradgradcheck(found, rates_and_lag())


def test_many_derivatives_in_one_call_are_those_of_one_after_another() -> None:
    rates, lag = rates_and_lag()
    found = sums(rates, lag).of()
    each = torch.eye(found.numel(), dtype=DOUBLE).view(-1, *found.shape)
    (together,) = torch.autograd.grad(found, rates, each, is_grads_batched=True, create_graph=True)
    alone = [torch.autograd.grad(found, rates, one, create_graph=True)[0] for one in each]
    assert torch.allclose(together, torch.stack(alone), rtol=1e-13)
    (twice,) = torch.autograd.grad((together**2).sum(), rates)
    (expected,) = torch.autograd.grad(sum((one**2).sum() for one in alone), rates)
    assert torch.allclose(twice, expected, rtol=1e-13)


def test_doses_may_be_added_up_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = sums(*rates_and_lag())
    monkeypatch.setattr(fading, "TOGETHER", 1)
    parts = sums(*rates_and_lag())
    assert torch.allclose(whole.of(0, 4), parts.of(0, 4), rtol=1e-14)


def answered(body: Body, doses: Doses, later: Sequence[tuple[float, Body]] = ()) -> bool:
    kinetics = make_kinetics([[(-np.inf, body), *later]])
    times = torch.tensor([[5.0]], dtype=DOUBLE)
    return superposed(kinetics.given(doses), times, kinetics.order) is not None


def test_what_is_no_sum_of_exponentials_is_left_to_the_recursion() -> None:
    body, swallowed = Body(10.0, 50.0), Body(10.0, 50.0, (), [Way(1, 1.0)])
    bolus, infusion = make_doses([[Dose(0.0, 1.0)]]), make_doses([[Dose(0.0, 1.0, 2.0)]])
    assert answered(body, bolus)
    assert answered(body, infusion)
    assert answered(swallowed, bolus)
    assert not answered(swallowed, infusion)
    assert not answered(body, replace(bolus, interval=torch.full((1, 1), 12.0, dtype=DOUBLE)))
    assert not answered(body, bolus, [(3.0, Body(5.0, 50.0))])
    assert answered(Body(10.0, 50.0, (), [Way(3, 1.0)]), bolus)
    assert not answered(Body(10.0, 50.0, (), [Way(3, 0.21)]), bolus)
    later = make_doses([[Dose(6.0, 1.0)]])
    assert answered(Body(10.0, 50.0, (), [Way(3, 0.21)]), later)
    assert not answered(Body(10.0, 50.0, (), [Way(3, 0.2)]), later)
    assert not answered(Body(10.0, 50.0, (), [Way(1, 0.2 * (1 + 1e-6))]), bolus)
