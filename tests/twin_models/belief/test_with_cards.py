"""Beliefs about the published models that are shipped: occasions, many effects, real doses."""

import pytest
import torch

from fedtwin_twins.belief.forecast import Asked, forecast
from fedtwin_twins.belief.posterior import infer
from fedtwin_twins.pharmacology.card_model import CardModel
from fedtwin_twins.pharmacology.library import load_card
from fedtwin_twins.twin.batch import Batch, Doses, constant_traits

from .models import F64, observed_of, with_occasions

HOURS = [2.0, 5.0, 11.9, 26.0, 35.0, 47.0]


def patient_of(model: CardModel, doses: int) -> Batch:
    """A patient in the middle of every covariate's usual range, dosed twice a day."""
    middle = {
        # Of what is no measurement, neither is in the middle: the first.
        one.name: torch.tensor([0.0 if one.hard == (0.0, 1.0) else sum(one.soft) / 2.0], dtype=F64)
        for one in model.covariates
    }
    time = 12.0 * torch.arange(doses, dtype=F64)[None]
    return Batch(
        doses=Doses(
            time=time,
            amount=torch.full_like(time, 10.0),
            duration=torch.full_like(time, 2.0 if "intravenous" in model.routes else 0.0),
            route=torch.zeros(time.shape, dtype=torch.int64),
            interval=torch.zeros_like(time),
        ),
        traits=constant_traits(middle),
    )


@pytest.mark.parametrize(
    "name", ["busulfan_mccune_2014", "tacrolimus_woillard_2011", "vancomycin_carreno_2017"]
)
def test_a_patient_like_the_typical_one(name: str) -> None:
    """Levels as the population has them leave the effects near 0, with less doubt than before."""
    model = CardModel(load_card(name))
    batch = patient_of(model, doses=4)
    occasions = 2 if model.occasion_effects else 0
    if occasions:
        values = {key: value.repeat(1, 2) for key, value in batch.traits.values.items()}
        split = with_occasions(batch, [24.0]).traits
        batch = Batch(
            doses=batch.doses,
            traits=type(split)(values=values, starts=split.starts, occasions=split.occasions),
        )
    prior = model.prior(occasions)
    typical = torch.zeros(1, len(prior), dtype=F64)
    times = torch.tensor([HOURS], dtype=F64)
    levels = model.predict(batch, typical, times)[0].tolist()
    posterior = infer(
        model,
        batch,
        observed_of(list(zip(HOURS, levels, strict=True))),
        torch.Generator().manual_seed(1),
    )
    assert posterior.occasions == occasions
    assert len(posterior.effects) == len(prior)
    assert float((posterior.mode[0] / prior.diagonal().sqrt()).abs().max()) < 0.3
    assert float(posterior.shrinkage.max()) < 1.05
    assert float(posterior.shrinkage.min()) < 0.5
    assert float(posterior.effective_sample_size) > 100
    asked = Asked(times=torch.tensor([[30.0, 47.0]], dtype=F64))
    bands = forecast(model, posterior, batch, asked, torch.Generator().manual_seed(1))
    truth = model.predict(batch, typical, asked.times)
    assert bool((bands.quantiles[:, :, 0] < truth).all())
    assert bool((bands.quantiles[:, :, 4] > truth).all())
