"""Forms that cards of other drugs need, against formulas of their own and independent solvers."""

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from fedtwin_twins.kinetics import stiff
from fedtwin_twins.kinetics.events import Route
from fedtwin_twins.kinetics.systems import System
from fedtwin_twins.pharmacology.card_model import CardModel
from fedtwin_twins.pharmacology.reading_cards import card_from
from fedtwin_twins.twin.quantities import Quantity
from fedtwin_twins.twin.refusals import Refusal
from fedtwin_twins.twin.schedule import Dose

from .published import hours, patients, row, typical
from .small_cards import SOURCE, small_card

ONE = {"clearance": ("L/h", 4.0, []), "central_volume": ("L", 70.0, [])}
PHENYTOIN = {
    "largest_elimination": ("mg/d", 500.0, []),
    "half_saturation_concentration": ("mg/L", 5.0, []),
    "central_volume": ("L", 50.0, []),
}
"""Typical of adults: Ludden et al., Clin Pharmacol Ther 1977;21:287."""


def content(
    disposition: str, parameters: Mapping[str, Any], varies: str = "central_volume"
) -> dict[str, Any]:
    return small_card(
        name="other_drug",
        disposition=disposition,
        covariates={},
        parameters=parameters,
        variances={varies: 0.09},
        residual={"convention": "proportional", "proportional": 0.1},
    )


def with_route(card: dict[str, Any], name: str, **changes: Any) -> dict[str, Any]:
    route = {**copy.deepcopy(card["routes"][0]), "name": name, **changes}
    return {**card, "routes": [*card["routes"], route]}


def twin_of(card: dict[str, Any]) -> CardModel:
    return CardModel(card_from(card, "card"))


def given(amount: float, route: str = "oral", at: float = 0.0, **more: Any) -> Dose:
    return Dose(time=hours(at), amount=Quantity(amount, "mg"), route=route, **more)


def levels(card: dict[str, Any], doses: Sequence[Dose], *times: float, kind: int = 0) -> Tensor:
    twin = twin_of(card)
    tables = patients(twin, (doses, {}))
    return twin.predict(tables.batch, typical(twin), row(*times), kind)[0]


def test_saturable_elimination_beside_a_linear_one_as_lsoda_solves_it() -> None:
    """Two compartments, infusion and a chain of two stages with a lag, doses every 8 h."""
    card = content(
        "two_compartments_saturable",
        {
            **PHENYTOIN,
            "clearance": ("L/h", 0.2, []),
            "intercompartmental_clearance": ("L/h", 3.0, []),
            "peripheral_volume": ("L", 30.0, []),
            "absorption_rate": ("/h", 1.5, []),
            "lag_time": ("h", 0.3, []),
        },
    )
    card = with_route(
        card, "oral", input="transit", compartments=2, rate="absorption_rate", lag="lag_time"
    )
    infusion = given(1_000, "intravenous", duration=hours(1))
    doses = [infusion, given(150, at=12, interval=hours(8), additional=9)]
    asked = [0.5, 1.0, 2.0, 12.5, 13.0, 20.0, 50.2, 84.0, 100.0]

    def change(_: object, states: Any, by: Any) -> Any:
        central, tissue, first, second = states
        level = central / 50.0
        moved = 3.0 * (level - tissue / 30.0)
        out = 0.2 * level + 500.0 / 24.0 * level / (5.0 + level)
        return 1.5 * second - out - moved, moved, -1.5 * first, 1.5 * (first - second)

    late = Route(lag=torch.full((1, 1), 0.3, dtype=torch.float64))
    system = System(
        right_side=change,
        start=(torch.zeros(1, dtype=torch.float64),) * 4,
        values={},
        into=(0, 2),
        routes=(Route(), late),
    )
    twin = twin_of(card)
    batch = patients(twin, (doses, {})).batch
    exact = stiff.solve(system, batch.doses, row(*asked), relative=1e-10, absolute=1e-12)[0] / 50.0
    found = twin.predict(batch, typical(twin), row(*asked))
    assert found[0].tolist() == pytest.approx(exact[0].tolist(), rel=5e-5)


