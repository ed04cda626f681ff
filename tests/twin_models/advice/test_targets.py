"""Every kind of target against its definition, on a curve that is known by hand."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtwin_twins.advice.regimen import Regimen, at_steady_state
from fedtwin_twins.advice.targets import Target, TargetKind, Window, range_of, reached
from fedtwin_twins.twin.batch import Batch
from fedtwin_twins.twin.quantities import Quantity
from fedtwin_twins.twin.refusals import Refusal

from .patients import GOTI, goti_known, mg

MIC = Quantity(4.0, "mg/L")
INFUSION = Regimen(amount=mg(1000), interval_h=12.0, route="intravenous", duration_h=1.0)
FIRST_DOSE, FIRST, LAST = 0.0, 24.0, 36.0


def value(kind: TargetKind, **more: object) -> float:
    """What the patient of the published cases reaches in the third interval."""
    known = goti_known([0.0, 0.0, 0.0])
    target = Target(kind=kind, observable="concentration", low=Quantity(1, "mg/L"), **more)
    batch = known.under(INFUSION, 0.0, LAST)
    ends = torch.tensor([[FIRST], [LAST]], dtype=torch.float64)
    window = Window(start=ends[0], end=ends[1])
    return float(reached(GOTI, batch, known.effects, target, window)[0])


def curve(start: float = FIRST, points: int = 24_001) -> tuple[torch.Tensor, torch.Tensor]:
    known = goti_known([0.0, 0.0, 0.0])
    times = torch.linspace(start, LAST, points, dtype=torch.float64)
    batch = known.under(INFUSION, 0.0, LAST)
    return times, GOTI.predict(batch, known.effects, times[None])[0]


def test_levels_and_areas() -> None:
    times, levels = curve()
    area = float(torch.trapezoid(levels, times))
    assert value("trough") == pytest.approx(float(levels[-1]), rel=1e-9)
    assert value("peak") == pytest.approx(float(levels.max()), rel=1e-6)
    assert value("area") == pytest.approx(area, rel=1e-6)
    assert value("area_24h") == pytest.approx(2 * area, rel=1e-6)
    assert value("mean") == pytest.approx(area / 12, rel=1e-6)
    times, levels = curve(FIRST_DOSE)
    whole = float(torch.trapezoid(levels, times))
    assert value("cumulative_area") == pytest.approx(whole, rel=1e-5)


def test_the_peak_of_an_injection_is_that_of_the_moment_it_is_in() -> None:
    """1 g at once into the central volume, on top of what is left."""
    regimen = Regimen(amount=mg(1000), interval_h=12.0, route="intravenous")
    known = goti_known([0.0, 0.0, 0.0])
    doses, window = at_steady_state(GOTI, [regimen])
    steady = replace(known.batch, doses=doses)
    peak, trough = (
        float(reached(GOTI, steady, known.effects, _above_0(kind), window)[0])
        for kind in ("peak", "trough")
    )
    volume = float(GOTI.individual(steady, known.effects)["central_volume"][0, 0])
    assert peak - trough == pytest.approx(1000.0 / volume, rel=1e-9)
    inside = Target(
        kind="time_in_range",
        observable="concentration",
        low=Quantity(1, "%"),
        within=(Quantity(trough, "mg/L"), Quantity(peak, "mg/L")),
    )
    assert float(reached(GOTI, steady, known.effects, inside, window)[0]) == pytest.approx(100.0)


def _above_0(kind: TargetKind) -> Target:
    return Target(kind=kind, observable="concentration", low=Quantity(0, "mg/L"))


@pytest.mark.parametrize("kind", ["trough", "peak", "mean", "area", "area_24h", "cumulative_area"])
def test_over_the_inhibitory_concentration(kind: TargetKind) -> None:
    found = value(f"{kind}_per_mic", inhibitory_concentration=MIC)  # type: ignore[arg-type]
    assert found == pytest.approx(value(kind) / 4.0)


@pytest.mark.parametrize("unbound", [1.0, 0.5, 0.2])
def test_time_above_the_inhibitory_concentration(unbound: float) -> None:
    limit = Quantity(8.0, "mg/L")
    _, levels = curve()
    expected = 100 * float((unbound * levels > 8.0).double().mean())
    found = value(
        "unbound_time_above_mic", inhibitory_concentration=limit, unbound_fraction=unbound
    )
    assert found == pytest.approx(expected, abs=0.2)


def test_time_in_range() -> None:
    _, levels = curve()
    expected = 100 * float(((levels > 10.0) & (levels < 15.0)).double().mean())
    found = value("time_in_range", within=(Quantity(10, "mg/L"), Quantity(15, "mg/L")))
    assert found == pytest.approx(expected, abs=0.2)


@given(
    st.floats(100.0, 3000.0),
    st.sampled_from([6.0, 8.0, 12.0, 24.0]),
    st.just(0.0) | st.floats(0.01, 4.0),
)
@settings(max_examples=10)
def test_at_steady_state_the_area_is_dose_over_clearance(
    amount: float, interval: float, duration: float
) -> None:
    known = goti_known([0.2, -0.1, 0.3])
    regimen = Regimen(
        amount=mg(amount), interval_h=interval, route="intravenous", duration_h=duration
    )
    doses, window = at_steady_state(GOTI, [regimen])
    area = Target(kind="area", observable="concentration", low=Quantity(1, "mg/L.h"))
    batch = Batch(doses=doses, traits=known.batch.traits)
    clearance = 4.5 * (65 / 120) ** 0.8 * math.exp(0.2)
    found = float(reached(GOTI, batch, known.effects, area, window)[0])
    assert found == pytest.approx(amount / clearance, rel=1e-6)


@pytest.mark.case("E01")
@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"low": Quantity(600, "mg/L.h"), "high": Quantity(400, "mg/L.h")}, "swap the two limits"),
        ({"low": Quantity(1, "g/L.h"), "high": Quantity(600, "mg/L.h")}, "swap the two limits"),
        ({}, "a lower limit, an upper limit, or both"),
        ({"kind": "area_per_mic", "low": Quantity(400, "h")}, "pathogen's concentration"),
        ({"low": Quantity(400, "mg/L.h"), "unbound_fraction": 1.2}, "at most 1"),
        ({"kind": "time_in_range", "low": Quantity(70, "%")}, "two limits of the observable"),
        ({"kind": "auc", "low": Quantity(400, "mg/L.h")}, "cumulative_area"),
    ],
)
def test_what_is_no_target(change: dict[str, object], says: str) -> None:
    with pytest.raises(Refusal, match=says):
        Target(**{"kind": "area_24h", "observable": "concentration", **change})


def test_what_the_model_does_not_know_is_refused() -> None:
    wrong = Target(kind="trough", observable="inr", low=Quantity(2, "1"))
    with pytest.raises(Refusal, match="concentration"):
        range_of(GOTI, wrong)
    unit = Target(kind="area_24h", observable="concentration", low=Quantity(400, "mg/L"))
    with pytest.raises(Refusal, match=r"mg/L\.h"):
        range_of(GOTI, unit)
