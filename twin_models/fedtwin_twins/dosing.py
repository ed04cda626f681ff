"""From a model card to a search for a dose: the doses that exist, the hard limits, the targets."""

from collections.abc import Sequence
from typing import Final

from fedtwin_twins.advice.limits import Ceiling, Limits
from fedtwin_twins.advice.regimen import Regimen
from fedtwin_twins.advice.search import regimens_of
from fedtwin_twins.advice.targets import Target, TargetKind
from fedtwin_twins.pharmacology.card import ModelCard
from fedtwin_twins.pharmacology.card_parts import RouteCard
from fedtwin_twins.pharmacology.card_parts import Target as TargetCard
from fedtwin_twins.twin.quantities import Quantity
from fedtwin_twins.twin.refusals import Problem, Refusal

USUAL_INTERVALS_H: Final = (6.0, 8.0, 12.0, 24.0, 48.0)
"""At which doses are usually given."""
LARGEST_CHANGE: Final = 0.5
"""Of the daily amount in one step, unless said otherwise."""
_KINDS: Final[dict[str, TargetKind]] = {
    "trough": "trough",
    "peak": "peak",
    "area_24h": "area_24h",
    "area_course": "cumulative_area",
    "value": "trough",
    "time_in_range": "time_in_range",
}
"""A value is that of the observable when the next dose is due."""
_NOT_CHECKED: Final = {"memory": "; from memory, not checked", None: "; not said how far checked"}


def targets_of(card: ModelCard) -> list[Target]:
    """The therapeutic ranges that a card states, each with when it holds and its source."""
    return [
        Target(
            kind=_KINDS[one.metric],
            observable=one.observable,
            low=Quantity(one.low, one.unit),
            high=Quantity(one.high, one.unit),
            within=_within(card, one),
            source=f"{one.when}; {one.source}{_NOT_CHECKED.get(one.verified, '')}",
        )
        for one in card.targets
    ]


def _within(card: ModelCard, one: TargetCard) -> tuple[Quantity, Quantity] | None:
    """The two limits of the observable of a time in range."""
    if one.within is None:
        return None
    unit = next(each.unit for each in card.observables if each.name == one.observable)
    low, high = (Quantity(value, unit) for value in one.within)
    return low, high


def limits_of(
    card: ModelCard,
    route: str = "",
    *,
    largest_change: float | None = LARGEST_CHANGE,
    ceilings: Sequence[Ceiling] = (),
    forbidden: Sequence[Problem] = (),
) -> Limits:
    """The hard limits of a card's route.

    Args:
        card: the model's.
        route: by name; empty: the card's first.
        largest_change: of the daily amount in one step, as a fraction; none: any.
        ceilings: on harmful exposures.
        forbidden: why this patient may not have the drug, from genes or other drugs.

    Raises:
        Refusal: the card has no such route.
    """
    way = route_of(card, route)
    return Limits(
        largest_dose=Quantity(way.largest_single_dose, way.unit),
        largest_daily=Quantity(way.largest_daily_dose, way.unit),
        largest_change=largest_change,
        ceilings=ceilings,
        forbidden=forbidden,
    )


def regimens_from(
    card: ModelCard,
    route: str = "",
    *,
    intervals_h: Sequence[float] = USUAL_INTERVALS_H,
    durations_h: Sequence[float] = (0.0,),
) -> list[Regimen]:
    """Every dose that can be given by a route, at every interval, within the card's limits.

    Raises:
        Refusal: the card has no such route, or no doses for it.
    """
    way = route_of(card, route)
    if not way.available_doses:
        raise Refusal(
            Problem(
                field=f"{card.id}: available_doses",
                allowed="at least one",
                remedy="say which doses can be given",
            )
        )
    amounts = [Quantity(dose, way.unit) for dose in way.available_doses]
    most = way.largest_daily_dose * (1.0 + 1e-9)
    found = regimens_of(amounts, intervals_h, way.name, durations_h)
    return [one for one in found if one.daily(way.unit) <= most]


def route_of(card: ModelCard, name: str = "") -> RouteCard:
    """A card's route by name; empty: its first.

    Raises:
        Refusal: the card has no such route.
    """
    for one in card.routes:
        if name in ("", one.name):
            return one
    known = " or ".join(one.name for one in card.routes)
    raise Refusal(Problem(field="route", value=name, allowed=known))
