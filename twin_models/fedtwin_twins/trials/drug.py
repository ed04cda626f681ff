"""Virtual patients as a twin model sees them, and what really goes on in each of them.

The model that plays the truth gets random effects from its own prior, drawn for each patient. A
factor on one of its parameters (a condition, a what-if) acts through that parameter's random
effect, which is checked to multiply.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from fedtwin_twins.trials.population import VirtualPatients
from fedtwin_twins.trials.streams import Floats, Streams
from fedtwin_twins.twin.batch import Batch, Doses, Traits
from fedtwin_twins.twin.model import CovariateRange, TwinModel
from fedtwin_twins.twin.refusals import Problem, refuse_if_any

_CLOSE: Final = 1e-9


def as_tensor(values: Floats) -> Tensor:
    """The same numbers for the equations."""
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float64))


def traits_of(
    model: TwinModel, patients: VirtualPatients, occasion_starts_h: Sequence[float] = ()
) -> Traits:
    """The covariates that a model asks for; the same for as long as the trial lasts.

    Args:
        model: that asks.
        patients: that have them.
        occasion_starts_h: hours at which the second and later dosing occasions begin.

    Raises:
        Refusal: a covariate is missing, in another unit, or beyond where the model may be used.
    """
    spans = 1 + len(occasion_starts_h)
    refuse_if_any(
        problem for one in model.covariates for problem in _problems(model.name, one, patients)
    )
    starts = torch.tensor([-torch.inf, *occasion_starts_h], dtype=torch.float64)
    values = {}
    for one in model.covariates:
        given = patients.covariates.get(one.name)
        column = np.full(len(patients), one.default) if given is None else given
        values[one.name] = as_tensor(column)[:, None].repeat(1, spans)
    return Traits(
        values=values,
        starts=starts.repeat(len(patients), 1),
        occasions=torch.arange(spans).repeat(len(patients), 1),
    )


def _problems(name: str, asked: CovariateRange, patients: VirtualPatients) -> list[Problem]:
    where = f"{name}: covariate {asked.name}"
    given = patients.covariates.get(asked.name)
    if given is None:
        if asked.default is not None:
            return []
        remedy = f"add it to the plan's population, in {asked.unit}"
        return [Problem(field=where, remedy=remedy)]
    if patients.units[asked.name] != asked.unit:
        unit = patients.units[asked.name]
        return [Problem(field=where, value=f"in {unit}", allowed=f"{asked.unit} as its unit")]
    low, high = asked.hard
    outside = int(((given < low) | (given > high)).sum())
    if not outside:
        return []
    return [
        Problem(
            field=where,
            value=f"outside of the model's range in {outside} of {len(patients)} virtual patients",
            allowed=f"{low:g} to {high:g} {asked.unit}",
            remedy="narrow lowest and highest in the plan",
        )
    ]


def cautions_of(model: TwinModel, patients: VirtualPatients) -> list[str]:
    """How many patients lie where the model warns, and what is taken by default; sentences."""
    found = []
    for one in model.covariates:
        given = patients.covariates.get(one.name)
        if given is None and one.default is None:
            continue  # what follows from it is in the plan, or the model refuses
        if given is None:
            found.append(f"{model.name}: {one.name} is not in the plan; {one.default:g} was taken")
            continue
        low, high = one.soft
        outside = int(((given < low) | (given > high)).sum())
        if outside:
            found.append(
                f"{model.name}: {one.name} lies outside {low:g} to {high:g} {one.unit}, where the "
                f"model was made, in {outside} of {len(patients)} virtual patients"
            )
    return found


def doses_of(
    model: TwinModel, times_h: Floats, amounts: Floats, duration_h: float, route: str
) -> Doses:
    """Doses as the model reads them.

    Args:
        model: whose routes are meant.
        times_h: of the doses, (doses,), the same for everybody.
        amounts: in the model's unit, (patients, doses); 0 is no dose.
        duration_h: of an infusion; 0: all at once.
        route: one of the model's.

    Raises:
        Refusal: the model has no such route.
    """
    if route not in model.routes:
        refuse_if_any(
            [Problem(field=f"{model.name}: route", value=route, allowed=" or ".join(model.routes))]
        )
    amount = as_tensor(amounts)
    return Doses(
        time=as_tensor(times_h).repeat(amounts.shape[0], 1),
        amount=amount,
        duration=torch.full_like(amount, duration_h),
        route=torch.full(amount.shape, list(model.routes).index(route), dtype=torch.int64),
        interval=torch.zeros_like(amount),
    )


def draw_effects(model: TwinModel, streams: Streams, occasions: int) -> Floats:
    """Random effects from the model's prior, (patients, effects)."""
    prior = model.prior(occasions).detach().numpy()
    values, vectors = np.linalg.eigh(prior)
    root = vectors * np.sqrt(np.maximum(values, 0.0)) @ vectors.T
    found = np.zeros((streams.patients, prior.shape[0]))
    for effect in range(prior.shape[0]):
        drawn = streams.normals(f"effects of {model.name}", effect)
        # Added one by one: a matrix product may round by the number of patients.
        found += drawn[:, None] * root[effect]
    return found


def scale_parameters(
    model: TwinModel, batch: Batch, effects: Floats, factors: Mapping[str, Floats]
) -> Floats:
    """Random effects under which parameters are so many times what they were.

    Args:
        model: the truth.
        batch: the patients.
        effects: before, (patients, effects).
        factors: by parameter, (patients,), above 0.

    Raises:
        Refusal: a parameter has no random effect, or one that does not multiply.
    """
    changed = effects.copy()
    names = list(model.effects)
    for name, factor in factors.items():
        if name not in names:
            allowed = " or ".join(names)
            refuse_if_any([Problem(field=f"{model.name}: factor on", value=name, allowed=allowed)])
        changed[:, names.index(name)] += np.log(factor)
    before = model.individual(batch, as_tensor(effects))
    after = model.individual(batch, as_tensor(changed))
    for name, factor in factors.items():
        wanted = before[name] * as_tensor(factor)[:, None]
        if not torch.allclose(after[name], wanted, rtol=_CLOSE, atol=0.0):
            remedy = "its random effect does not multiply it: choose another parameter"
            refuse_if_any([Problem(field=f"{model.name}: factor on {name}", remedy=remedy)])
    return changed


@dataclass(frozen=True, kw_only=True, slots=True)
class Truth:
    """What really goes on in some patients.

    Attributes:
        model: that plays the truth.
        traits: of the patients.
        effects: of the patients, (patients, effects).
    """

    model: TwinModel
    traits: Traits
    effects: Tensor

    def batch(self, doses: Doses) -> Batch:
        """The patients under a schedule."""
        return Batch(doses=doses, traits=self.traits)
