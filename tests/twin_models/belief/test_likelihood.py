"""The objective by hand, its far tails, outliers, several observables, and what it refuses."""

import sys
from dataclasses import replace
from math import log
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from fedtwin_twins.belief.likelihood import ContaminatedNormal, Evidence, evidence_of, standardised
from fedtwin_twins.belief.mode import find_mode
from fedtwin_twins.twin.batch import Batch, Observed
from fedtwin_twins.twin.refusals import Refusal
from fedtwin_twins.twin.residuals import Convention, ResidualError

from .models import F64, batch_of, observed_of, run001

ADDITIVE = ResidualError(convention="additive", additive=2.0)


def flat(batch: Batch, effects: Tensor, times: Tensor, kinds: Tensor) -> Tensor:
    """The effect itself, at any time."""
    return effects[:, :1].expand_as(times)


def of_a_mean(observed: Observed, **options: Any) -> Evidence:
    """Measurements of one number whose prior is N(0, 4)."""
    chosen = {"errors": (ADDITIVE,), **options}
    return Evidence(
        predict=flat,
        covariance=torch.tensor([[4.0]], dtype=F64),
        batch=batch_of(*[[(0.0, 1.0)]] * len(observed.time)),
        observed=observed,
        **chosen,
    )


def test_by_hand() -> None:
    asked = of_a_mean(observed_of([(0.0, 3.0), (1.0, 5.0)]))
    found = asked.objective(torch.tensor([[1.0]], dtype=F64))
    expected = 2.0**2 / 4 + 4.0**2 / 4 + 2 * log(4.0) + 1.0 / 4
    assert float(found) == pytest.approx(expected)


def test_the_mode_and_covariance_of_normals() -> None:
    """Precision weighting: prior 1/4, two measurements of 1/4 each."""
    mode = find_mode(of_a_mean(observed_of([(0.0, 3.0), (1.0, 5.0)])))
    assert float(mode.effects) == pytest.approx((3.0 + 5.0) / 3.0)


def test_empty_slots_and_order_do_not_matter() -> None:
    levels = [(1.5, 91.0), (4.4, 110.0), (7.1, 79.0)]
    dose = [(0.0, 10000.0)]
    alone = evidence_of(run001(), batch_of(dose), observed_of(levels))
    padded = evidence_of(
        run001(), batch_of(dose, dose), observed_of(levels[::-1], [*levels, (24.0, 20.0)])
    )
    effects = torch.tensor([[0.1, -0.2, 0.3]], dtype=F64)
    together = padded.objective(effects.expand(2, -1))
    assert float(together[0]) == pytest.approx(float(alone.objective(effects)), rel=1e-14)
    assert float(together[1]) != float(together[0])


@pytest.mark.parametrize("outliers", [None, ContaminatedNormal()])
@pytest.mark.parametrize("residual", [-1e6, -50.0, -5.0, 0.0, 5.0, 50.0, 1e6])
def test_derivatives_below_the_limit_are_finite(
    residual: float, outliers: ContaminatedNormal | None
) -> None:
    """However far the limit lies from the prediction, on either side."""
    asked = of_a_mean(observed_of([(0.0, 0.0)], below=[[0]]), outliers=outliers)
    point = torch.tensor([[-2.0 * residual]], dtype=F64, requires_grad=True)
    value = asked.terms(point).sum()
    (slope,) = torch.autograd.grad(value, point, create_graph=True)
    (bend,) = torch.autograd.grad(slope.sum(), point)
    assert value.isfinite()
    assert slope.isfinite().all()
    assert bend.isfinite().all()
    assert float(slope.detach()) >= 0.0  # a higher prediction explains it less
    if residual == -50.0 and outliers is None:
        # Mills' ratio: phi / Phi is about z, here in units of an sd of 2
        assert float(slope.detach()) == pytest.approx(2 * 50.02 / 2, rel=1e-3)


