"""The closed forms of a card's disposition and routes, from a patient's own parameters."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import torch
from torch import Tensor

from fedtwin_twins.kinetics.disposition import Disposition
from fedtwin_twins.kinetics.events import Order, Route
from fedtwin_twins.kinetics.linear import LinearKinetics
from fedtwin_twins.pharmacology.card import ModelCard
from fedtwin_twins.pharmacology.card_parts import RouteCard
from fedtwin_twins.pharmacology.structures import DISPOSITIONS, EFFECTS
from fedtwin_twins.twin.batch import Doses
from fedtwin_twins.twin.quantities import Quantity

_ROLES: Final = {
    "rate": "/h",
    "duration": "h",
    "lag": "h",
    "bioavailability": "1",
    "first_pass": "1",
}


def divided(card: ModelCard, doses: Doses) -> Doses:
    """What of every dose can get in; one by a parallel route as one dose by each of its parts.

    Args:
        card: the model.
        doses: (patients, doses).

    Returns:
        (patients, doses x parts), ascending in time; the same doses if no route has parts, nor
        lets less of a larger dose in.
    """
    doses = _got_in(card, doses)
    names = [one.name for one in card.routes]
    most = max(len(one.parts) for one in card.routes)
    if most == 0:
        return doses
    # By route and copy: where the copy goes in, and how much of the dose it is.
    ways = torch.arange(len(names), device=doses.route.device)[:, None].repeat(1, most)
    scales = torch.zeros((len(names), most), dtype=doses.amount.dtype, device=doses.amount.device)
    scales[:, 0] = 1.0
    for place, one in enumerate(card.routes):
        for copy, part in enumerate(one.parts):
            ways[place, copy] = names.index(part)
            scales[place, copy] = one.dose_scale

    def copies(values: Tensor) -> Tensor:
        return values.repeat_interleave(most, dim=1)

    scale = scales[doses.route].flatten(1)
    return Doses(
        time=copies(doses.time),
        amount=copies(doses.amount) * scale,
        duration=copies(doses.duration),
        route=ways[doses.route].flatten(1),
        interval=torch.where(scale > 0, copies(doses.interval), 0.0),
    )


def _got_in(card: ModelCard, doses: Doses) -> Doses:
    """Less of a dose, the larger it is, where absorption saturates."""
    halves = [math.inf if one.half_dose is None else one.half_dose for one in card.routes]
    if all(math.isinf(one) for one in halves):
        return doses
    half = doses.amount.new_tensor(halves)[doses.route]
    return replace(doses, amount=doses.amount / (1.0 + doses.amount / half))


def engine_scales(card: ModelCard) -> dict[str, float]:
    """By parameter: what its value in the card's unit is multiplied by, for the engines."""
    units = {one.name: one.unit for one in card.parameters}
    needed = {**DISPOSITIONS[card.disposition], **EFFECTS[card.effect]}
    needed.update({name: unit for name, unit in card.optional.items() if name in units})
    wanted = {name: card.written(unit) for name, unit in needed.items()}
    for route in card.routes:
        for role, unit in _ROLES.items():
            name = getattr(route, role)
            if name is not None:
                wanted[name] = unit
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
    return LinearKinetics(
        disposition=_disposition(card.disposition, parameters),
        routes=tuple(route_of(one, parameters) for one in card.routes),
        starts=starts if changes else None,
        order=order_of(card),
    )


def first_pass_of(
    card: ModelCard, parameters: Mapping[str, Tensor], starts: Tensor
) -> LinearKinetics | None:
    """The engine of what gets in as the metabolite; none if nothing does.

    Args:
        card: the model, with the effect `metabolite`.
        parameters: see `kinetics_of`.
        starts: likewise.
    """
    if all(one.first_pass is None for one in card.routes):
        return None
    nothing = torch.zeros_like(parameters["metabolite_volume"])
    routes = tuple(
        replace(
            route_of(one, parameters),
            bioavailability=(
                nothing if one.first_pass is None else parameters[one.first_pass] * one.dose_scale
            ),
        )
        for one in card.routes
    )
    return LinearKinetics(
        disposition=Disposition(
            clearance=parameters["metabolite_clearance"], volume=parameters["metabolite_volume"]
        ),
        routes=routes,
        starts=starts if starts.shape[1] > 1 else None,
        order=order_of(card),
    )


def order_of(card: ModelCard) -> Order:
    """What counts at a time at which several things happen."""
    return Order(
        dose_first=card.record_order == "dose_before_observation",
        change_first=card.covariate_rule == "last_forward",
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


def stages_of(route: RouteCard) -> int:
    """Through how many compartments a dose passes before the central one."""
    return {"first_order": 1, "transit": route.compartments or 1}.get(route.input, 0)


def route_of(route: RouteCard, by: Mapping[str, Tensor]) -> Route:
    """A route with a patient's own parameters, in the engines' units."""
    fraction = None if route.bioavailability is None else by[route.bioavailability]
    if route.dose_scale != 1.0:
        ones = next(iter(by.values())).new_ones(()) if fraction is None else fraction
        fraction = (ones * route.dose_scale).expand_as(next(iter(by.values())))
    return Route(
        stages=stages_of(route),
        rate=None if route.rate is None else by[route.rate],
        bioavailability=fraction,
        lag=None if route.lag is None else by[route.lag],
        duration=None if route.duration is None else by[route.duration],
    )
