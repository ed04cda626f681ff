"""Bands over time: coverage, new occasions, errors of measurement, flat memory, quantiles."""

from dataclasses import replace

import pytest
import torch

from fedtwin_twins.belief import forecast as forecasts
from fedtwin_twins.belief.forecast import Asked, forecast, predicted_draws, weighted_quantiles
from fedtwin_twins.belief.posterior import infer
from fedtwin_twins.twin.residuals import ResidualError

from .models import F64, batch_of, observed_of, run001, simulated, varying, with_occasions

DOSE = [(0.0, 10000.0)]


def seeded(seed: int = 5) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def asked_at(*times: float, patients: int = 1) -> Asked:
    return Asked(times=torch.tensor(times, dtype=F64).repeat(patients, 1))


@pytest.mark.parametrize("with_error", [False, True])
def test_bands_hold_what_they_promise(with_error: bool) -> None:
    """Nine in ten truths, or measurements, of 400 patients lie in the 90 % band."""
    model, patients = run001(), 400
    batch = batch_of(*[[*DOSE, (24.0, 10000.0)]] * patients)
    observed, effects = simulated(model, batch, [2.0, 8.0, 20.0], seed=3)
    posterior = infer(model, batch, observed, seeded())
    asked = replace(asked_at(30.0, 40.0, 60.0, patients=patients), with_error=with_error)
    found = forecast(model, posterior, batch, asked, seeded())
    truth = model.predict(batch, effects, asked.times)
    if with_error:
        noise = torch.randn(truth.shape, dtype=F64, generator=seeded(9))
        truth = truth + model.error.deviation(truth) * noise
    inside = (truth > found.quantiles[:, :, 0]) & (truth < found.quantiles[:, :, 4])
    for share in inside.double().mean(dim=0).tolist():
        assert 0.85 < share < 0.95  # 3 sd of 400 patients on either side
    ordered = found.quantiles.diff(dim=2)
    assert (ordered >= 0.0).all()


def test_new_occasions_vary_though_the_point_does_not() -> None:
    model = varying(spread=0.5)
    past = with_occasions(batch_of([(0.0, 10000.0)]), [])
    observed, _ = simulated(model, past, [0.5, 1.0, 2.0, 4.0, 8.0, 16.0], seed=2)
    posterior = infer(model, past, observed, seeded())
    doses = batch_of([(0.0, 10000.0), (500.0, 10000.0)])
    asked = asked_at(505.0)
    same = forecast(model, posterior, with_occasions(doses, []), asked, seeded())
    new = forecast(model, posterior, with_occasions(doses, [500.0]), asked, seeded())
    wide, narrow = (one.quantiles[0, 0, 4] / one.quantiles[0, 0, 0] for one in (new, same))
    assert float(wide) > 1.5 * float(narrow)
    kappa = float(posterior.mode[0, 3].exp())
    assert float(new.point * kappa) == pytest.approx(float(same.point), rel=1e-9)


def test_parts_are_as_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    model = run001()
    batch = batch_of(DOSE, DOSE, DOSE)
    observed = observed_of([(5.0, 90.0)], [(5.0, 70.0)], [(5.0, 50.0)])
    posterior = infer(model, batch, observed, seeded())
    asked = replace(asked_at(1.0, 2.0, 5.0, 9.0, 24.0, patients=3), with_error=True)
    whole = forecast(model, posterior, batch, asked, seeded())
    draws = predicted_draws(model, posterior, batch, asked, seeded())
    monkeypatch.setattr(forecasts, "NUMBERS", 2048)
    parts = forecast(model, posterior, batch, asked, seeded())
    assert torch.equal(whole.quantiles, parts.quantiles)
    assert torch.equal(draws, predicted_draws(model, posterior, batch, asked, seeded()))
    assert draws.shape == (3, 1024, 5)


def test_an_error_on_the_logarithm_keeps_measurements_above_0() -> None:
    model = replace(run001(), error=ResidualError(convention="on_logarithm", additive=1.0))
    posterior = infer(model, batch_of(DOSE), observed_of([(5.0, 90.0)]), seeded())
    asked = replace(asked_at(24.0), with_error=True)
    found = forecast(model, posterior, batch_of(DOSE), asked, seeded())
    assert float(found.quantiles.min()) > 0.0
    truth = forecast(model, posterior, batch_of(DOSE), asked_at(24.0), seeded())
    assert float(found.quantiles[0, 0, 4]) > 1.5 * float(truth.quantiles[0, 0, 4])


def test_quantiles_of_weighted_draws() -> None:
    values = torch.tensor([[[3.0], [1.0], [2.0], [9.0]]], dtype=F64)
    even = torch.full((1, 4), 0.25, dtype=F64)
    assert float(weighted_quantiles(values, even, [0.5])) == pytest.approx(2.5)
    heavy = torch.tensor([[0.0, 0.0, 1.0, 0.0]], dtype=F64)
    assert weighted_quantiles(values, heavy, [0.05, 0.5, 0.95])[0, 0].tolist() == pytest.approx(
        [1.1, 2.0, 2.9], abs=0.9
    )
