"""Weights of several models beside mapbayr's, and what a mixture of forecasts is."""

import json
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from fedtwin_twins.belief.averaging import Candidate, average_forecast, model_weights
from fedtwin_twins.belief.forecast import Asked, forecast
from fedtwin_twins.belief.posterior import Posterior, infer
from fedtwin_twins.twin.batch import Batch
from fedtwin_twins.twin.refusals import Refusal

from .models import CASES, F64, SmallModel, batch_of, observed_of, run001

DAYS = (0.0, 24.0, 48.0, 72.0)


class TwoWaysIn(SmallModel):
    """mapbayr's example 6: a fifth is absorbed by first order, the rest over some hours."""

    def predict(
        self, batch: Batch, effects: Tensor, times: Tensor, kinds: Tensor | int = 0
    ) -> Tensor:
        oral = run001()
        clearance = effects[:, :1] + torch.log(torch.tensor(0.25, dtype=F64))
        first = oral.predict(batch, torch.cat([clearance, effects[:, 1:3]], dim=1), times)
        rate = (effects[:, 0] - effects[:, 1]).exp() / 70.0
        volume = 70.0 * effects[:, 1].exp()
        hours = 4.0 * effects[:, 3].exp()
        elapsed = (times[:, :, None] - batch.doses.time[:, None, :]).clamp(min=0.0)
        after = (elapsed - hours[:, None, None]).clamp(min=0.0)
        k = rate[:, None, None]
        flow = ((-k * after).exp() - (-k * elapsed).exp()) / k / hours[:, None, None]
        second = (flow * batch.doses.amount[:, None, :]).sum(dim=2) / volume[:, None]
        return 0.2 * first + 0.8 * second


def two_ways_in() -> SmallModel:
    one = run001()
    return TwoWaysIn(
        terms=one.terms,
        omega=0.2 * torch.eye(4, dtype=F64),
        error=one.error,
        effects=("clearance", "volume", "absorption", "duration"),
    )


def believed(model: SmallModel) -> Posterior:
    """The two patients of the published case."""
    batch = batch_of([(t, 100.0) for t in DAYS], [(t, 200.0) for t in DAYS])
    observed = observed_of([(96.0, 1.0)], [(96.0, 1.0)])
    return infer(model, batch, observed, torch.Generator().manual_seed(1))


@pytest.mark.case("M13")
def test_a_likelihood_as_mapbayr_prints_it() -> None:
    """Case M13."""
    if not CASES.is_dir():
        pytest.skip("the shared cases are not here")
    wanted = json.loads((CASES / "M13_likelihood_weights.json").read_text())["expected"]
    found = believed(run001()).objective
    assert found.tolist() == pytest.approx(list(wanted["logLL"].values()), abs=1e-3)
    assert (-found / 2.0).exp().tolist() == pytest.approx(list(wanted["LL"].values()), abs=2e-3)


@pytest.mark.case("M13")
def test_weights_as_mapbayr_finds_them() -> None:
    """Case M13; AIC's from the same source, tests/testthat/test-modelaveraging.R @080fb292."""
    both = [believed(run001()), believed(two_ways_in())]
    likely = model_weights(both, "likelihood")
    assert likely[0].tolist() == pytest.approx([0.8564, 0.1436], abs=1e-3)
    assert likely[1].tolist() == pytest.approx([0.9833, 0.0167], abs=1e-3)
    penalised = model_weights(both, "information_criterion")
    assert penalised[0].tolist() == pytest.approx([0.9419, 0.0581], abs=1e-3)
    assert penalised[1].tolist() == pytest.approx([0.9938, 0.00619], abs=1e-3)


def test_a_model_beside_itself_changes_nothing() -> None:
    posterior, model = believed(run001()), run001()
    batch = batch_of([(t, 100.0) for t in DAYS], [(t, 200.0) for t in DAYS])
    asked = Asked(times=torch.tensor([[100.0, 120.0]] * 2, dtype=F64))
    weights = model_weights([posterior, posterior])
    assert weights.tolist() == [[0.5, 0.5]] * 2
    one = Candidate(model=model, posterior=posterior, batch=batch)
    mixed = average_forecast([one, one], weights, asked, torch.Generator().manual_seed(0))
    alone = forecast(model, posterior, batch, asked, torch.Generator().manual_seed(0))
    assert torch.allclose(mixed.point, alone.point)
    assert torch.allclose(mixed.quantiles, alone.quantiles, rtol=5e-3)


def test_who_explains_nobody_has_no_weight() -> None:
    posterior = believed(run001())
    lost = replace(posterior, marginal=posterior.marginal * torch.nan)
    assert model_weights([posterior, lost]).tolist() == [[1.0, 0.0]] * 2
    with pytest.raises(Refusal, match="patient 0 is no finite objective"):
        model_weights([lost, lost])
    with pytest.raises(Refusal, match="expected likelihood or"):
        model_weights([posterior], "best")  # type: ignore[arg-type]
    with pytest.raises(Refusal, match="same patients"):
        model_weights([posterior, posterior.where(torch.tensor([0]))])
