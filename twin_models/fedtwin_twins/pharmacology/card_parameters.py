"""A patient's own parameters from a card: covariates, relations, random effects, occasions."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from fedtwin_twins.pharmacology.card import ModelCard
from fedtwin_twins.pharmacology.card_parts import DerivedCard, ParameterCard, RelationCard
from fedtwin_twins.pharmacology.derived import DERIVED
from fedtwin_twins.pharmacology.equations import (
    HOURS_SINCE_FIRST_DOSE,
    RELATIONS,
    approach_hours,
)
from fedtwin_twins.twin.batch import Batch, Traits
from fedtwin_twins.twin.covariates import with_breaks
from fedtwin_twins.twin.plausible import molar_mass_of
from fedtwin_twins.twin.quantities import Quantity
from fedtwin_twins.twin.refusals import Problem, Refusal

_ROUNDING_H = 1e-9


@dataclass(frozen=True, kw_only=True, slots=True)
class Effects:
    """Which column of the effects' row moves which parameter.

    Attributes:
        between: parameters in the order of the columns.
        occasion: parameters in the order of each occasion's columns, which follow.
    """

    between: tuple[str, ...]
    occasion: tuple[str, ...]

    def of(self, name: str, effects: Tensor, occasions: Tensor) -> Tensor | None:
        """A parameter's eta + kappa, (patients, spans) or (patients, 1).

        Args:
            name: of the parameter.
            effects: (patients, effects).
            occasions: places, (patients, spans).

        Returns:
            None if nothing moves it.
        """
        found = None
        if name in self.between:
            place = self.between.index(name)
            found = effects[:, place : place + 1]
        if name not in self.occasion:
            return found
        first, width = len(self.between), len(self.occasion)
        known = (effects.shape[1] - first) // width
        if known == 0:
            return found
        columns = effects[:, first + self.occasion.index(name) :: width][:, :known]
        inside = occasions < known
        own = columns.gather(1, occasions.clamp(max=known - 1))
        moved = torch.where(inside, own, torch.zeros_like(own))
        return moved if found is None else found + moved


def effects_of(card: ModelCard) -> Effects:
    """The order of a card's random effects."""
    between, occasion = (
        tuple(name for block in one.blocks for name in block.parameters) if one else ()
        for one in (card.between_patients, card.between_occasions)
    )
    return Effects(between=between, occasion=occasion)


def break_hours(card: ModelCard) -> list[float]:
    """Hours after the first dose at which some parameter changes by itself."""
    return sorted(
        {
            hour
            for parameter in card.parameters
            for relation in parameter.relations
            for hour in _break_hours(relation)
        }
    )


def _break_hours(relation: RelationCard) -> list[float]:
    if relation.equation == "approach":
        return approach_hours(relation.coefficients)
    return (
        [float(hour) for hour in relation.coefficients] if relation.equation == "from_hour" else []
    )


def first_dose(batch: Batch) -> Tensor:
    """h, (patients, 1): -infinity if it is one of a steady state, infinity if there is none."""
    given = batch.doses.amount > 0
    start = torch.where(batch.doses.interval > 0, -torch.inf, batch.doses.time)
    empty = torch.full_like(batch.traits.starts[:, :1], torch.inf)
    times = torch.where(given, start, torch.inf)
    return torch.cat([times, empty], dim=1).amin(dim=1, keepdim=True)


def spread(batch: Batch, hours: Sequence[float]) -> Traits:
    """The batch's traits, with a span that begins at each of these hours after the first dose."""
    if not hours:
        return batch.traits
    first = first_dose(batch)
    wanted = first + torch.tensor(hours, dtype=first.dtype, device=first.device)
    # Long after a first dose that is no more known, nothing changes: the new spans are empty.
    return with_breaks(batch.traits, torch.where(first == -torch.inf, torch.inf, wanted))


def individual(
    card: ModelCard, effects: Effects, traits: Traits, first: Tensor, row: Tensor
) -> dict[str, Tensor]:
    """Every parameter in the card's unit, each (patients, spans).

    Args:
        card: the model.
        effects: order of the row.
        traits: of the patients.
        first: `first_dose`.
        row: random effects, (patients, effects).

    Raises:
        Refusal: a covariate without a default is not there.
    """
    values = known_covariates(card, traits, first)
    shape = traits.starts
    found: dict[str, Tensor] = {}
    for one in card.parameters:
        if one.sum_of:
            value = torch.stack([found[name] for name in one.sum_of]).sum(dim=0)
        elif one.complement_of is not None:
            value = 1.0 - found[one.complement_of]
        else:
            value = torch.full_like(shape, one.typical if one.typical is not None else torch.nan)
        for relation in one.relations:
            value = value * factor(relation, values)
        moved = effects.of(one.name, row, traits.occasions)
        found[one.name] = value if moved is None else varied(one, value, moved)
    return found


