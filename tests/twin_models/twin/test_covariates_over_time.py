"""What a covariate is between two records, and how spans are cut."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedtwin_twins.twin.covariates import steps_of, traits_of, with_breaks
from fedtwin_twins.twin.model import CarryRule

RECORDS = [(0.0, 10.0), (10.0, 20.0), (30.0, 5.0)]


def value_at(rule: CarryRule, hour: float) -> float:
    steps = steps_of(RECORDS, rule)
    return [value for start, value in steps if start <= hour][-1]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("last_forward", {-5: 10, 0: 10, 9.9: 10, 10: 20, 29: 20, 30: 5, 99: 5}),
        ("next_backward", {-5: 10, 0: 10, 0.1: 20, 10: 20, 10.1: 5, 30: 5, 99: 5}),
    ],
)
def test_carried_forward_and_backward(rule: CarryRule, expected: dict[float, float]) -> None:
    """A record's own hour has its own value by either rule."""
    assert {hour: value_at(rule, hour) for hour in expected} == expected


@given(st.floats(0.0, 30.0))
def test_a_line_is_kept_within_a_hundredth(hour: float) -> None:
    line = 10 + hour if hour <= 10 else 20 - 0.75 * (hour - 10)
    assert value_at("line", hour) == pytest.approx(line, abs=0.01 * 20)


def test_a_line_with_no_change_is_one_step() -> None:
    steps = steps_of([(0.0, 3.0), (10.0, 3.0)], "line")
    assert steps == [(-math.inf, 3.0), (0.0, 3.0), (10.0, 3.0)]


def test_spans_begin_where_anything_changes() -> None:
    steps = {
        "weight": steps_of([(0.0, 70.0), (24.0, 72.0)], "last_forward"),
        "creatinine": steps_of([(0.0, 1.0), (12.0, 2.0)], "last_forward"),
    }
    other = {name: steps_of([(0.0, 5.0)], "last_forward") for name in steps}
    traits = traits_of([steps, other], [[24.0], []])
    assert traits.starts.tolist() == [[-math.inf, 12.0, 24.0], [-math.inf, math.inf, math.inf]]
    assert traits.values["weight"].tolist() == [[70, 70, 72], [5, 5, 5]]
    assert traits.values["creatinine"].tolist() == [[1, 2, 2], [5, 5, 5]]
    assert traits.occasions.tolist() == [[0, 0, 1], [0, 0, 0]]


def test_breaks_change_no_value() -> None:
    steps = {"weight": steps_of([(0.0, 70.0), (24.0, 72.0)], "last_forward")}
    traits = traits_of([steps], [[10.0]])
    more = with_breaks(traits, torch.tensor([[6.0, 36.0]], dtype=torch.float64))
    assert more.starts.tolist() == [[-math.inf, 6.0, 10.0, 24.0, 36.0]]
    assert more.values["weight"].tolist() == [[70, 70, 70, 72, 72]]
    assert more.occasions.tolist() == [[0, 0, 1, 1, 1]]
