"""The search for modes: nobody disturbs another, nobody is left unreported, two hills are seen."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from fedtwin_twins.belief import whitened as whitening
from fedtwin_twins.belief.laplace import laplace
from fedtwin_twins.belief.likelihood import Evidence, evidence_of
from fedtwin_twins.belief.mode import ARRIVED, find_mode
from fedtwin_twins.belief.whitened import whitened
from fedtwin_twins.twin.batch import Batch
from fedtwin_twins.twin.residuals import ResidualError

from .models import F64, batch_of, observed_of, run001

ADDITIVE = ResidualError(convention="additive", additive=0.5)


def asked_of(
    function: Callable[[Tensor, Tensor], Tensor], *values: float, size: int = 1
) -> Evidence:
    """One measurement of a function of effects and patient's number; a standard normal prior."""

    def predict(batch: Batch, effects: Tensor, times: Tensor, kinds: Tensor) -> Tensor:
        return function(effects, batch.doses.amount[:, 0])[:, None].expand_as(times)

    return Evidence(
        predict=predict,
        covariance=torch.eye(size, dtype=F64),
        errors=(ADDITIVE,),
        batch=batch_of(*([(0.0, float(number))] for number in range(len(values)))),
        observed=observed_of(*[[(0.0, value)] for value in values]),
    )


def run001_patients(count: int) -> Evidence:
    generator = torch.Generator().manual_seed(3)
    model = run001()
    batch = batch_of(*[[(0.0, 10000.0), (24.0, 8000.0)]] * count)
    times = torch.tensor([1.5, 4.0, 12.0, 30.0], dtype=F64).repeat(count, 1)
    effects = torch.randn(count, 3, dtype=F64, generator=generator) * 0.2**0.5
    truth = model.predict(batch, effects, times)
    noise = torch.randn(truth.shape, dtype=F64, generator=generator)
    values = truth + model.error.deviation(truth) * noise
    people = [
        list(zip(t, v, strict=True)) for t, v in zip(times.tolist(), values.tolist(), strict=True)
    ]
    return evidence_of(model, batch, observed_of(*people))


def test_the_gradient_vanishes() -> None:
    asked = run001_patients(50)
    mode = find_mode(asked)
    assert bool(mode.converged.all())
    assert float(mode.distance.max()) <= ARRIVED
    effects = mode.effects.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(asked.objective(effects).sum(), effects)
    assert float(gradient.abs().max()) < 1e-4


def test_both_ways_to_the_second_derivatives(monkeypatch: pytest.MonkeyPatch) -> None:
    question = whitened(run001_patients(20))
    points = torch.randn(20, 3, dtype=F64, generator=torch.Generator().manual_seed(1))
    copies = question.hessian(points)
    monkeypatch.setattr(whitening, "FEW", 0)
    assert torch.allclose(copies, question.hessian(points), rtol=1e-10)


def test_a_patient_is_the_same_in_any_company() -> None:
    asked = run001_patients(50)
    together = find_mode(asked).effects
    alone = find_mode(asked.where(torch.tensor([17]))).effects
    assert (together[17] - alone[0]).abs().max() < 1e-9


def test_one_without_a_number_disturbs_nobody() -> None:
    """The second patient's prediction is none anywhere, the third's on one side only."""

    def function(effects: Tensor, number: Tensor) -> Tensor:
        value = torch.where(number == 1, torch.nan, effects[:, 0])
        return torch.where(number == 2, (effects[:, 0] + 0.5).log(), value)

    mode = find_mode(asked_of(function, 1.0, 1.0, -3.0, 2.0))
    assert mode.converged.tolist() == [True, False, True, True]
    assert mode.objective.isfinite().tolist() == [True, False, True, True]
    assert mode.effects[:, 0].tolist()[::3] == pytest.approx([0.8, 1.6])
    assert mode.effects[1].tolist() == [0.0]
    assert -0.5 < float(mode.effects[2]) < 0.0


def test_the_higher_of_two_hills() -> None:
    """A broad hump on the way down leads to a worse explanation than a narrow one beyond."""

    def function(effects: Tensor, number: Tensor) -> Tensor:
        place = effects[:, 0]
        broad, narrow = -((place + 1.0) ** 2) / 0.5, -((place - 1.5) ** 2) / 0.1
        return 6.0 * broad.exp() + 10.0 * narrow.exp()

    one = find_mode(asked_of(function, 10.0))
    several = find_mode(asked_of(function, 10.0), starts=16)
    assert float(one.effects) == pytest.approx(-1.0, abs=0.1)
    assert float(several.effects) == pytest.approx(1.5, abs=0.1)
    assert float(several.objective) < float(one.objective) - 50.0


def test_without_data_the_prior_stands() -> None:
    asked = evidence_of(run001(), batch_of([(0.0, 1.0)]), observed_of([]))
    mode = find_mode(asked)
    around = laplace(asked, mode)
    assert mode.effects.tolist() == [[0.0, 0.0, 0.0]]
    assert torch.allclose(around.covariance[0], asked.covariance)
    assert float(around.log_determinant) == pytest.approx(0.0, abs=1e-12)


def test_a_saddle_is_left_and_a_plain_is_reported() -> None:
    """At 0 the objective of a square falls both ways; a start there would be taken for the end."""
    asked = asked_of(lambda effects, _: (effects[:, 0] + 1e-3) ** 2, 4.0)
    mode = find_mode(asked)
    assert abs(float(mode.effects)) == pytest.approx((4.0 - 0.125 / 2) ** 0.5, abs=0.05)
    assert bool(laplace(asked, mode).sound.all())
    question = whitened(asked)
    saddle = replace(mode, hessian=question.hessian(torch.zeros(1, 1, dtype=F64)))
    assert not bool(laplace(asked, saddle).sound.any())


def test_what_is_known_of_the_posterior_shortens_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = run001_patients(20)
    plain = find_mode(asked)
    known = laplace(asked, plain).covariance
    known[3] = torch.nan
    known[4] = -known[4]
    rows: list[int] = []
    usual = whitening.Whitened.with_gradient

    def counted(
        question: whitening.Whitened, points: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        rows.append(len(points))
        return usual(question, points)

    monkeypatch.setattr(whitening.Whitened, "with_gradient", counted)
    again = find_mode(asked, begin=plain.effects + 0.05)
    unaided = sum(rows)
    rows.clear()
    aided = find_mode(asked, begin=plain.effects + 0.05, covariance=known)
    assert sum(rows) < 0.8 * unaided
    for found in (again, aided):
        assert bool(found.converged.all())
        assert torch.allclose(found.effects, plain.effects, atol=1e-6)
