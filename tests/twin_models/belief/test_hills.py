"""Posteriors of several hills: the best is found, all are drawn from, and the reader is told."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from fedtwin_twins.belief.likelihood import Evidence, evidence_of
from fedtwin_twins.belief.mode import find_mode
from fedtwin_twins.belief.posterior import Posterior, infer, infer_from
from fedtwin_twins.twin.batch import Batch
from fedtwin_twins.twin.residuals import ResidualError

from .models import F64, batch_of, observed_of, run001, simulated


def asked_of(function: Callable[[Tensor], Tensor], value: float, spread: float) -> Evidence:
    """One value of a function of one standard normal effect."""

    def predict(batch: Batch, effects: Tensor, times: Tensor, kinds: Tensor) -> Tensor:
        del batch, kinds
        return function(effects[:, :1]).expand_as(times)

    return Evidence(
        predict=predict,
        covariance=torch.eye(1, dtype=F64),
        errors=(ResidualError(convention="additive", additive=spread),),
        batch=batch_of([(0.0, 1.0)]),
        observed=observed_of([(0.0, value)]),
    )


def believed(evidence: Evidence) -> Posterior:
    return infer_from(evidence, ("effect",), 0, torch.Generator().manual_seed(1))


def on_a_grid(evidence: Evidence) -> tuple[Tensor, Tensor]:
    grid = torch.linspace(-6.0, 6.0, 6001, dtype=F64)
    with torch.no_grad():
        height = evidence.repeated(len(grid)).objective(grid[:, None])
    return grid, (-height / 2.0).softmax(dim=0)


def test_the_higher_of_two_hills_is_found_unasked() -> None:
    """A broad hump on the way down leads to a worse explanation than a narrow one beyond."""

    def function(place: Tensor) -> Tensor:
        broad, narrow = -((place + 1.0) ** 2) / 0.5, -((place - 1.5) ** 2) / 0.1
        return 6.0 * broad.exp() + 10.0 * narrow.exp()

    asked = asked_of(function, 10.0, 0.5)
    assert float(find_mode(asked).effects) == pytest.approx(-1.0, abs=0.1)
    posterior = believed(asked)
    assert float(posterior.mode) == pytest.approx(1.5, abs=0.1)
    assert posterior.cautions == ((),)


def test_two_hills_are_drawn_from_as_they_are_high() -> None:
    """A square of 4 is that of 2 and, a little less probable, of another number below 0."""
    asked = asked_of(lambda place: (place + 0.1) ** 2, 4.0, 0.5)
    posterior = believed(asked)
    grid, density = on_a_grid(asked)
    below = float(density[grid < 0.0].sum())
    assert 0.1 < below < 0.45
    drawn = posterior.draws[0, :, 0]
    assert float(posterior.weights[0][drawn < 0.0].sum()) == pytest.approx(below, abs=0.01)
    assert float(posterior.mean) == pytest.approx(float((grid * density).sum()), abs=0.02)
    assert float(posterior.effective_sample_size) > 400
    (caution,) = posterior.cautions[0]
    assert caution.field == "mode"
    assert f"{below:.0%}" in caution.value


def test_the_mass_of_all_hills_counts_where_models_are_compared() -> None:
    one = believed(asked_of(lambda place: 4.0 * place, 7.6, 0.5))
    two = believed(asked_of(lambda place: 4.0 * place.abs(), 7.6, 0.5))
    gained = float(one.marginal - two.marginal)
    assert gained == pytest.approx(2.0 * torch.tensor(2.0).log().item(), abs=1e-6)


def test_wide_patients_are_not_left_on_a_lower_hill() -> None:
    """Effects that vary twofold and more, and four levels: all end where the best of 64 does."""
    model = run001(omega=1.2)
    batch = batch_of(*[[(0.0, 10000.0), (24.0, 8000.0)]] * 150)
    observed, _ = simulated(model, batch, [1.5, 4.0, 12.0, 30.0], seed=3)
    asked = evidence_of(model, batch, observed)
    best = find_mode(asked, starts=64).objective
    assert int((find_mode(asked).objective > best + 1e-3).sum()) >= 2
    posterior = infer(model, batch, observed, torch.Generator().manual_seed(1))
    assert int((posterior.objective > best + 1e-3).sum()) == 0
    several = [any(one.field == "mode" for one in found) for found in posterior.cautions]
    assert 0 < sum(several) < 75
    place = torch.tensor([several.index(True)])
    alone = infer(
        model, batch.where(place), observed.where(place), torch.Generator().manual_seed(1)
    )
    assert torch.allclose(alone.draws[0], posterior.draws[place][0], atol=1e-6)
