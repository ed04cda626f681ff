"""What may leave: noised, rounded, and so masked that nothing can be worked out."""

from __future__ import annotations

import json
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fedtwin_client.readiness.shared import (
    DEFECTS,
    STATES,
    Contributions,
    contributions,
    quantiles,
    sharable,
    spelled,
)
from fedtwin_client.readiness.suppression import SHOWN, SMALL, WITHHELD, suppress, with_totals

from .conftest import NOW, plan


def fixed_by_elimination(shape: tuple[int, int], unknown: list[tuple[int, int]]) -> list[int]:
    """Which unknown cells of a table with totals have one value only, by Gauss-Jordan in fractions.

    An oracle that shares nothing with the product: exact arithmetic, no decomposition.
    """
    rows, columns = shape
    lines = [[(r, c) for c in range(columns)] for r in range(rows)]
    lines += [[(r, c) for r in range(rows)] for c in range(columns)]
    matrix = []
    for line in lines:
        total = line[-1]
        row = [Fraction(0)] * len(unknown)
        for place, cell in enumerate(unknown):
            if cell in line:
                row[place] = Fraction(-1) if cell == total else Fraction(1)
        matrix.append(row)
    pivots = []
    top = 0
    for column in range(len(unknown)):
        found = next((r for r in range(top, len(matrix)) if matrix[r][column]), None)
        if found is None:
            continue
        matrix[top], matrix[found] = matrix[found], matrix[top]
        lead = matrix[top][column]
        matrix[top] = [value / lead for value in matrix[top]]
        for r in range(len(matrix)):
            if r != top and matrix[r][column]:
                factor = matrix[r][column]
                matrix[r] = [a - factor * b for a, b in zip(matrix[r], matrix[top], strict=True)]
        pivots.append(column)
        top += 1
    return [
        column
        for place, column in enumerate(pivots)
        if sum(bool(value) for value in matrix[place]) == 1
    ]


TABLES = st.integers(1, 6).flatmap(
    lambda rows: st.integers(1, 5).flatmap(
        lambda columns: arrays(
            np.int64, (rows, columns), elements=st.one_of(st.integers(0, 12), st.integers(0, 300))
        )
    )
)


@given(inner=TABLES, smallest=st.integers(5, 15))
@settings(max_examples=150, deadline=None)
def test_nobody_can_solve_a_masked_cell_from_what_is_shown(inner, smallest: int) -> None:
    table = with_totals(inner.astype(float))
    fate = suppress(table, smallest)
    assert ((table < smallest) == (fate == SMALL)).all(), "small ones, and only they, say so"
    unknown = [tuple(map(int, cell)) for cell in np.argwhere(fate != SHOWN)]
    assert fixed_by_elimination(table.shape, unknown) == []


def test_without_a_second_mask_the_oracle_solves_the_cell() -> None:
    """It can fail: a table with one masked cell is solved."""
    assert fixed_by_elimination((3, 3), [(0, 0)]) == [0]
    assert fixed_by_elimination((3, 3), [(0, 0), (0, 1), (1, 0), (1, 1)]) == []


def test_a_single_small_cell_takes_the_smallest_others_with_it() -> None:
    table = with_totals(np.array([[3.0, 50.0, 20.0], [30.0, 40.0, 90.0], [60.0, 80.0, 70.0]]))
    fate = suppress(table, 10)
    assert fate[0, 0] == SMALL
    withheld = [tuple(map(int, cell)) for cell in np.argwhere(fate == WITHHELD)]
    assert withheld == [(0, 1), (1, 0), (1, 1)], "120 in all; every other rectangle is dearer"
    shown = spelled(table, 10)
    assert shown[0][:3] == ["<10", "withheld", 20]


def test_a_table_without_small_cells_is_shown_whole() -> None:
    assert (suppress(with_totals(np.full((3, 2), 10.0)), 10) == SHOWN).all()


@pytest.fixture(scope="module")
def made(hospital) -> Contributions:
    return contributions(hospital[0], plan(), NOW)


