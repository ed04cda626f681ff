"""Summaries of groups, the rows from a moment on, and ages, against plain arithmetic."""

import math
from datetime import datetime
from typing import Any

import duckdb
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fedtwin_client.cohort.features import summaries
from fedtwin_client.cohort.times import ages, first_from
from fedtwin_client.store.pieces import NEVER

SUMMARIES = ("last", "first", "mean", "min", "max", "count")
groups_of_values = st.lists(st.lists(st.floats(-1e6, 1e6), max_size=30), min_size=1, max_size=8)


@settings(max_examples=200, deadline=None)
@given(groups=groups_of_values, random=st.randoms(use_true_random=False))
def test_summaries_are_of_each_group_in_its_order(groups: list[list[float]], random: Any) -> None:
    group = [number for number, values in enumerate(groups) for _ in values]
    random.shuffle(group)  # values of other groups lie between those of a group
    left = [iter(values) for values in groups]
    values = np.array([next(left[number]) for number in group])
    found = summaries(values, np.array(group, np.int64), len(groups), set(SUMMARIES))
    for number, here in enumerate(groups):
        said = {name: column[number] for name, column in found.items()}
        if not here:
            assert all(math.isnan(one) for one in said.values())
            continue
        mean = said.pop("mean")
        exact = math.fsum(here) / len(here)
        assert mean == pytest.approx(exact, rel=1e-14, abs=1e-16 * max(map(abs, here)))
        assert said == {
            "first": here[0],
            "last": here[-1],
            "min": min(here),
            "max": max(here),
            "count": len(here),
        }


@settings(max_examples=200, deadline=None)
@given(
    spans=st.lists(
        st.tuples(st.integers(0, 3), st.lists(st.integers(-9, 9), max_size=9)),
        min_size=1,
        max_size=6,
    ),
    moment=st.integers(-10, 10),
)
def test_the_first_row_from_a_moment_on(spans: list[tuple[int, list[int]]], moment: int) -> None:
    each = [[NEVER] * timeless + sorted(times) for timeless, times in spans]
    ends = np.cumsum([len(one) for one in each])
    firsts = ends - [len(one) for one in each]
    time = np.array([one for times in each for one in times], np.int64)
    if not len(time):
        return
    moments = np.full((2, len(each)), moment)
    moments[1] += 1
    for asked, found in zip(moments, first_from(time, firsts, ends, moments), strict=True):
        for place, times in enumerate(each):
            before = sum(one == NEVER or one < asked[place] for one in times)
            assert found[place] == firsts[place] + before


@settings(max_examples=200, deadline=None)
@given(
    birth=st.datetimes(datetime(1900, 1, 1), datetime(2030, 1, 1)),
    index=st.datetimes(datetime(1990, 1, 1), datetime(2030, 1, 1)),
)
@example(birth=datetime(2000, 2, 29, 5), index=datetime(2023, 2, 28, 4))
@example(birth=datetime(2000, 2, 29, 5), index=datetime(2023, 2, 28, 5))
@example(birth=datetime(2000, 2, 29, 5), index=datetime(2024, 2, 29, 5))
def test_ages_are_calendar_years(birth: datetime, index: datetime) -> None:
    moments = np.array([birth, index], "datetime64[us]").astype(np.int64)
    (age,) = ages(moments[:1], moments[1:])
    if index < birth:
        assert age < 0
        return
    sql = (
        (
            "SELECT y + (epoch_us($i) - epoch_us($b + to_years(y)))"
            " / (epoch_us($b + to_years(y + 1)) - epoch_us($b + to_years(y)))"
            " FROM (SELECT date_sub('year', $b::TIMESTAMP, $i::TIMESTAMP) AS y)"
        )
        .replace("$i)", "$i::TIMESTAMP)")
        .replace("$b +", "$b::TIMESTAMP +")
    )
    assert duckdb.execute(sql, {"b": birth, "i": index}).fetchone() == (age,)


def test_nobody_without_a_birth_has_an_age() -> None:
    assert np.isnan(ages(np.array([NEVER, 0]), np.array([0, NEVER]))).all()
