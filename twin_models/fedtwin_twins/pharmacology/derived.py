"""Covariates that follow from recorded ones: the named equations that a model card may use."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import torch
from torch import Tensor

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
    """Cockcroft DW, Gault MH, Nephron 1976;16:31, doi 10.1159/000180580."""
    age, creatinine = values["age"], values["creatinine"]
    raised = creatinine.clamp(min=by["creatinine_floor"])
    creatinine = torch.where(age > by["age_of_floor"], raised, creatinine)
    sex = torch.where(values["female"] == 1.0, 0.85, 1.0)
    clearance = (140.0 - age) * values["weight"] * sex / (72.0 * creatinine)
    return clearance.clamp(max=by["largest"])


def _fat_free_mass(values: Values, by: Coefficients) -> Tensor:
    """Janmahasatian S, Clin Pharmacokinet 2005;44:1051, doi 10.2165/00003088-200544100-00004."""
    del by
    weight = values["weight"]
    mass_index = weight / (values["height"] / 100.0) ** 2
    male = 9_270.0 * weight / (6_680.0 + 216.0 * mass_index)
    female = 9_270.0 * weight / (8_780.0 + 244.0 * mass_index)
    return torch.where(values["female"] == 1.0, female, male)


def _du_bois(values: Values, by: Coefficients) -> Tensor:
    """Du Bois D, Du Bois EF, Arch Intern Med 1916;17:863."""
    del by
    return 0.007184 * values["weight"] ** 0.425 * values["height"] ** 0.725


def _normal_fat_mass(values: Values, by: Coefficients) -> Tensor:
    """Anderson BJ, Holford NHG, Drug Metab Pharmacokinet 2009;24:25, doi 10.2133/dmpk.24.25."""
    lean = values["fat_free_mass"]
    return lean + by["fat_fraction"] * (values["weight"] - lean)


def _postmenstrual_age(values: Values, by: Coefficients) -> Tensor:
    """Weeks since the mother's last period, of a birth at so many weeks."""
    return values["age"] * by["weeks_in_year"] + by["weeks_at_birth"]


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
            coefficients=frozenset({"weeks_in_year", "weeks_at_birth"}),
            result=_postmenstrual_age,
        ),
    }
)
