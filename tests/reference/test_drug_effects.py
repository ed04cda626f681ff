"""What drugs do: published curves, and independent integrations of the published equations."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from fedtwin_twins.pharmacology.glucose_insulin import basal_insulin
from fedtwin_twins.twin.quantities import Quantity
from fedtwin_twins.twin.schedule import Dose, Meal

from .published import case, hours, model, patients, row, typical


@pytest.mark.parametrize(("clearance", "key"), [(106.5, "CRCL_106p5"), (40.0, "CRCL_40")])
@pytest.mark.case("S05")
def test_metformin_and_the_change_of_glucose(clearance: float, key: str) -> None:
    """S05: 500 mg once."""
    given = case("S05_metformin_chae")
    twin = model("metformin_chae_2012")
    dose = Dose(time=hours(0), amount=Quantity(500, "mg"), route="oral")
    known = {"creatinine_clearance": Quantity(clearance, "mL/min")}
    tables = patients(twin, ([dose], known))
    times = row(*given["inputs"]["t_h"])
    expected = given["expected"][key]
    for kind, name in ((0, "C_mgL"), (1, "pct_glucose")):
        found = twin.predict(tables.batch, typical(twin), times, kind)[0]
        assert found.tolist() == pytest.approx(expected[name], rel=5e-4)


def test_the_slope_at_no_drug_is_finite() -> None:
    twin = model("metformin_chae_2012")
    dose = Dose(time=hours(0), amount=Quantity(500, "mg"), route="oral")
    known = {"creatinine_clearance": Quantity(100, "mL/min")}
    tables = patients(twin, ([dose], known))
    effects = typical(twin).requires_grad_()
    twin.predict(tables.batch, effects, row(0, 0.5, 4), 1).sum().backward()
    assert effects.grad is not None
    assert bool(effects.grad.isfinite().all())


@pytest.mark.parametrize(
    ("name", "cisplatin", "half"),
    [
        ("5fu_mono_1000", "without", False),
        ("5fu_comb_1000", "with", False),
        ("5fu_comb_1000_CLhalf", "with", True),
    ],
)
@pytest.mark.case("S07")
def test_fluorouracil_and_white_cells(name: str, cisplatin: str, half: bool) -> None:
    """S07: 1000 mg/m2 a day over five days."""
    expected = case("S07_5fu_wbc")["expected"][name]
    twin = model("fluorouracil_arshad_2020")
    infusion = Dose(
        time=hours(0),
        amount=Quantity(5 * 1_950, "mg"),
        route="intravenous",
        duration=Quantity(5, "d"),
    )
    known = {"body_surface_area": Quantity(1.95, "m2"), "cisplatin": cisplatin}
    tables = patients(twin, ([infusion], known))
    effects = typical(twin)
    if half:
        effects[0, list(twin.effects).index("clearance")] = math.log(0.5)
    level = twin.predict(tables.batch, effects, row(100.0)).item()
    times = row(*np.arange(0.0, 45 * 24.0, 6.0))
    cells = twin.predict(tables.batch, effects, times, 1)[0]
    assert level == pytest.approx(expected["Css_mgL"], rel=1e-4)
    assert cells[0].item() == pytest.approx(6.86)
    assert cells.min().item() == pytest.approx(expected["nadir"], rel=1e-3)
    assert times[0, cells.argmin()].item() / 24 == pytest.approx(expected["nadir_day"], abs=0.25)


def test_white_cells_against_the_whole_system() -> None:
    """The drug as its mean over panels, against an integration that follows it in full."""
    twin = model("fluorouracil_arshad_2020")
    infusion = Dose(
        time=hours(7.3),
        amount=Quantity(4_000, "mg"),
        route="intravenous",
        duration=hours(46),
        interval=Quantity(14, "d"),
        additional=1,
    )
    known = {"body_surface_area": Quantity(1.7, "m2"), "cisplatin": "with"}
    tables = patients(twin, ([infusion], known))
    clearance = 249 * (1 + 0.77 * (1.7 - 1.95))

    def change(t: float, y: np.ndarray) -> list[float]:
        running = any(start <= t < start + 46 for start in (7.3, 7.3 + 336))
        level, rate = y[0] / 5.56, 4 / 281
        made = (1 - 2.82 * level) * (6.86 / y[6]) ** 0.17
        return [
            (4_000 / 46 if running else 0.0) - (clearance + 14.8) * level + 14.8 * y[1] / 28.5,
            14.8 * level - 14.8 * y[1] / 28.5,
            rate * y[2] * (made - 1),
            *(rate * (y[place] - y[place + 1]) for place in (2, 3, 4, 5)),
        ]

    asked = np.array([100.0, 400.0, 700.0, 1_000.0])
    whole = solve_ivp(
        change,
        (0, 1_000),
        [0.0, 0.0, *[6.86] * 5],
        method="LSODA",
        rtol=1e-9,
        atol=1e-10,
        max_step=1.0,
        t_eval=asked,
    )
    found = twin.predict(tables.batch, typical(twin), row(*asked), 1)[0]
    assert found.tolist() == pytest.approx(whole.y[6].tolist(), rel=1e-4)


@pytest.mark.case("S03")
def test_glucose_after_a_meal() -> None:
    """S03: 60 g of carbohydrate over the basal insulin that held 5.5 mmol/L."""
    given = case("S03_hovorka_T1D")
    expected = given["expected"]
    twin = model("glucose_hovorka_2004")
    known = {"body_weight": Quantity(given["inputs"]["BW"], "kg")}
    nothing = patients(twin, ([], known))
    rate = basal_insulin(twin.course(nothing.batch, typical(twin))).item()
    assert rate == pytest.approx(expected["basal_U_h"], rel=1e-5)
    basal = Dose(
        time=hours(0),
        amount=Quantity(12 * rate, "[IU]"),
        route="subcutaneous",
        rate=Quantity(rate, "[IU]/h"),
    )
    meal = Meal(time=Quantity(0, "min"), carbohydrate=Quantity(60, "g"))
    tables = patients(twin, ([meal, basal], known))
    times = row(*expected["t_min"]) / 60
    levels = twin.predict(tables.batch, typical(twin), times)[0]
    assert levels.tolist() == pytest.approx(expected["G_after_60gCHO_mmolL"], rel=1e-5)


@pytest.mark.parametrize("weight", [50.0, 95.0])
def test_glucose_stands_still_under_its_basal_insulin(weight: float) -> None:
    twin = model("glucose_hovorka_2004")
    known = {"body_weight": Quantity(weight, "kg")}
    effects = typical(twin)
    effects[0] = row(0.2, -0.1, 0.1, 0.05, 0.0, 0.1, 0.15)[0]
    nothing = patients(twin, ([], known))
    rate = basal_insulin(twin.course(nothing.batch, effects)).item()
    basal = Dose(
        time=hours(0),
        amount=Quantity(24 * rate, "[IU]"),
        route="subcutaneous",
        duration=hours(24),
    )
    tables = patients(twin, ([basal], known))
    levels = twin.predict(tables.batch, effects, row(0, 1, 6, 24))[0]
    assert levels.tolist() == pytest.approx([5.5 * math.exp(0.15)] * 4, rel=1e-9)


def test_insulin_into_a_vein_lowers_glucose_sooner() -> None:
    twin = model("glucose_hovorka_2004")
    known = {"body_weight": Quantity(70, "kg")}
    levels = []
    for route in ("intravenous", "subcutaneous"):
        bolus = Dose(time=hours(0), amount=Quantity(2, "[IU]"), route=route)
        tables = patients(twin, ([bolus], known))
        levels.append(twin.predict(tables.batch, typical(twin), row(0.5)).item())
    assert levels[0] < levels[1] < 5.5


def _warfarin_inr(asked: Sequence[float], clearance: float, half: float) -> list[float]:
    """Hamberg's equations as one system: 5 mg of warfarin every day, half of it S-warfarin."""

    def change(t: float, y: np.ndarray) -> list[float]:
        del t
        level = max(y[1] / 14.3, 0.0)
        free = 1 - level**1.15 / (half**1.15 + level**1.15)
        fast, slow = 3 / 28.6, 3 / 118.3
        return [
            -2 * y[0],
            2 * y[0] - clearance * level,
            *(
                fast * (before - own)
                for before, own in zip((free, y[2], y[3]), y[2:5], strict=True)
            ),
            *(
                slow * (before - own)
                for before, own in zip((free, y[5], y[6]), y[5:8], strict=True)
            ),
        ]

    state, found = np.array([0.0, 0.0, *[1.0] * 6]), []
    for day in range(20):
        begin, end = day * 24.0, day * 24.0 + 24.0
        state[0] += 2.5
        inside = [hour for hour in asked if begin < hour <= end]
        stops = sorted({*inside, end})
        step = solve_ivp(change, (begin, end), state, rtol=1e-10, atol=1e-12, t_eval=stops)
        state = step.y[:, -1].copy()
        found += [1 + 20 * (1 - (one[4] + one[7]) / 2) for one in step.y.T[: len(inside)]]
    return found