def test_saturable_elimination_far_below_saturation_is_linear() -> None:
    """Vmax / Km = 4 L/h is a clearance; the dose is released over an hour, then absorbed."""
    saturable = content(
        "one_compartment_saturable",
        {
            "largest_elimination": ("g/h", 4e6, []),
            "half_saturation_concentration": ("g/L", 1e6, []),
            "central_volume": ("L", 70.0, []),
            "rate": ("/h", 1.0, []),
            "release": ("h", 1.0, []),
        },
    )
    linear = content("one_compartment", {**ONE, "rate": ("/h", 1.0, []), "release": ("h", 1.0, [])})
    way = {"input": "first_order", "rate": "rate", "duration": "release"}
    both = (with_route(card, "oral", **way) for card in (saturable, linear))
    doses = [given(100, interval=hours(12), additional=3)]
    one, other = (levels(card, doses, 0.5, 1.0, 3.0, 12.0, 30.0, 48.0) for card in both)
    assert one.tolist() == pytest.approx(other.tolist(), rel=2e-5)


def test_absorption_that_is_all_but_at_once_needs_no_steps_of_its_own() -> None:
    """A week of doses that are absorbed within seconds, as if they had been injected."""
    card = content("one_compartment_saturable", {**PHENYTOIN, "rate": ("/h", 1e4, [])})
    card = with_route(card, "oral", input="first_order", rate="rate")
    daily = {"interval": hours(24), "additional": 6}
    asked = (12.0, 24.0, 100.0, 168.0)
    swallowed, injected = (
        levels(card, [given(300, route, **daily)], *asked) for route in ("oral", "intravenous")
    )
    assert swallowed.tolist() == pytest.approx(injected.tolist(), rel=2e-3)


def test_the_level_at_which_a_constant_infusion_is_in_balance() -> None:
    """C = R Km / (Vmax - R): Ludden 1977."""
    card = content("one_compartment_saturable", PHENYTOIN)
    steady = given(300, "intravenous", duration=hours(24), interval=hours(24), steady_state=True)
    assert levels(card, [steady], 0.0, 12.0).tolist() == pytest.approx([7.5, 7.5], rel=1e-4)


@pytest.mark.parametrize(
    ("amount", "why"), [(500, "no steady state exists"), (490, "nearly saturated")]
)
def test_a_steady_state_that_is_never_reached_is_refused(amount: float, why: str) -> None:
    card = content("one_compartment_saturable", PHENYTOIN)
    steady = given(amount, "intravenous", interval=hours(24), steady_state=True)
    with pytest.raises(Refusal, match=f"doses at 0 h.steady_state .*{why}"):
        patients(twin_of(card), ([steady], {}))


def test_who_eliminates_too_little_goes_on_rising_and_refuses_nobody() -> None:
    """A draw whose Vmax is below the doses: 120 days of at least what is left each day."""
    twin = twin_of(content("one_compartment_saturable", PHENYTOIN, "largest_elimination"))
    steady = given(300, "intravenous", interval=hours(24), steady_state=True)
    batch = patients(twin, ([steady], {})).batch
    level = float(twin.predict(batch, row(math.log(0.5)), row(0.0)))
    assert 120 * (300 - 250) / 50 < level < 1.5 * 120 * (300 - 250) / 50


def test_levels_in_moles_of_doses_in_mass() -> None:
    """100 mg in 70 L of a drug of 467.5 g/mol; its limit and its error are in umol/L, too."""
    card = content("one_compartment", ONE)
    card["observables"][0]["unit"] = "umol/L"
    found = levels(card, [given(100, "intravenous")], 1e-9)
    assert found.tolist() == pytest.approx([100 / 70 / 467.5 * 1000], rel=1e-6)
    card["observables"][0]["unit"] = "mmol/mol"
    with pytest.raises(Refusal, match="unit that measures what mg/L does"):
        twin_of(card)


def test_a_metabolite_as_its_two_exponentials() -> None:
    """A bolus D: fraction CL/V D / Vm (e^-kt - e^-mt) / (m - k), with k = CL/V and m = CLm/Vm."""
    more = {
        "metabolite_fraction": ("1", 0.7, []),
        "metabolite_clearance": ("L/h", 2.5, []),
        "metabolite_volume": ("L", 60.0, []),
    }
    card = content("one_compartment", {**ONE, **more}) | {"effect": "metabolite"}
    second = {**card["observables"][0], "name": "metabolite", "output": "metabolite_concentration"}
    card["observables"] = [*card["observables"], second]
    asked = torch.tensor([1.0, 6.0, 24.0, 60.0], dtype=torch.float64)
    k, m = 4.0 / 70.0, 2.5 / 60.0
    wanted = 0.7 * k * 1_000 / 60.0 * (torch.exp(-k * asked) - torch.exp(-m * asked)) / (m - k)
    found = levels(card, [given(1_000, "intravenous")], *asked.tolist(), kind=1)
    assert found.tolist() == pytest.approx(wanted.tolist(), rel=1e-7)
    area = twin_of(card).exposure(
        patients(twin_of(card), ([given(1_000, "intravenous")], {})).batch,
        typical(twin_of(card)),
        row(2_000.0),
        1,
    )
    assert float(area) == pytest.approx(0.7 * 1_000 / 2.5, rel=1e-4)