def test_outliers_count_less_the_farther_they_are() -> None:
    levels = [(0.0, 3.0), (1.0, 3.2), (2.0, 2.8), (3.0, 40.0)]
    plain = find_mode(of_a_mean(observed_of(levels)))
    robust = find_mode(of_a_mean(observed_of(levels), outliers=ContaminatedNormal()))
    without = find_mode(of_a_mean(observed_of(levels[:3])))
    pulled = abs(float(plain.effects) - float(without.effects))
    assert abs(float(robust.effects) - float(without.effects)) < 0.1 * pulled


def test_hardly_any_outliers_are_none() -> None:
    observed = observed_of([(0.0, 3.0), (1.0, 5.0)])
    point = torch.tensor([[1.0]], dtype=F64)
    robust = of_a_mean(observed, outliers=ContaminatedNormal(share=1e-12))
    expected = float(of_a_mean(observed).objective(point))
    assert float(robust.objective(point)) == pytest.approx(expected, abs=1e-9)


def test_each_observable_has_its_own_error() -> None:
    errors = (ADDITIVE, ResidualError(convention="on_logarithm", additive=0.5))
    observed = replace(
        observed_of([(0.0, 3.0), (0.0, 2.0)]), kind=torch.tensor([[0, 1]], dtype=torch.int64)
    )
    predicted = torch.tensor([[1.0, 4.0]], dtype=F64)
    residual, log_variance = standardised(errors, observed, predicted)
    assert residual[0].tolist() == pytest.approx([1.0, (log(2.0) - log(4.0)) / 0.5])
    assert log_variance[0].tolist() == pytest.approx([log(4.0), log(0.25)])


def test_what_is_no_measurement_is_refused_all_at_once() -> None:
    observed = replace(
        observed_of([(0.0, float("nan")), (1.0, -1.0)], [(float("inf"), 1.0)]),
        kind=torch.tensor([[0, 1], [7, 0]], dtype=torch.int64),
    )
    errors = (ADDITIVE, ResidualError(convention="on_logarithm", additive=0.5))
    with pytest.raises(Refusal) as raised:
        of_a_mean(observed, errors=errors)
    assert [problem.field for problem in raised.value.problems] == [
        "observed[1, 0].kind",
        "observed[0, 0].value",
        "observed[1, 0].value",
        "observed[0, 1].value",
    ]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"flattening": 0.0}, "flattening is 0; expected above 0"),
        ({"outliers": (0.7, 5.0)}, "outliers.share is 0.7"),
        ({"outliers": (0.1, 1.0)}, "outliers.widening is 1; expected above 1"),
    ],
)
def test_settings_out_of_range_are_refused(options: dict[str, Any], words: str) -> None:
    share, widening = options.pop("outliers", (0.1, 2.0))
    with pytest.raises(Refusal, match=words):
        of_a_mean(
            observed_of([(0.0, 1.0)]),
            outliers=ContaminatedNormal(share=share, widening=widening),
            **options,
        )


def test_no_covariance_is_refused() -> None:
    asked = of_a_mean(observed_of([(0.0, 1.0)]))
    with pytest.raises(Refusal, match="not positive definite"):
        replace(asked, covariance=torch.tensor([[-1.0]], dtype=F64))
    with pytest.raises(Refusal, match="2 patients; expected 1"):
        replace(asked, observed=observed_of([(0.0, 1.0)], [(0.0, 1.0)]))


@pytest.mark.parametrize("convention", get_args(Convention))
def test_second_derivatives_of_an_error_import_no_compiler(
    convention: Convention, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of torch.abs they do: seconds before a patient's first answer."""
    monkeypatch.setitem(sys.modules, "torch._dynamo", None)
    error = ResidualError(convention=convention, additive=0.5, proportional=0.1)
    said = torch.tensor([[1.0, 2.0, -3.0]], dtype=F64, requires_grad=True)
    spread = error.deviation(said)
    term = ((4.0 - said) / spread) ** 2 + 2.0 * spread.log()
    (slope,) = torch.autograd.grad(term.sum(), said, create_graph=True)
    (bend,) = torch.autograd.grad(slope.sum(), said)
    assert bool(bend.isfinite().all())
    assert spread.tolist() == error.deviation(said.abs()).tolist()
