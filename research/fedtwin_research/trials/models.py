"""The models that trials are run with: cards that come with fedtwin, or a folder of others."""

from functools import cache, partial
from pathlib import Path

from fedtwin_protocol.errors import PlanError
from fedtwin_research.trials.reading import ReadPlan
from fedtwin_research.trials.writing import Card
from fedtwin_twins.pharmacology.card_model import CardModel
from fedtwin_twins.pharmacology.library import load_card
from fedtwin_twins.trials.conduct import Laboratory
from fedtwin_twins.trials.dosing import most_probable
from fedtwin_twins.trials.plan import TrialPlan
from fedtwin_twins.twin.refusals import Refusal


@cache
def find_model(name: str, folder: Path | None = None) -> CardModel:
    """A model by the name of its card.

    Args:
        name: of the card.
        folder: with cards of one's own, which go before those that come with fedtwin.

    Raises:
        Refusal: there is no such card, or it is damaged.
    """
    return CardModel(load_card(name, folder))


def laboratory_for(read: ReadPlan, folder: Path | None = None) -> Laboratory:
    """What a plan is run with.

    Raises:
        PlanError: a card that it names is not there, or is damaged.
    """
    finder = find_model if folder is None else partial(find_model, folder=folder.resolve())
    for field, name in _named(read.plan):
        try:
            finder(name)
        except Refusal as error:
            raise PlanError(f"{field}: {error}") from error
    return Laboratory(find_model=finder, fit=most_probable, rows=read.rows)


def cards_of(plan: TrialPlan, folder: Path | None = None) -> tuple[Card, ...]:
    """The cards that take part, and what is open about each."""
    found = [find_model(name, None if folder is None else folder.resolve()).card
             for _, name in _named(plan)]  # fmt: skip
    return tuple(
        Card(
            name=card.id,
            version=card.version,
            sha256=card.digest,
            open_questions=(*card.open_questions, *card.unchecked),
        )
        for card in found
    )


def _named(plan: TrialPlan) -> list[tuple[str, str]]:
    named = [("drug.truth.model", plan.drug.truth.model)]
    if plan.drug.dosing_model is not None:
        named.append(("drug.dosing_model", plan.drug.dosing_model))
    return named