def test_warfarin_and_the_inr() -> None:
    twin = model("warfarin_hamberg_2010")
    tablets = Dose(
        time=hours(0),
        amount=Quantity(5, "mg"),
        route="oral",
        interval=Quantity(24, "h"),
        additional=19,
    )
    known = {
        "age": Quantity(60, "a"),
        "cyp2c9_star2_alleles": "none",
        "cyp2c9_star3_alleles": "one",
        "vkorc1_1639a_alleles": "one",
    }
    tables = patients(twin, ([tablets], known))
    own = twin.individual(tables.batch, typical(twin))
    clearance = (0.174 + 0.0422) * (1 + 0.00571 * 11)
    assert own["clearance"].item() == pytest.approx(clearance)
    assert own["half_maximal_concentration"].item() == pytest.approx(2.05 + 0.96)
    asked = (12.0, 60.0, 168.0, 300.0, 479.0)
    found = twin.predict(tables.batch, typical(twin), row(0.0, *asked))[0].tolist()
    assert found[0] == pytest.approx(1.0)
    assert found[1:] == pytest.approx(_warfarin_inr(asked, clearance, 3.01), rel=1e-4)


def test_warfarin_at_steady_state_is_what_many_days_lead_to() -> None:
    twin = model("warfarin_xia_2024")
    known = {
        "age": Quantity(60, "a"),
        "body_weight": Quantity(60, "kg"),
        "cyp2c9_star2_alleles": "none",
        "cyp2c9_star3_alleles": "none",
        "vkorc1_1639a_alleles": "two",
        "amiodarone": "not_taken",
    }
    daily = {"amount": Quantity(2.5, "mg"), "route": "oral", "interval": Quantity(24, "h")}
    steady = Dose(time=hours(0), steady_state=True, **daily)  # type: ignore[arg-type]
    long = Dose(time=Quantity(-60, "d"), additional=60, **daily)  # type: ignore[arg-type]
    levels = [
        twin.predict(patients(twin, ([dose], known)).batch, typical(twin), row(0.0, 12.0))
        for dose in (steady, long)
    ]
    assert levels[0].tolist()[0] == pytest.approx(levels[1].tolist()[0], rel=1e-9)
    assert 1.13 < levels[0][0, 0] < 6.0


