"""Concentrations and areas of published models against independent implementations."""

from typing import Any

import pytest
import torch

from fedtwin_twins.twin.quantities import Quantity
from fedtwin_twins.twin.schedule import Dose

from .published import case, hours, model, patients, row, typical


@pytest.mark.case("S02")
def test_tacrolimus_by_cyp3a5_haematocrit_and_formulation() -> None:
    """S02: ten days of each regimen."""
    given = case("S02_tacrolimus_woillard")
    rows: list[dict[str, Any]] = given["expected"]["rows"]
    twin = model("tacrolimus_woillard_2011")
    tables = patients(
        twin,
        *(
            (
                [
                    Dose(
                        time=hours(0),
                        amount=Quantity(one["dose_mg"], "mg"),
                        route="oral",
                        interval=hours(one["tau_h"]),
                        additional=240 // one["tau_h"] - 1,
                    )
                ],
                {
                    "haematocrit": Quantity(one["HCT"], "%"),
                    "cyp3a5_expresser": Quantity(one["CYP3A5_expresser"], "1"),
                    "immediate_release": Quantity(one["Prograf"], "1"),
                },
            )
            for one in rows
        ),
    )
    last = [240.0 - one["tau_h"] for one in rows]
    times = torch.tensor([[hour + late for late in (0, 1, 2, 4)] + [240.0] for hour in last])
    effects = typical(twin, len(rows))
    levels = twin.predict(tables.batch, effects, times.double())
    areas = twin.exposure(tables.batch, effects, times[:, [0, -1]].double())
    clearance = twin.individual(tables.batch, effects)["clearance"]
    names = ("C_pre", "C1", "C2", "C4", "C_trough")
    for place, one in enumerate(rows):
        assert levels[place].tolist() == pytest.approx([one[name] for name in names], rel=2e-4)
        assert float(areas[place, 1] - areas[place, 0]) == pytest.approx(one["AUC_tau"], rel=1e-4)
        assert float(clearance[place, 0]) == pytest.approx(one["CL"], rel=1e-4)


@pytest.mark.parametrize(
    "name", ["goti_2018", "buelga_2005", "thomson_2009", "adane_2015", "hughes_2024"]
)
@pytest.mark.case("S08")
def test_vancomycin_models_disagree_as_they_should(name: str) -> None:
    """S08: one patient of 80 kg on 1 g twice a day."""
    expected = case("S08_vanco_models_disagree")["expected"][name.partition("_")[0]]
    twin = model(f"vancomycin_{name}")
    dose = Dose(
        time=hours(0),
        amount=Quantity(1, "g"),
        route="intravenous",
        duration=Quantity(60, "min"),
        interval=hours(12),
        additional=19,
    )
    known = {
        "age": Quantity(60, "a"),
        "body_weight": Quantity(80, "kg"),
        "height": Quantity(1.75, "m"),
        "female": "male",
        "creatinine": Quantity(88.4, "umol/L"),
    }
    tables = patients(twin, ([dose], known))
    own = {
        key: float(value[0, 0])
        for key, value in twin.individual(tables.batch, typical(twin)).items()
    }
    areas = twin.exposure(tables.batch, typical(twin), row(24, 48, 216, 240))[0]
    trough = twin.predict(tables.batch, typical(twin), row(228))
    assert own["clearance"] == pytest.approx(expected["CL"], rel=2e-4)
    assert own["central_volume"] == pytest.approx(expected["V"], rel=2e-4)
    for mine, theirs in (("peripheral_volume", "V2"), ("intercompartmental_clearance", "Q")):
        assert (mine in own) == (expected[theirs] is not None)
        if mine in own:
            assert own[mine] == pytest.approx(expected[theirs], rel=2e-4)
    assert float(areas[1] - areas[0]) == pytest.approx(expected["AUC24_48"], rel=5e-4)
    assert float(areas[3] - areas[2]) == pytest.approx(expected["AUC24_ss_day10"], rel=5e-4)
    assert trough.item() == pytest.approx(expected["trough_228"], rel=5e-4)
    assert 2_000 / own["clearance"] == pytest.approx(expected["AUC24_ss_theory"], rel=5e-4)


def test_vancomycin_goti_with_a_creatinine_clearance_that_was_given() -> None:
    """M04: parameters and prior before any level is known."""
    given = case("M04_vanco_goti_map")["inputs"]
    twin = model("vancomycin_goti_2018")
    tables = patients(
        twin,
        (
            [],
            {
                "creatinine_clearance": Quantity(given["CLCR"], "mL/min"),
                "body_weight": Quantity(given["WT"], "kg"),
                "dialysis": Quantity(given["DIAL"], "1"),
            },
        ),
    )
    own = twin.individual(tables.batch, typical(twin))
    assert own["clearance"].item() == pytest.approx(4.5 * (34 / 120) ** 0.8)
    assert own["central_volume"].item() == pytest.approx(58.4 * 62 / 70)
    assert twin.effects == ("clearance", "central_volume", "peripheral_volume")
    assert twin.prior(0).diagonal().tolist() == pytest.approx(
        list(given["omega"].values()), abs=5e-4
    )
    error = twin.observables[0].error
    assert (error.convention, error.additive, error.proportional) == (
        "sum_of_deviations",
        3.4,
        0.227,
    )
    level = error.deviation(torch.tensor([10.0], dtype=torch.float64))
    assert level.item() == pytest.approx(3.4 + 0.227 * 10)
