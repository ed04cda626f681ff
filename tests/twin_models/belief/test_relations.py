"""Relations between beliefs that hold for every patient, whoever that is (case X01)."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtwin_twins.belief.laplace import laplace
from fedtwin_twins.belief.likelihood import Evidence, evidence_of
from fedtwin_twins.belief.mode import find_mode
from fedtwin_twins.twin.residuals import ResidualError

from .models import F64, batch_of, observed_of, run001, varying, with_occasions

doses = st.lists(
    st.tuples(st.floats(0.0, 100.0), st.floats(100.0, 20000.0)), min_size=1, max_size=4
).map(sorted)
logs = st.floats(-0.8, 0.8)
effects = st.tuples(logs, logs, logs)
few = settings(max_examples=8)


def truths(
    given_doses: list[tuple[float, float]], row: tuple[float, ...], times: list[float]
) -> list[float]:
    values = run001().predict(
        batch_of(given_doses), torch.tensor([row], dtype=F64), torch.tensor([times], dtype=F64)
    )
    return values[0].tolist()


@few
@given(doses)
@pytest.mark.case("X01")
def test_no_data_no_news(given_doses: list[tuple[float, float]]) -> None:
    asked = evidence_of(run001(), batch_of(given_doses), observed_of([]))
    mode = find_mode(asked)
    assert mode.effects.abs().max() == 0.0
    around = laplace(asked, mode)
    assert torch.allclose(around.covariance[0], asked.covariance, rtol=1e-12)


@few
@given(effects)
@pytest.mark.case("X01")
def test_many_precise_levels_leave_no_doubt(row: tuple[float, ...]) -> None:
    times = np.linspace(0.3, 60.0, 60).tolist()
    levels = list(zip(times, truths([(0.0, 10000.0)], row, times), strict=True))
    precise = replace(run001(), error=ResidualError(convention="proportional", proportional=1e-3))
    asked = evidence_of(precise, batch_of([(0.0, 10000.0)]), observed_of(levels))
    mode = find_mode(asked)
    assert bool(mode.converged.all())
    around = laplace(asked, mode)
    spreads = around.covariance[0].diagonal().sqrt()
    assert float(spreads.max()) < 0.05
    assert float((mode.effects[0] - torch.tensor(row, dtype=F64)).abs().max()) < 0.01


@few
@given(effects, st.integers(0, 2**31))
@pytest.mark.case("X01")
def test_a_flat_prior_leaves_least_squares(row: tuple[float, ...], seed: int) -> None:
    """Beside scipy's least squares from the same start."""
    optimise = pytest.importorskip("scipy.optimize")
    times = [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 24.0, 36.0]
    noise = np.random.default_rng(seed).normal(size=len(times))
    values = np.array(truths([(0.0, 10000.0)], row, times)) + 2.0 * noise
    model = replace(run001(), error=ResidualError(convention="additive", additive=2.0))
    batch = batch_of([(0.0, 10000.0)])
    observed = observed_of(list(zip(times, values.tolist(), strict=True)))
    flat = find_mode(evidence_of(model, batch, observed, flattening=1e-9))
    fitted = optimise.least_squares(
        lambda at: (np.array(truths([(0.0, 10000.0)], tuple(at), times)) - values) / 2.0,
        flat.effects[0].numpy() + 0.01,
        xtol=1e-14,
        ftol=1e-14,
        gtol=1e-14,
    )
    assert flat.effects[0].tolist() == pytest.approx(fitted.x.tolist(), abs=1e-4)


@few
@given(effects, st.permutations(range(5)))
@pytest.mark.case("X01")
def test_the_order_of_records_does_not_matter(row: tuple[float, ...], order: list[int]) -> None:
    times = [1.0, 3.0, 9.0, 24.0, 30.0]
    levels = list(zip(times, truths([(0.0, 10000.0), (24.0, 5000.0)], row, times), strict=True))
    batch = batch_of([(0.0, 10000.0), (24.0, 5000.0)])
    sorted_mode = find_mode(evidence_of(run001(), batch, observed_of(levels)))
    mixed = observed_of([levels[place] for place in order])
    assert torch.allclose(
        find_mode(evidence_of(run001(), batch, mixed)).effects, sorted_mode.effects, atol=1e-8
    )