def varied(one: ParameterCard, value: Tensor, moved: Tensor) -> Tensor:
    """A parameter whose effects (eta + kappa) have moved it, by its distribution."""
    if one.distribution == "normal":
        return value + moved
    if one.distribution == "logit_normal":
        return torch.sigmoid(torch.logit(value) + moved)
    return value * moved.exp()


def factor(relation: RelationCard, values: Mapping[str, Tensor]) -> Tensor:
    """What a relation multiplies its parameter by."""
    known = RELATIONS[relation.equation]
    return known.factor(relation.covariate or "", values, relation.coefficients)


def factors(card: ModelCard, traits: Traits, first: Tensor) -> dict[str, dict[str, Tensor]]:
    """By parameter and covariate, what the typical value is multiplied by, (patients, spans).

    A relation that reads several covariates stands under the names of all of them.

    Raises:
        Refusal: as `individual`.
    """
    values = known_covariates(card, traits, first)
    found: dict[str, dict[str, Tensor]] = {}
    for one in card.parameters:
        for relation in one.relations:
            name = relation.covariate or " + ".join(
                sorted(set(relation.coefficients) - {"reference"})
            )
            by_covariate = found.setdefault(one.name, {})
            before = by_covariate.get(name, torch.ones_like(traits.starts))
            by_covariate[name] = before * factor(relation, values)
    return found


def known_covariates(card: ModelCard, traits: Traits, first: Tensor) -> dict[str, Tensor]:
    """Recorded covariates, defaults and derived ones, each (patients, spans).

    Raises:
        Refusal: one that some parameter needs is not there and has no default.
    """
    values = dict(traits.values)
    for one in card.covariates:
        if one.name not in values and one.default is not None:
            values[one.name] = torch.full_like(traits.starts, one.default)
    wanted = _wanted(card, values)
    for derived in card.derived:
        inputs = derived.inputs.values()
        if derived.name in wanted and all(name in values for name in inputs):
            values[derived.name] = compute_derived(card, derived)(values)
    since = torch.where(first == -torch.inf, torch.inf, traits.starts - first + _ROUNDING_H)
    values[HOURS_SINCE_FIRST_DOSE] = since
    missing = sorted(read_by_parameters(card) - set(values))
    if missing:
        raise Refusal(
            *(
                Problem(field=name, remedy=f"{card.id} needs it, or what it follows from")
                for name in missing
            )
        )
    return values


def _wanted(card: ModelCard, known: Mapping[str, Tensor]) -> set[str]:
    """What must be computed: derived covariates that are read and were not given."""
    wanted = read_by_parameters(card)
    for derived in reversed(card.derived):
        if derived.name in wanted and derived.name not in known:
            wanted.update(derived.inputs.values())
    return wanted - set(known)


def compute_derived(
    card: ModelCard, derived: DerivedCard
) -> Callable[[Mapping[str, Tensor]], Tensor]:
    """A derived covariate from others by name, in the card's units."""
    equation = DERIVED[derived.equation]
    units = {one.name: one.unit for one in card.covariates}
    units.update({one.name: one.unit for one in card.derived})
    scales = {
        role: _scale(units[name], equation.inputs[role], name)
        for role, name in derived.inputs.items()
    }
    out = _scale(equation.unit, derived.unit, derived.name)
    return partial(_derived_value, derived, scales, out)


def _derived_value(
    derived: DerivedCard, scales: Mapping[str, float], out: float, values: Mapping[str, Tensor]
) -> Tensor:
    inputs = {role: values[name] * scales[role] for role, name in derived.inputs.items()}
    return DERIVED[derived.equation].result(inputs, derived.coefficients) * out


def _scale(unit: str, wanted: str, name: str) -> float:
    return Quantity(1.0, unit).to(wanted, molar_mass=molar_mass_of(name), field=name)


def read_by_parameters(card: ModelCard) -> set[str]:
    """Covariates, recorded or derived, that some parameter reads."""
    return {name for one in card.parameters for name in _read_by(one)}


def _read_by(one: ParameterCard) -> set[str]:
    names: set[str] = set()
    for relation in one.relations:
        if relation.covariate is not None:
            names.add(relation.covariate)
        if RELATIONS[relation.equation].listed == "covariates":
            names.update(set(relation.coefficients) - {"reference"})
    return names
