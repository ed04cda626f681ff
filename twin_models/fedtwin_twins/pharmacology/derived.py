"""Covariates that follow from recorded ones: the named equations that a model card may use."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, cast

import torch
from torch import Tensor

from fedtwin_twins.pharmacology.body_size import (
    body_surface_area_du_bois,
    fat_free_mass,
    normal_fat_mass,
    postmenstrual_age,
)
from fedtwin_twins.pharmacology.kidney_function import cockcroft_gault

Values = Mapping[str, Tensor]
Coefficients = Mapping[str, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class DerivedEquation:
    """One of the named equations.

    Attributes:
        inputs: UCUM unit by role.
        unit: UCUM, of the result.
        coefficients: names that the card must give.
        result: from the inputs by role and the coefficients.
    """

    inputs: Mapping[str, str]
    unit: str
    coefficients: frozenset[str] = frozenset()
    result: Callable[[Values, Coefficients], Tensor]


def _cockcroft_gault(values: Values, by: Coefficients) -> Tensor:
    """With whatever weight the card puts in; low creatinine is raised above some age."""
    age, creatinine = values["age"], values["creatinine"]
    raised = creatinine.clamp(min=by["creatinine_floor"])
    clearance = cockcroft_gault(
        age_a=age,
        weight_kg=values["weight"],
        creatinine_mg_dl=torch.where(age > by["age_of_floor"], raised, creatinine),
        female=values["female"],
        weight="actual",
    )
    return cast(Tensor, clearance).clamp(max=by["largest"])


def _fat_free_mass(values: Values, by: Coefficients) -> Tensor:
    del by
    found = fat_free_mass(
        weight_kg=values["weight"], height_cm=values["height"], female=values["female"]
    )
    return cast(Tensor, found)


def _du_bois(values: Values, by: Coefficients) -> Tensor:
    del by
    found = body_surface_area_du_bois(weight_kg=values["weight"], height_cm=values["height"])
    return cast(Tensor, found)


def _normal_fat_mass(values: Values, by: Coefficients) -> Tensor:
    found = normal_fat_mass(
        weight_kg=values["weight"],
        fat_free_kg=values["fat_free_mass"],
        fat_share=by["fat_fraction"],
    )
    return cast(Tensor, found)


def _postmenstrual_age(values: Values, by: Coefficients) -> Tensor:
    found = postmenstrual_age(age_a=values["age"], weeks_at_birth=by["weeks_at_birth"])
    return cast(Tensor, found)


def _remaining_of_two(values: Values, by: Coefficients) -> Tensor:
    """Of two alleles those that are not the second kind."""
    del by
    return 2.0 - values["second"]


def _remaining_of_three(values: Values, by: Coefficients) -> Tensor:
    """Of two alleles those that are neither the second nor the third kind."""
    del by
    return 2.0 - values["second"] - values["third"]


DERIVED: Final[Mapping[str, DerivedEquation]] = MappingProxyType(
    {
        "cockcroft_gault": DerivedEquation(
            inputs={"age": "a", "weight": "kg", "creatinine": "mg/dL", "female": "1"},
            unit="mL/min",
            coefficients=frozenset({"creatinine_floor", "age_of_floor", "largest"}),
            result=_cockcroft_gault,
        ),
        "fat_free_mass_janmahasatian": DerivedEquation(
            inputs={"weight": "kg", "height": "cm", "female": "1"},
            unit="kg",
            result=_fat_free_mass,
        ),
        "body_surface_area_du_bois": DerivedEquation(
            inputs={"weight": "kg", "height": "cm"}, unit="m2", result=_du_bois
        ),
        "normal_fat_mass": DerivedEquation(
            inputs={"weight": "kg", "fat_free_mass": "kg"},
            unit="kg",
            coefficients=frozenset({"fat_fraction"}),
            result=_normal_fat_mass,
        ),
        "remaining_alleles_of_two": DerivedEquation(
            inputs={"second": "1"}, unit="1", result=_remaining_of_two
        ),
        "remaining_alleles_of_three": DerivedEquation(
            inputs={"second": "1", "third": "1"}, unit="1", result=_remaining_of_three
        ),
        "postmenstrual_age": DerivedEquation(
            inputs={"age": "a"},
            unit="wk",
            coefficients=frozenset({"weeks_at_birth"}),
            result=_postmenstrual_age,
        ),
    }
)