@few
@given(effects, st.floats(0.001, 1000.0))
@pytest.mark.case("X01")
def test_a_change_of_units_changes_nothing(row: tuple[float, ...], factor: float) -> None:
    """Doses and levels in another unit, with an error in proportion."""
    times = [1.0, 3.0, 9.0, 24.0]
    levels = list(zip(times, truths([(0.0, 10000.0)], row, times), strict=True))
    usual = evidence_of(run001(), batch_of([(0.0, 10000.0)]), observed_of(levels))
    scaled = evidence_of(
        run001(),
        batch_of([(0.0, 10000.0 * factor)]),
        observed_of([(time, value * factor) for time, value in levels]),
    )
    assert torch.allclose(find_mode(scaled).effects, find_mode(usual).effects, atol=1e-6)


@few
@given(effects, logs)
@pytest.mark.case("X01")
def test_another_occasion_has_no_say(row: tuple[float, ...], other: float) -> None:
    """Levels of the first occasion move its own effect and leave the second's at 0."""
    times = [1.0, 3.0, 9.0, 20.0]
    base = batch_of([(0.0, 10000.0), (24.0, 10000.0)])
    batch = with_occasions(base, [24.0])
    levels = list(zip(times, truths([(0.0, 14000.0)], row, times), strict=True))
    asked = evidence_of(varying(), batch, observed_of(levels))
    assert asked.effects == 5
    mode = find_mode(asked)
    assert float(mode.effects[0, 4]) == 0.0
    changed = torch.tensor([[*row, 0.1, other]], dtype=F64)
    unchanged = torch.tensor([[*row, 0.1, 0.0]], dtype=F64)
    assert torch.equal(asked.terms(changed), asked.terms(unchanged))
    around = laplace(asked, mode)
    assert float(around.covariance[0, 4, 4]) == pytest.approx(0.09, rel=1e-9)


def test_any_function_and_covariance_will_do() -> None:
    """Correlated effects of a straight line: the textbook's Bayesian regression."""
    covariance = torch.tensor([[1.0, 0.6], [0.6, 2.0]], dtype=F64)
    times, values = [0.0, 1.0, 2.0, 5.0], [0.9, 2.1, 2.8, 6.3]
    asked = Evidence(
        predict=lambda batch, effects, at, kinds: effects[:, :1] + effects[:, 1:] * at,
        covariance=covariance,
        errors=(ResidualError(convention="additive", additive=0.5),),
        batch=batch_of([(0.0, 0.0)]),
        observed=observed_of(list(zip(times, values, strict=True))),
    )
    design = torch.tensor([[1.0, time] for time in times], dtype=F64)
    precision = torch.linalg.inv(covariance) + design.mT @ design / 0.25
    expected = torch.linalg.solve(precision, design.mT @ torch.tensor(values, dtype=F64) / 0.25)
    mode = find_mode(asked)
    assert mode.effects[0].tolist() == pytest.approx(expected.tolist(), abs=1e-6)
    found = laplace(asked, mode)
    assert torch.allclose(found.covariance[0], torch.linalg.inv(precision), rtol=1e-9)
    # The probability of the data with the effects integrated out, by the normal distribution.
    marginal = torch.distributions.MultivariateNormal(
        torch.zeros(4, dtype=F64), design @ covariance @ design.mT + 0.25 * torch.eye(4)
    )
    constant = 4 * torch.log(torch.tensor(2.0 * torch.pi, dtype=F64))
    log_probability = marginal.log_prob(torch.tensor(values, dtype=F64))
    assert float(mode.objective + found.log_determinant) == pytest.approx(
        float(-2.0 * log_probability - constant)
    )