@pytest.mark.parametrize("beyond", [1.0, 15.0, 100.0])
@pytest.mark.parametrize("side", ["production", "loss"])
@pytest.mark.parametrize("change", ["inhibited", "stimulated"])
def test_indirect_responses_as_lsoda_solves_them(change: str, side: str, beyond: float) -> None:
    """Dayneka 1993, models I to IV, also of doses that lead far beyond the EC50."""
    half = 10.0 / beyond
    response = {
        "rate": ("/h", 1.0, []),
        "baseline_response": ("%", 80.0, []),
        "loss_rate": ("/h", 0.05, []),
        "maximal_effect": ("1", 0.95, []),
        "half_maximal_concentration": ("mg/L", half, []),
    }
    flow = {"clearance": ("L/h", 3.0, []), "central_volume": ("L", 10.0, [])}
    card = content("one_compartment", {**flow, **response})
    card = with_route(card, "oral", input="first_order", rate="rate")
    card |= {"effect": f"turnover_{change}_{side}"}
    second = {**card["observables"][0], "name": "response", "output": "response", "unit": "%"}
    card["observables"] = [*card["observables"], {**second, "endogenous": True}]
    sign = -1.0 if change == "inhibited" else 1.0

    def right_side(_: object, states: Any, by: Any) -> Any:
        depot, central, value = states
        level = central / 10.0
        factor = 1.0 + sign * 0.95 * level / (half + level)
        made, lost = (factor, 1.0) if side == "production" else (1.0, factor)
        return -depot, depot - 0.3 * central, 0.05 * (80.0 * made - lost * value)

    nothing = torch.zeros(1, dtype=torch.float64)
    system = System(right_side=right_side, start=(nothing, nothing, nothing + 80.0), values={})
    twin = twin_of(card)
    batch = patients(twin, ([given(100, interval=hours(24), additional=2)], {})).batch
    asked = row(0.5, 2.0, 5.0, 12.0, 24.0, 30.0, 47.0, 60.0, 90.0, 120.0)
    doses = replace(batch.doses, route=torch.zeros_like(batch.doses.route))
    exact = stiff.solve(system, doses, asked, relative=1e-11, absolute=1e-12)[2]
    found = twin.predict(batch, typical(twin), asked, 1)
    assert found[0].tolist() == pytest.approx(exact[0].tolist(), rel=3e-6)


def parallel() -> dict[str, Any]:
    card = content(
        "one_compartment",
        {
            **ONE,
            "rate": ("/h", 1.0, []),
            "release": ("h", 4.0, []),
            "at_once": ("1", 0.2, []),
            "slowly": ("1", None, []),
        },
        varies="at_once",
    )
    card["parameters"][-1] |= {"complement_of": "at_once"}
    card["parameters"][-2] |= {"distribution": "logit_normal"}
    card = with_route(card, "oral", input="parallel", parts=["tablet", "core"])
    card = with_route(card, "tablet", input="first_order", rate="rate", bioavailability="at_once")
    return with_route(
        card, "core", input="zero_order", duration="release", bioavailability="slowly"
    )


def test_a_dose_that_goes_in_by_two_ways_is_two_doses() -> None:
    whole = parallel()
    single = copy.deepcopy(whole)
    single["routes"] = [one for one in whole["routes"] if one["name"] != "oral"]
    asked = (0.5, 3.9, 4.1, 12.0, 30.0)
    repeated = {"interval": hours(12), "additional": 2}
    both = [given(100, "tablet", **repeated), given(100, "core", **repeated)]
    together = levels(whole, [given(100, **repeated)], *asked)
    assert together.tolist() == pytest.approx(levels(single, both, *asked).tolist(), rel=1e-12)
    with pytest.raises(Refusal, match="the whole dose is given by the other"):
        levels(whole, both, *asked)


