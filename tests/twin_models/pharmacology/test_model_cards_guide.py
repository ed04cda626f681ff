"""The guide to model cards runs, names every shipped card and explains every field."""

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from fedtwin_twins.pharmacology.card import ModelCard
from fedtwin_twins.pharmacology.card_parts import (
    Analyte,
    Block,
    CovariateCard,
    DerivedCard,
    Drug,
    ObservableCard,
    OccasionVariability,
    ParameterCard,
    Reference,
    RelationCard,
    ResidualCard,
    RouteCard,
    Target,
)
from fedtwin_twins.pharmacology.equations import RELATIONS
from fedtwin_twins.pharmacology.library import shipped
from fedtwin_twins.pharmacology.structures import DISPOSITIONS, EFFECTS, INPUTS

GUIDE = (Path(__file__).parents[3] / "docs" / "model-cards.md").read_text()
PARTS = [
    *(ModelCard, Drug, Analyte, Reference, CovariateCard, DerivedCard, RelationCard),
    *(ParameterCard, RouteCard, ResidualCard, ObservableCard, Block, OccasionVariability, Target),
]


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.__name__)
def test_every_field_is_explained(part: type[BaseModel]) -> None:
    assert [name for name in part.model_fields if f"`{name}`" not in GUIDE] == []


@pytest.mark.parametrize("names", [RELATIONS, DISPOSITIONS, EFFECTS, INPUTS, shipped()])
def test_every_name_that_a_card_may_use_is_listed(names: object) -> None:
    assert [name for name in names if f"`{name}`" not in GUIDE] == []  # type: ignore[attr-defined]


def test_the_examples_run(capsys: pytest.CaptureFixture[str]) -> None:
    for block in re.findall(r"^```python\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL):
        exec(compile(block, "model-cards.md", "exec"), {})
    said = capsys.readouterr().out
    assert "386 mg.h/L on the second day" in said
    assert "open question 1" in said
    assert "cards folder" in said
    assert f"{len(shipped())} cards" in said
