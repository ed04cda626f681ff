"""Plain values → a model card that may be used, or a refusal with everything that is wrong."""

import json
from typing import Any

from pydantic import ValidationError

from fedtwin_twins.pharmacology.card import ModelCard
from fedtwin_twins.pharmacology.card_checks import problems_of
from fedtwin_twins.twin.refusals import Problem, Refusal, refuse_if_any


def card_from(content: Any, where: str) -> ModelCard:
    """A card from plain values.

    Args:
        content: as YAML or JSON read them.
        where: what a refusal calls the card, such as its file's name.

    Raises:
        Refusal: with everything that is wrong.
    """
    try:
        # Strict JSON rules: lists become tuples and whole numbers floats, but no text a number.
        card = ModelCard.model_validate_json(json.dumps(content, default=str))
    except ValidationError as error:
        raise Refusal(*(_problem(item, where) for item in _own_errors(error))) from None
    except (TypeError, ValueError) as error:
        raise Refusal(Problem(field=where, value="no card", remedy=str(error))) from None
    refuse_if_any(
        Problem(
            field=f"{where}: {problem.field}",
            value=problem.value,
            unit=problem.unit,
            allowed=problem.allowed,
            remedy=problem.remedy,
        )
        for problem in problems_of(card)
    )
    return card


def _own_errors(error: ValidationError) -> list[Any]:
    """Without lists that are called too short because one of their parts is wrong."""
    errors = error.errors()
    inside = {item["loc"][: len(item["loc"]) - depth] for item in errors for depth in range(1, 9)}
    return [item for item in errors if item["type"] != "too_short" or item["loc"] not in inside]


def _problem(item: Any, where: str) -> Problem:
    path = ".".join(str(part) for part in item["loc"]) or "content"
    missing = item["type"] == "missing"
    unknown = item["type"] == "extra_forbidden"
    return Problem(
        field=f"{where}: {path}",
        value="" if missing else _short(item["input"]),
        allowed="" if unknown else item["msg"],
        remedy="no field of a model card has this name" if unknown else "",
    )


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
