"""Elimination that saturates: against SciPy, and through every verb of a twin."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from fedtwin_twins.advice.assessment import Horizon
from fedtwin_twins.advice.limits import Limits
from fedtwin_twins.advice.regimen import Regimen
from fedtwin_twins.advice.search import Goal, regimens_of
from fedtwin_twins.advice.targets import Target
from fedtwin_twins.belief.posterior import Inference
from fedtwin_twins.dosing import limits_of
from fedtwin_twins.patient_twin import Twin, build
from fedtwin_twins.pharmacology.card_model import CardModel
from fedtwin_twins.pharmacology.reading_cards import card_from
from fedtwin_twins.pharmacology.structures import SATURABLE
from fedtwin_twins.twin.batch import Batch
from fedtwin_twins.twin.observation import Observation
from fedtwin_twins.twin.quantities import Quantity
from fedtwin_twins.twin.refusals import Refusal
from fedtwin_twins.twin.schedule import Dose, Schedule
from fedtwin_twins.twin.tabulate import Patient, tabulate

from .saturable_cards import content, saturable_card

EFFECTS = torch.tensor([[0.1, -0.2, 0.15]], dtype=torch.float64)


def dose(hour: float, amount: float, route: str, **more: object) -> Dose:
    return Dose(time=Quantity(hour, "h"), amount=Quantity(amount, "mg"), route=route, **more)  # type: ignore[arg-type]


def hours(value: float) -> Quantity:
    return Quantity(value, "h")


MIXED = (
    dose(0, 300, "intravenous"),
    dose(2, 400, "oral"),
    dose(9, 250, "intravenous", duration=hours(4)),
    dose(14, 300, "slow"),
    dose(20, 350, "chain"),
)


def batch_of(model: CardModel, doses: Sequence[Dose]) -> Batch:
    return tabulate([Patient(schedule=Schedule(tuple(doses)))], model.intake).batch


def row(values: Sequence[float]) -> Tensor:
    return torch.tensor([list(values)], dtype=torch.float64)


def by_scipy(model: CardModel, doses: Sequence[Dose], asked: Sequence[float]) -> np.ndarray:
    """Concentration and its area from the first dose, (2, asked)."""
    known = model.individual(batch_of(model, doses), EFFECTS)
    by = {name: float(value[0, 0]) for name, value in known.items()}
    change = _equations(by, model.card.disposition)
    events = _events(doses)
    state, inflow, begin, found = np.zeros(7), 0.0, min(hour for hour, _, _ in events), []
    for mark in sorted({hour for hour, _, _ in events} | set(asked)):
        if mark > begin:
            state = solve_ivp(
                change, (begin, mark), state, "LSODA", args=(inflow,), rtol=1e-10, atol=1e-10
            ).y[:, -1]
        if mark in asked:
            found.append((state[0] / by["central_volume"], state[6]))
        for _, place, amount in (one for one in events if one[0] == mark):
            if place < 0:
                inflow += amount
            else:
                state[place] += amount
        begin = mark
    return np.array(found).T


def _equations(by: dict[str, float], disposition: str) -> Callable[..., list[float]]:
    """Of both compartments, the depot, three stages and the area."""
    two, linear = "two_" in disposition, "linear" in disposition
    ka = by["absorption_rate"]

    def change(_: float, y: np.ndarray, inflow: float) -> list[float]:
        level = y[0] / by["central_volume"]
        out = by["maximal_elimination_rate"] * level / (by["half_saturation_concentration"] + level)
        out += by["clearance"] * level if linear else 0.0
        flow = by["intercompartmental_clearance"] * (level - y[1] / by["peripheral_volume"])
        flow = flow if two else 0.0
        gained = ka * (y[2] + y[5]) + inflow
        chain = (-ka * y[3], ka * (y[3] - y[4]), ka * (y[4] - y[5]))
        return [gained - out - flow, flow, -ka * y[2], *chain, level]

    return change


def _events(doses: Sequence[Dose]) -> list[tuple[float, int, float]]:
    """Hour, place of the state (-1: what runs in), amount."""
    found: list[tuple[float, int, float]] = []
    for one in doses:
        hour, amount = one.time.value, one.amount.value  # type: ignore[union-attr]
        lasting = one.duration.value if one.duration else 3.0 if one.route == "slow" else 0.0
        if lasting:
            found += [(hour, -1, amount / lasting), (hour + lasting, -1, -amount / lasting)]
        elif one.route == "oral":
            found.append((hour + 0.5, 2, 0.9 * amount))
        else:
            found.append((hour, 3 if one.route == "chain" else 0, amount))
    return found


@pytest.mark.parametrize("disposition", SATURABLE)
def test_every_way_in_is_as_by_scipy(disposition: str) -> None:
    model, asked = CardModel(saturable_card(disposition)), [1.0, 3, 6, 10, 13.5, 16, 24, 40]
    batch = batch_of(model, MIXED)
    levels, areas = by_scipy(model, MIXED, asked)
    found = model.predict(batch, EFFECTS, row(asked))[0]
    assert found.tolist() == pytest.approx(levels.tolist(), rel=2e-3)
    found = model.exposure(batch, EFFECTS, row(asked))[0]
    assert found.tolist() == pytest.approx(areas.tolist(), rel=2e-3)


@pytest.mark.parametrize("amount", [150.0, 225.0])
def test_a_steady_state_is_where_many_doses_lead(amount: float) -> None:
    """At 225 mg, 80 % of what can be eliminated comes in: 60 doses are 3 % short of it."""
    model, asked = CardModel(saturable_card()), row([0, 3, 12])
    typical = torch.zeros_like(EFFECTS)
    steady = dose(0, amount, "oral", interval=hours(12), steady_state=True)
    found = model.predict(batch_of(model, [steady]), typical, asked)[0]
    many = [dose(-12.0 * place, amount, "oral") for place in range(200, -1, -1)]
    expected = model.predict(batch_of(model, many), typical, asked)[0]
    assert found.tolist() == pytest.approx(expected.tolist(), rel=3e-4)
    assert float(found[0]) == pytest.approx(float(found[2]), rel=1e-4)


def test_two_doses_a_day_and_one_before_them() -> None:
    model, asked = CardModel(saturable_card("two_compartments_saturable")), row([20, 24, 30])
    day = hours(24)
    both = [
        dose(0, 150, "oral", interval=day, steady_state=True),
        dose(8, 100, "intravenous", interval=day, steady_state=True),
    ]
    found = model.predict(batch_of(model, both), EFFECTS, asked)[0]
    many = [dose(-24.0 * place, 150, "oral") for place in range(25, -1, -1)]
    many += [dose(8 - 24.0 * place, 100, "intravenous") for place in range(25, -1, -1)]
    expected = model.predict(batch_of(model, many), EFFECTS, asked)[0]
    assert found.tolist() == pytest.approx(expected.tolist(), rel=5e-4)
    early = [dose(-1_500, 300, "intravenous"), *both]
    found = model.predict(batch_of(model, early), EFFECTS, asked)[0]
    assert found.tolist() == pytest.approx(expected.tolist(), rel=1e-2)


def test_derivatives_are_those_of_differences() -> None:
    model = CardModel(saturable_card())
    steady = [dose(0, 180, "oral", interval=hours(12), steady_state=True)]
    for doses in (MIXED, steady):
        batch = batch_of(model, doses)
        effects = EFFECTS.clone().requires_grad_(True)
        assert torch.autograd.gradcheck(
            lambda one, batch=batch: model.predict(batch, one, row([3.0])), (effects,),
            eps=1e-5, rtol=1e-3,
        )  # fmt: skip


SEVEN_DAYS = dose(0, 200, "oral", interval=hours(12), additional=13)


@pytest.fixture(scope="module")
def twin() -> Twin:
    levels = [
        Observation(time=hours(hour), observable="concentration", value=Quantity(value, "mg/L"))
        for hour, value in ((71.9, 6.2), (167.9, 9.3))
    ]
    patient = Patient(schedule=Schedule((SEVEN_DAYS,)), observations=levels)
    return build([CardModel(saturable_card())], patient, seed=1, how=Inference(draws=256))


def steady(amount: float) -> Schedule:
    return Schedule((dose(400, amount, "oral", interval=hours(12), steady_state=True),))


def test_every_verb_works(twin: Twin) -> None:
    posterior = twin.members[0].posterior
    assert posterior.effective_sample_size[0] > 100
    assert posterior.mode[0, 0] < 0  # less can be eliminated than in others
    known = twin.forecast([167.9], schedule=Schedule(()))
    assert known.quantiles[0, 0] < 9.3 < known.quantiles[0, 4]
    compared = twin.compare({"less": steady(80), "more": steady(160)}, [412.0])
    middle = {name: float(one.point[0]) for name, one in compared.items()}
    assert middle["more"] > 2.5 * middle["less"]  # twice the dose is more than twice the level


def limits() -> Limits:
    return limits_of(saturable_card(), "oral", largest_change=None)


def advised_from(amounts: Sequence[float]) -> list[Regimen]:
    return regimens_of([Quantity(one, "mg") for one in amounts], [12.0], "oral")


def test_advice_sets_aside_what_can_never_be_eliminated(twin: Twin) -> None:
    target = Target(kind="trough", observable="concentration", low=Quantity(3, "mg/L"))
    goal = Goal(targets=[target], least_probability=0.3)
    found = twin.advise(goal, limits(), advised_from([60, 150, 400]), Horizon(start_h=180.0))
    assert found.proposal.assessment.regimen.amount.value == 150
    (aside,) = found.choice.set_aside
    assert aside.regimen.amount.value == 400
    assert "no steady state exists" in str(aside.reasons[0])


def test_more_than_can_go_out_is_refused(twin: Twin) -> None:
    with pytest.raises(Refusal, match="no steady state exists"):
        twin.forecast([412.0], schedule=steady(400))
    patient = Patient(schedule=steady(400))
    with pytest.raises(Refusal, match="below the largest elimination of"):
        build([CardModel(saturable_card())], patient, seed=1)
    both = CardModel(saturable_card("one_compartment_saturable_and_linear"))
    assert build([both], patient, seed=1).forecast([412.0]).quantiles[0, 0] > 5


def test_an_effect_is_not_driven_by_it() -> None:
    given = content()
    given["effect"] = "signal_transduction"
    with pytest.raises(Refusal, match="none with one_compartment_saturable"):
        card_from(given, "card")
