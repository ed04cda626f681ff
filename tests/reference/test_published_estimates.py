"""Cards with a patient's levels: the most probable effects are those of Monolix and NONMEM.

The estimate here is a plain minimum of the posterior's objective, so that what is tested is the
card: its parameters, prior, error and covariate rule.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from fedtwin_twins.pharmacology.card_model import CardModel
from fedtwin_twins.pharmacology.reading_cards import card_from
from fedtwin_twins.twin.covariate_rows import Recorded
from fedtwin_twins.twin.covariates import CovariateRecord
from fedtwin_twins.twin.observation import Observation
from fedtwin_twins.twin.quantities import Quantity
from fedtwin_twins.twin.schedule import Dose, Schedule
from fedtwin_twins.twin.tabulate import Patient, Tables, tabulate

from .published import case, hours, model
from .small_cards import relation, small_card


def infusions(given: Sequence[Sequence[float]]) -> list[Dose]:
    return [
        Dose(
            time=hours(start),
            amount=Quantity(amount, "mg"),
            route="intravenous",
            duration=hours(lasting),
        )
        for start, amount, lasting in given
    ]


def tables_of(
    twin: CardModel,
    doses: list[Dose],
    levels: Sequence[Sequence[float]],
    known: Mapping[str, Recorded],
) -> Tables:
    seen = [
        Observation(time=hours(hour), observable="concentration", value=Quantity(value, "mg/L"))
        for hour, value in levels
    ]
    patient = Patient(schedule=Schedule(doses), observations=seen, covariates=known)
    return tabulate([patient], twin.intake)


def most_probable(twin: CardModel, tables: Tables) -> torch.Tensor:
    seen = tables.observed
    inverse = torch.linalg.inv(twin.prior(0))
    error = twin.observables[0].error

    def objective(values: np.ndarray) -> tuple[float, np.ndarray]:
        effects = torch.tensor(values[None], requires_grad=True)
        expected = twin.predict(tables.batch, effects, seen.time)
        variance = error.deviation(expected) ** 2
        miss = ((seen.value - expected) ** 2 / variance + variance.log()).sum()
        total = miss + (effects @ inverse @ effects.T).sum()
        total.backward()  # type: ignore[no-untyped-call]
        assert effects.grad is not None
        return total.item(), effects.grad[0].numpy()

    found = minimize(objective, np.zeros(len(twin.effects)), jac=True, method="BFGS", tol=1e-9)
    return torch.tensor(found.x[None])


@pytest.mark.case("M04")
def test_vancomycin_goti() -> None:
    """M04: two infusions, two levels, against Monolix."""
    given = case("M04_vanco_goti_map")
    inputs, expected = given["inputs"], given["expected"]
    twin = model("vancomycin_goti_2018")
    known = {
        "creatinine_clearance": Quantity(inputs["CLCR"], "mL/min"),
        "body_weight": Quantity(inputs["WT"], "kg"),
        "dialysis": Quantity(inputs["DIAL"], "1"),
    }
    tables = tables_of(twin, infusions(inputs["doses"]), inputs["obs"], known)
    own = twin.individual(tables.batch, most_probable(twin, tables))
    found = {
        "CL": own["clearance"].item(),
        "V": own["central_volume"].item(),
        "Vp": own["peripheral_volume"].item(),
    }
    assert found == pytest.approx(expected, rel=0.01)


def tobramycin() -> dict[str, Any]:
    """The equations of M03, as a site would write them."""
    return small_card(
        name="tobramycin_trial",
        disposition="two_compartments_by_rates",
        covariates={"creatinine_clearance": "mL/min", "body_weight": "kg"},
        parameters={
            "elimination_rate": (
                "/h",
                0.21,
                [
                    relation("power", "creatinine_clearance", reference=67.8, exponent=0.89),
                    relation("power", "body_weight", reference=66.4, exponent=-1.09),
                ],
            ),
            "central_volume": (
                "L",
                19.8,
                [relation("power", "body_weight", reference=66.4, exponent=0.8)],
            ),
            "rate_to_peripheral": ("/h", 0.041, []),
            "rate_from_peripheral": ("/h", 0.12, []),
        },
        variances={"elimination_rate": 0.08075, "central_volume": 0.01203},
        residual={"convention": "proportional", "proportional": 0.198},
    )


@pytest.mark.case("M03")
def test_tobramycin() -> None:
    """M03: one infusion, two levels, against Monolix."""
    given = case("M03_tobramycin")
    inputs, expected = given["inputs"], given["expected"]
    twin = CardModel(card_from(tobramycin(), "tobramycin"))
    known = {
        "creatinine_clearance": Quantity(inputs["CLCR"], "mL/min"),
        "body_weight": Quantity(inputs["WT"], "kg"),
    }
    dose = inputs["dose"]
    doses = infusions([[dose["t"], dose["amt"], dose["dur"]]])
    tables = tables_of(twin, doses, inputs["obs"], known)
    nothing = twin.individual(tables.batch, torch.zeros((1, 2), dtype=torch.float64))
    assert nothing["elimination_rate"].item() == pytest.approx(
        0.21 * (80 / 67.8) ** 0.89 * (65 / 66.4) ** -1.09
    )
    effects = most_probable(twin, tables)
    own = twin.individual(tables.batch, effects)
    assert effects[0].tolist() == pytest.approx(expected["eta"], abs=2e-3)
    assert own["elimination_rate"].item() == pytest.approx(expected["ke"], rel=1e-3)
    assert own["central_volume"].item() == pytest.approx(expected["V"], rel=0.01)


@pytest.mark.case("M06")
def test_covariates_carried_backward() -> None:
    """M06: weight and sex change between records, against NONMEM."""
    given = case("M06_time_varying_covariates_nocb")
    inputs, expected = given["inputs"], given["expected"]
    content = small_card(
        name="changing_covariates",
        disposition="one_compartment",
        covariates={"body_weight": "kg", "sex": "1"},
        parameters={
            "clearance": (
                "L/h",
                4.0,
                [
                    relation("power", "body_weight", reference=75.0, exponent=1.5),
                    relation("fold", "sex", factor=0.75),
                ],
            ),
            "central_volume": ("L", 70.0, []),
        },
        variances={"clearance": 0.2, "central_volume": 0.2},
        residual={"convention": "proportional", "proportional": 0.05**0.5},
    )
    content["covariate_rule"] = "next_backward"
    twin = CardModel(card_from(content, "changing"))
    known = {
        name: [CovariateRecord(time=hours(hour), value=Quantity(value, unit)) for hour, value in at]
        for name, unit, at in (
            ("body_weight", "kg", inputs["BW_at"]),
            ("sex", "1", inputs["SEX_at"]),
        )
    }
    start, amount, lasting = inputs["dose"]
    doses = infusions([[start, amount, lasting]])
    tables = tables_of(twin, doses, inputs["obs"], known)
    own = twin.individual(tables.batch, torch.zeros((1, 2), dtype=torch.float64))
    weights, sexes = dict(inputs["BW_at"]), dict(inputs["SEX_at"])
    assert own["clearance"][0].tolist() == pytest.approx(
        [4 * (weights[hour] / 75) ** 1.5 * 0.75 ** sexes[hour] for hour in weights]
    )
    effects = most_probable(twin, tables)[0].tolist()
    assert effects[0] == pytest.approx(expected["eta_CL"], rel=1e-3)
    assert effects[1] == pytest.approx(expected["eta_V"], rel=0.01)