def test_amlodipine_and_systolic_pressure() -> None:
    twin = model("amlodipine_mukherjee_2018")
    tablets = Dose(
        time=hours(0),
        amount=Quantity(5, "mg"),
        route="oral",
        interval=Quantity(24, "h"),
        additional=41,
    )
    tables = patients(twin, ([tablets], {"body_weight": Quantity(82.2, "kg")}))
    asked = (30.0, 500.0, 1_000.0)
    levels = twin.predict(tables.batch, typical(twin), row(*asked), 1)[0].tolist()
    expected = [
        148.84
        + 8.245 * math.cos(2 * math.pi * 1.76 / 24 * (hour % 24))
        - 3.145 * level * (1 - math.exp(-0.049 * hour))
        for hour, level in zip(asked, levels, strict=True)
    ]
    found = twin.predict(tables.batch, typical(twin), row(*asked))[0].tolist()
    assert found == pytest.approx(expected, rel=1e-9)


def test_amlodipine_has_the_published_exposure_and_ritonavir_the_published_ratio() -> None:
    """Mukherjee 2018, Table 4: AUC 2.28 times as large with ritonavir."""
    twin = model("amlodipine_mukherjee_2018")
    areas = []
    for ritonavir in ("not_taken", "taken"):
        known = {"body_weight": Quantity(82.2, "kg"), "ritonavir": ritonavir}
        tablet = Dose(time=hours(0), amount=Quantity(5, "mg"), route="oral")
        tables = patients(twin, ([tablet], known))
        areas.append(twin.exposure(tables.batch, typical(twin), row(3_000.0), 1).item())
    assert areas[0] == pytest.approx(5_000 * 0.666 / 33.9, rel=1e-4)
    assert areas[1] / areas[0] == pytest.approx(2.28, rel=2e-3)


def test_the_area_under_an_effect_is_its_integral() -> None:
    """Of a pressure without any drug: the integral of a cosine, day by day."""
    twin = model("amlodipine_mukherjee_2018")
    tables = patients(twin, ([], {"body_weight": Quantity(80, "kg")}))
    turn = 2 * math.pi * 1.76 / 24
    day = 24 * 148.84 + 8.245 * math.sin(turn * 24) / turn
    part = 10.4 * 148.84 + 8.245 * math.sin(turn * 10.4) / turn
    found = twin.exposure(tables.batch, typical(twin), row(24.0, 34.4, 0.0))[0].tolist()
    assert found == pytest.approx([day, day + part, 0.0], rel=1e-3)