def test_one_patient_adds_no_more_than_is_paid_for(made: Contributions) -> None:
    parts = (made.years, made.states, made.defects, made.places)
    squared = sum((part**2).reshape(len(part), -1).sum(axis=1) for part in parts)
    assert set(np.unique(np.concatenate([part.ravel() for part in parts]))) <= {0.0, 1.0}
    assert squared.max() <= made.most
    assert made.most == 1 + 2 * 4 + 5 * 2
    assert (made.states.sum(axis=2) == 1).all()
    assert (made.years.sum(axis=(1, 2)) == 1).all()
    assert (made.places.sum(axis=2) <= 1).all()
    assert made.defects.sum() > 0


def test_contributions_agree_with_the_report(hospital, made: Contributions) -> None:
    from fedtwin_client.readiness.measures import measure

    report = measure(hospital[0], plan(), NOW)
    usable = made.states[:, :, STATES.index("usable")].sum(axis=0)
    assert usable.tolist() == [feature.covered for feature in report.features]
    assert report.cohort is not None
    assert made.years[:, :, 1].sum() == report.cohort.events
    assert len(made.subject_ids) == report.cohort.patients
    assert made.defects[:, 0, DEFECTS.index("implausible")].sum() > 0
    assert made.defects[:, 1, DEFECTS.index("unknown_unit")].sum() > 0


class Recorded:
    """Noise that is written down; 0 unless told."""

    def __init__(self, size: float = 0.0) -> None:
        self.size, self.drawn = size, 0

    def gaussian(self, shape: tuple[int, ...]) -> np.ndarray:
        self.drawn += math.prod(shape)
        return np.full(shape, self.size)


def test_every_number_is_noised_and_the_noise_is_the_charge(made: Contributions) -> None:
    noise = Recorded()
    shown = sharable(made, plan(), NOW, (2.0, 0.5, 1e-5), noise, 10)
    cells = sum(part[0].size for part in (made.years, made.states, made.defects, made.places))
    assert noise.drawn == cells
    assert shown["privacy"]["noise_sd"] == pytest.approx(2.0 * math.sqrt(made.most))
    moved = sharable(made, plan(), NOW, (2.0, 0.5, 1e-5), Recorded(5.0), 10)
    sd = shown["privacy"]["noise_sd"]
    before = shown["features"]["age"]["patients"]["usable"]
    assert moved["features"]["age"]["patients"]["usable"] == 10 * round((150 + 5 * sd) / 10)
    assert before == 150


def test_what_is_shown_is_rounded_small_ones_are_not_and_there_are_no_ends(
    made: Contributions,
) -> None:
    shown = sharable(made, plan(), NOW, (1e-9, 0.5, 1e-5), Recorded(), 10)
    text = json.dumps(shown)

    def leaves(value):
        if isinstance(value, dict):
            for inner in value.values():
                yield from leaves(inner)
        elif isinstance(value, list):
            for inner in value:
                yield from leaves(inner)
        else:
            yield value

    for name, feature in shown["features"].items():
        counts = [*leaves(feature["patients"]), *leaves(feature["any"])]
        assert all(isinstance(c, str) or (c >= 10 and c % 10 == 0) for c in counts), name
        usable = feature["patients"]["usable"]
        if "quantiles" in feature:
            assert usable == "withheld" or usable >= 100
            assert len(feature["quantiles"]) == 19
    assert "quantiles" not in shown["features"]["troponin"], "fewer than 100 patients"
    assert "min" not in text
    assert "max" not in text
    for subject in made.subject_ids.tolist():
        assert str(subject) not in text


def test_quantiles_of_a_histogram_without_noise_are_those_of_the_values() -> None:
    values = np.random.default_rng(2).normal(50, 12, 20000).clip(0, 99.99)
    counts = np.bincount((values // 5).astype(int), minlength=20).astype(float)
    found = quantiles(counts, 0, 100)
    assert found == sorted(found)
    assert np.abs(np.array(found) - np.quantile(values, np.arange(1, 20) / 20)).max() < 0.6
    empty = np.zeros(20)
    empty[7] = 100
    assert 35 < quantiles(empty - 3, 0, 100)[0] < quantiles(empty - 3, 0, 100)[-1] < 40
