"""Several published models of one drug: how much each explains of a patient, and all together.

Weights of model m, from its objective O at the mode (`likelihood`):

- `likelihood`: exp(-O / 2) over the sum of all models' (Uster et al., Clin Pharmacol Ther
  2021;109:175; mapbayr's LL)
- `information_criterion`: exp(-(O + 2 k) / 2), with k the number of effects (AIC)
- `marginal`: exp(-M / 2), with M the objective of the data alone, the effects integrated out: a
  model with many effects is not paid for them twice
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, get_args

import torch
from torch import Tensor

from fedtwin_twins.belief.forecast import Asked, Forecast, predicted_draws, weighted_quantiles
from fedtwin_twins.belief.posterior import Posterior
from fedtwin_twins.twin.batch import Batch
from fedtwin_twins.twin.model import TwinModel
from fedtwin_twins.twin.refusals import Problem, Refusal

Scheme = Literal["likelihood", "information_criterion", "marginal"]
SCHEMES: Final = get_args(Scheme)


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """One model's view of the same patients.

    Attributes:
        model: with its prior.
        posterior: of these patients, from the same measurements as every other candidate's.
        batch: doses and the traits that this model needs.
        kind: the place of the observable that is compared.
    """

    model: TwinModel
    posterior: Posterior
    batch: Batch
    kind: int = 0


def model_weights(posteriors: Sequence[Posterior], scheme: Scheme = "marginal") -> Tensor:
    """The weight of each model for each patient, (patients, models), each row's sum 1.

    A model whose objective is not finite has weight 0. The number of effects counts those of
    occasions, too.

    Raises:
        Refusal: no model, different numbers of patients, an unknown scheme, or a patient whom no
            model can explain.
    """
    if not posteriors or len({one.patients for one in posteriors}) != 1:
        raise Refusal(
            Problem(
                field="models",
                value=", ".join(f"{one.patients} patients" for one in posteriors),
                allowed="at least one, all of them of the same patients",
            )
        )
    if scheme not in SCHEMES:
        raise Refusal(Problem(field="scheme", value=repr(scheme), allowed=" or ".join(SCHEMES)))
    scores = torch.stack([_score(one, scheme) for one in posteriors], dim=1)
    scores = torch.where(scores.isfinite(), scores, torch.inf)
    lost = scores.isinf().all(dim=1)
    if bool(lost.any()):
        raise Refusal(
            *(
                Problem(
                    field=f"patient {patient}",
                    value="no finite objective",
                    allowed="one model at least that gives a finite prediction",
                )
                for patient in lost.nonzero()[:, 0].tolist()
            )
        )
    return (-scores / 2.0).softmax(dim=1)


def average_forecast(
    candidates: Sequence[Candidate], weights: Tensor, asked: Asked, generator: torch.Generator
) -> Forecast:
    """Quantiles of the mixture of all models' draws, and the weighted mean of their points.

    Args:
        candidates: the models.
        weights: from `model_weights`, (patients, models).
        asked: what is to be foretold; the kind is each candidate's own.
        generator: the only source of chance.
    """
    values, shares = [], []
    point = torch.zeros_like(asked.times)
    for place, one in enumerate(candidates):
        mine = replace(asked, kind=one.kind)
        values.append(predicted_draws(one.model, one.posterior, one.batch, mine, generator))
        shares.append(weights[:, place, None] * one.posterior.weights)
        with torch.no_grad():
            said = one.model.predict(one.batch, one.posterior.mode, asked.times, one.kind)
        point = point + weights[:, place, None] * said
    together = torch.cat(values, dim=1), torch.cat(shares, dim=1)
    return Forecast(
        times=asked.times,
        levels=tuple(asked.levels),
        quantiles=weighted_quantiles(*together, asked.levels),
        point=point,
    )


def _score(posterior: Posterior, scheme: Scheme) -> Tensor:
    if scheme == "marginal":
        return posterior.marginal
    effects = posterior.mode.shape[1] if scheme == "information_criterion" else 0
    return posterior.objective + 2.0 * effects