def test_a_fraction_varies_on_its_logit_and_its_rest_follows() -> None:
    twin = twin_of(parallel())
    tables = patients(twin, ([given(100)], {}))
    found = twin.individual(tables.batch, row(1.5))
    odds = 0.2 / 0.8 * torch.exp(torch.tensor(1.5, dtype=torch.float64))
    assert float(found["at_once"]) == pytest.approx(float(odds / (1 + odds)))
    assert float(found["at_once"] + found["slowly"]) == 1.0


def test_an_effect_that_is_added() -> None:
    card = content("one_compartment", ONE)
    card["parameters"][1] |= {"distribution": "normal"}
    card["between_patients"]["blocks"][0]["diagonal"] = [100.0]
    twin = twin_of(card)
    tables = patients(twin, ([given(100, "intravenous")], {}))
    assert float(twin.individual(tables.batch, row(-12.0))["central_volume"]) == 58.0


def test_a_sum_varies_as_one() -> None:
    """Renal and other clearance, with one eta on their sum."""
    sums = {"renal": ("L/h", 3.0, []), "other": ("L/h", 1.0, []), "clearance": ("L/h", None, [])}
    card = content("one_compartment", {**sums, "central_volume": ("L", 70.0, [])}, "clearance")
    card["parameters"][2] |= {"sum_of": ["renal", "other"]}
    twin = twin_of(card)
    tables = patients(twin, ([given(100, "intravenous")], {}))
    assert float(twin.individual(tables.batch, row(0.3))["clearance"]) == pytest.approx(
        4.0 * math.exp(0.3)
    )


def test_an_exponential_relation() -> None:
    slope = {"equation": "exponential", "covariate": "age", "coefficients": {}}
    slope["coefficients"] = {"reference": 40.0, "slope": -0.01}
    card = content("one_compartment", {**ONE, "clearance": ("L/h", 4.0, [slope])})
    card["covariates"] = [{"name": "age", "unit": "a", "hard": [0.0, 120.0], "soft": [18.0, 90.0]}]
    twin = twin_of(card)
    tables = patients(twin, ([given(100, "intravenous")], {"age": Quantity(70, "a")}))
    found = float(twin.individual(tables.batch, typical(twin))["clearance"])
    assert found == pytest.approx(4.0 * math.exp(-0.3))


def _logit_of_a_volume(card: dict[str, Any]) -> None:
    card["parameters"][1]["distribution"] = "logit_normal"


def _cv_of_a_fraction(card: dict[str, Any]) -> None:
    card["between_patients"]["convention"] = "cv_lognormal"


def _part_before_the_whole(card: dict[str, Any]) -> None:
    card["routes"].append(card["routes"].pop(1))


def _one_part(card: dict[str, Any]) -> None:
    card["routes"][1]["parts"] = ["tablet"]


def _value_and_rest(card: dict[str, Any]) -> None:
    card["parameters"][-1]["typical"] = 0.8


def _rest_of_a_volume(card: dict[str, Any]) -> None:
    card["parameters"][-1]["complement_of"] = "central_volume"


def _sum_of_other_units(card: dict[str, Any]) -> None:
    card["parameters"][1] = {
        "name": "central_volume", "unit": "L", "sum_of": ["small"], "relations": [],
        "source": SOURCE,
    }  # fmt: skip
    card["parameters"].insert(0, {**card["parameters"][0], "name": "small", "unit": "mL"})


def _metabolite_without_clearance(card: dict[str, Any]) -> None:
    card |= {"effect": "metabolite", "disposition": "one_compartment_saturable"}


@pytest.mark.parametrize(
    ("broken", "field"),
    [
        (_logit_of_a_volume, "parameters.central_volume.distribution"),
        (_cv_of_a_fraction, "between_patients.convention"),
        (_part_before_the_whole, "routes.oral.parts"),
        (_one_part, "routes.oral.parts"),
        (_value_and_rest, "parameters.slowly.typical"),
        (_rest_of_a_volume, "parameters.slowly.complement_of"),
        (_sum_of_other_units, "parameters.central_volume.sum_of"),
        (_metabolite_without_clearance, "disposition"),
    ],
)
def test_forms_that_do_not_fit_are_refused(broken: Any, field: str) -> None:
    card = parallel()
    broken(card)
    with pytest.raises(Refusal) as caught:
        card_from(card, "card")
    assert f"card: {field}" in {problem.field for problem in caught.value.problems}
