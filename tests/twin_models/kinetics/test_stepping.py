"""The recursion in matrices, for few patients, against the one in single numbers, for many."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from fedtwin_twins.kinetics import courses, superposition
from fedtwin_twins.kinetics.disposition import Disposition
from fedtwin_twins.kinetics.events import Route
from fedtwin_twins.kinetics.linear import LinearKinetics
from fedtwin_twins.twin.batch import Doses

from .oracle import DOUBLE, Dose, column, make_doses, make_kinetics
from .test_linear import bound, parameters, random_case

TIMES = torch.linspace(0.0, 60.0, 25, dtype=DOUBLE).expand(2, -1)


def all_of(kinetics: LinearKinetics, doses: Doses, times: Tensor) -> list[Tensor]:
    return [
        kinetics.concentrations(doses, times),
        kinetics.amounts(doses, times),
        kinetics.areas(doses, times, since=2.0),
        kinetics.areas_of_amounts(doses, times),
    ]


def assert_the_same_both_ways(
    monkeypatch: pytest.MonkeyPatch, answer: Callable[[], list[Tensor]]
) -> None:
    """By matrices and by single numbers, and never by a sum over doses."""
    monkeypatch.setattr(superposition, "FEW", -1)
    monkeypatch.setattr(superposition, "FEW_TIMES", -1)
    found = answer()
    monkeypatch.setattr(courses, "FEW", 0)
    for one, other in zip(found, answer(), strict=True):
        assert torch.allclose(one, other, rtol=1e-11, atol=1e-13 * float(other.abs().max()))


@pytest.mark.parametrize("seed", range(16))
def test_any_schedule(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Boluses, infusions, chains of several routes, and changing parameters."""
    patients, schedules = random_case(seed)
    kinetics, doses = make_kinetics(patients), make_doses(schedules)
    assert_the_same_both_ways(monkeypatch, lambda: all_of(kinetics, doses, TIMES))


@pytest.mark.parametrize("duration", [0.0, 3.0])
def test_steady_states_of_what_some_patients_share(
    duration: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two patients of the same clearance and volume, who absorb at different rates."""
    shared = Disposition(clearance=column(10.0), volume=column(50.0))
    routes = (Route(stages=2, rate=column(1.0, 2.0)), Route())
    kinetics = LinearKinetics(disposition=shared, routes=routes)
    given = [[Dose(0.0, 100.0)], [Dose(0.0, 100.0, duration, 1)]]
    doses = make_doses(given, intervals=[12.0, 24.0])
    assert_the_same_both_ways(monkeypatch, lambda: all_of(kinetics, doses, TIMES))


@pytest.mark.parametrize("third", [False, True])
def test_derivatives(third: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    given = parameters()
    doses = make_doses(
        [[Dose(0, 100), Dose(1, 100, 0, 1), Dose(6, 100, 1.5, 2)], [Dose(0.2, 100), Dose(4, 20)]]
    )

    def slopes() -> list[Tensor]:
        answers = all_of(bound(third, *given), doses, TIMES[:, 2:9])
        whole = sum(((one**2).mean() for one in answers), torch.zeros((), dtype=DOUBLE))
        return list(torch.autograd.grad(whole, given))

    assert_the_same_both_ways(monkeypatch, slopes)
