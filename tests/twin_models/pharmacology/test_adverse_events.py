"""Side effects: the published points and ratios, intervals everywhere, and never a yes or no."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedtwin_twins.pharmacology.adverse_event_models import ADVERSE_EVENTS
from fedtwin_twins.pharmacology.adverse_events import Estimate, time_beyond, wilson
from fedtwin_twins.twin.refusals import Refusal

from .cases import case, needs_cases

VANCOMYCIN = ADVERSE_EVENTS["vancomycin_kidney_chavada_2017"]
SIMVASTATIN = ADVERSE_EVENTS["simvastatin_myopathy_search_2008"]
STATINS = ADVERSE_EVENTS["statin_side_effects_voora_2009"]
DRAWN = [name for name, model in ADVERSE_EVENTS.items() if model.function == "share of draws"]


def odds(rate: float) -> float:
    return rate / (1.0 - rate)


@needs_cases
@pytest.mark.case("T05")
def test_published_points_and_ratios() -> None:
    expected = case("T05_ae_exposure")["expected"]
    threshold = expected["vanco"]["threshold"]
    below, above = VANCOMYCIN.risk(threshold - 1.0), VANCOMYCIN.risk(threshold + 1.0)
    assert below.risk == pytest.approx(expected["vanco"]["below"], abs=0.0005)
    assert above.risk == pytest.approx(expected["vanco"]["above"])
    assert VANCOMYCIN.ratio is not None
    assert VANCOMYCIN.ratio.value == expected["vanco"]["OR"]
    crude = odds(above.risk) / odds(below.risk)
    assert crude == pytest.approx(5.28, abs=0.01)
    assert VANCOMYCIN.ratio.low < crude < VANCOMYCIN.ratio.high
    for count in (0, 1):
        step = odds(SIMVASTATIN.risk(count + 1).risk) / odds(SIMVASTATIN.risk(count).risk)
        assert step == pytest.approx(expected["simva80"]["OR_per_allele"])
    assert [STATINS.risk(count).risk for count in (0, 1, 2)] == pytest.approx(expected["voora"])


def test_a_hospitals_own_rate_is_raised_by_the_published_ratio() -> None:
    own = VANCOMYCIN.risk(600.0, baseline=0.05)
    assert odds(own.risk) / odds(0.05) == pytest.approx(5.07)
    assert odds(own.low) / odds(0.05) == pytest.approx(1.57)
    assert odds(own.high) / odds(0.05) == pytest.approx(16.29)
    assert VANCOMYCIN.risk(400.0, baseline=0.05).risk == 0.05
    relative = ADVERSE_EVENTS["vancomycin_kidney_zasowski_2018"].risk(700.0, baseline=0.1)
    assert (relative.low, relative.risk, relative.high) == pytest.approx((0.3, 0.35, 0.4))
    assert ADVERSE_EVENTS["vancomycin_kidney_zasowski_2018"].risk(700.0, baseline=0.9).risk == 1.0


def test_the_negative_predictive_value_of_the_allele_is_met() -> None:
    """99.4 % of people without the allele stay well on 80 mg (PMC3871416)."""
    assert 1.0 - SIMVASTATIN.risk(0).risk == pytest.approx(0.994, abs=0.0008)


@pytest.mark.parametrize("name", sorted(ADVERSE_EVENTS))
def test_every_model_answers_with_an_interval_and_its_source(name: str) -> None:
    model = ADVERSE_EVENTS[name]
    exposures: Any = {
        "threshold": [100.0, 2000.0],
        "per allele": [0, 1, 2],
        "by count": [0, 1, 2],
        "share of draws": [torch.linspace(1.0, 20.0, 500), torch.linspace(40.0, 100.0, 500)],
    }[model.function]
    for exposure in exposures:
        found = model.risk(exposure, baseline=0.08 if not model.rates and model.ratio else None)
        assert 0.0 <= found.low <= found.risk <= found.high <= 1.0
        assert found.interval_kind
        assert found.source
        assert str(found).startswith(model.kind)


def test_a_risk_says_how_far_its_numbers_were_checked() -> None:
    assert str(VANCOMYCIN.risk(600.0)).endswith("read in the source)")
    assert str(SIMVASTATIN.risk(1.0)).endswith("from memory, not checked)")


def test_an_uncertain_exposure_is_averaged() -> None:
    half = torch.tensor([500.0, 600.0] * 100, dtype=torch.float64)
    found = VANCOMYCIN.risk(half)
    assert found.risk == pytest.approx((12 / 107 + 8 / 20) / 2)
    assert found.low < found.risk < found.high


@given(st.floats(0, 3000), st.floats(0, 3000))
def test_more_exposure_is_never_less_risk(one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert VANCOMYCIN.risk(low).risk <= VANCOMYCIN.risk(high).risk


def test_draws_beyond_a_limit_and_the_share_of_time() -> None:
    trough = torch.linspace(0.0, 20.0, 2001, dtype=torch.float64)
    found = ADVERSE_EVENTS["tacrolimus_trough_later"].risk(trough)
    assert found.risk == pytest.approx(0.75, abs=0.001)
    assert found.high - found.low < 0.05
    nadir = [1.5] * 30 + [4.0] * 70
    assert ADVERSE_EVENTS["fluorouracil_leukopenia_grade_3"].risk(nadir).risk == 0.3
    shares = time_beyond([step / 1000 for step in range(1001)])
    assert (shares.low, shares.value, shares.high) == pytest.approx((0.025, 0.5, 0.975))


def test_the_interval_of_wilson() -> None:
    """Newcombe 1998, Table I (doi 10.1002/(SICI)1097-0258(19980430)17:8<857): 81/263, 15/148."""
    for events, people, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605)):
        found = wilson(events, people)
        assert (found.low, found.high) == pytest.approx((low, high), abs=5e-5)
    assert isinstance(wilson(0, 20), Estimate)
    assert wilson(0, 20).low == 0.0
    with pytest.raises(ValueError, match="expected 0 <= events"):
        wilson(3, 2)


@pytest.mark.parametrize(
    ("name", "exposure", "baseline", "says"),
    [
        ("vancomycin_kidney_chavada_2017", -1.0, None, "is -1 mg.h/L; expected 0 or more"),
        ("vancomycin_kidney_chavada_2017", float("nan"), None, "is nan"),
        ("vancomycin_kidney_chavada_2017", 600.0, 1.5, "baseline is 1.5"),
        ("vancomycin_kidney_zasowski_2018", 700.0, None, "give your own rate below"),
        ("simvastatin_myopathy_search_2008", 3, None, "expected 0, 1 or 2"),
        ("statin_side_effects_voora_2009", 0.5, None, "expected 0, 1 or 2"),
        ("statin_side_effects_voora_2009", 1, 0.2, "this model knows rates alone"),
        ("tacrolimus_trough_later", [7.0] * 50, None, "draws is 50; expected at least 100"),
        ("insulin_low_glucose", 80.0, None, "draws is 1"),
    ],
)
def test_what_is_refused(name: str, exposure: Any, baseline: float | None, says: str) -> None:
    with pytest.raises(Refusal, match=says):
        ADVERSE_EVENTS[name].risk(exposure, baseline=baseline)


def test_shares_of_time_are_shares() -> None:
    with pytest.raises(Refusal, match="at least 100 draws, each 0 to 1"):
        time_beyond([0.1] * 99 + [1.1])
