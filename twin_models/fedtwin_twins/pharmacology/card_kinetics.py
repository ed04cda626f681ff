"""The closed forms of a card's disposition and routes, from a patient's own parameters."""

from collections.abc import Mapping
from typing import Final

from torch import Tensor

from fedtwin_twins.kinetics.disposition import Disposition
from fedtwin_twins.kinetics.events import Order, Route
from fedtwin_twins.kinetics.linear import LinearKinetics
from fedtwin_twins.pharmacology.card import ModelCard
from fedtwin_twins.pharmacology.card_parts import RouteCard
from fedtwin_twins.pharmacology.structures import DISPOSITIONS, EFFECTS
from fedtwin_twins.twin.quantities import Quantity

_ROLES: Final = {"rate": "/h", "duration": "h", "lag": "h", "bioavailability": "1"}


def engine_scales(card: ModelCard) -> dict[str, float]:
    """By parameter: what its value in the card's unit is multiplied by, for the engines."""
    wanted = {
        name: unit.replace("{amount}", card.amount_unit)
        for name, unit in {**DISPOSITIONS[card.disposition], **EFFECTS[card.effect]}.items()
    }
    for route in card.routes:
        for role, unit in _ROLES.items():
            name = getattr(route, role)
            if name is not None:
                wanted[name] = unit
    units = {one.name: one.unit for one in card.parameters}
    return {name: Quantity(1.0, units[name]).to(unit, field=name) for name, unit in wanted.items()}


def kinetics_of(
    card: ModelCard, parameters: Mapping[str, Tensor], starts: Tensor
) -> LinearKinetics:
    """The engine of one batch.

    Args:
        card: the model.
        parameters: in the engines' units, each (patients, spans).
        starts: of the spans, h, (patients, spans).
    """
    changes = starts.shape[1] > 1
    order = Order(
        dose_first=card.record_order == "dose_before_observation",
        change_first=card.covariate_rule == "last_forward",
    )
    return LinearKinetics(
        disposition=_disposition(card.disposition, parameters),
        routes=tuple(_route(one, parameters) for one in card.routes),
        starts=starts if changes else None,
        order=order,
    )


def _disposition(name: str, by: Mapping[str, Tensor]) -> Disposition:
    volume = by["central_volume"]
    if name == "two_compartments_by_rates":
        rates = (by["rate_to_peripheral"], by["rate_from_peripheral"])
        return Disposition.of_rates(volume, by["elimination_rate"], (rates,))
    if name == "two_compartments_by_transfer_rates":
        rates = (by["rate_to_peripheral"], by["rate_from_peripheral"])
        return Disposition.of_rates(volume, by["clearance"] / volume, (rates,))
    exchanges = [("intercompartmental_clearance", "peripheral_volume")]
    if name == "one_compartment":
        exchanges = []
    if name == "three_compartments":
        exchanges.append(("second_intercompartmental_clearance", "second_peripheral_volume"))
    return Disposition(
        clearance=by["clearance"],
        volume=volume,
        exchanges=tuple((by[there], by[size]) for there, size in exchanges),
    )


def _route(route: RouteCard, by: Mapping[str, Tensor]) -> Route:
    stages = {"first_order": 1, "transit": route.compartments or 1}.get(route.input, 0)
    fraction = None if route.bioavailability is None else by[route.bioavailability]
    if route.dose_scale != 1.0:
        ones = next(iter(by.values())).new_ones(()) if fraction is None else fraction
        fraction = (ones * route.dose_scale).expand_as(next(iter(by.values())))
    return Route(
        stages=stages,
        rate=None if route.rate is None else by[route.rate],
        bioavailability=fraction,
        lag=None if route.lag is None else by[route.lag],
        duration=None if route.duration is None else by[route.duration],
    )
