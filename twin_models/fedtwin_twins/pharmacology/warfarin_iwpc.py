"""Warfarin: the stable weekly dose for an INR of 2 to 3, by the algorithms of the IWPC.

International Warfarin Pharmacogenetics Consortium, N Engl J Med 2009;360:753-764, doi
10.1056/NEJMoa0809329, supplementary appendix (pharmacogenetic and clinical algorithm):

    sqrt(dose, mg/week) = intercept - by decade * floor(age / 10) + by cm * height + by kg * weight
        + VKORC1 -1639 (rs9923231) + CYP2C9 + race + enzyme inducer + amiodarone.

An enzyme inducer is carbamazepine, phenytoin or rifampicin (rifampin). Alleles of VKORC1 are named
on the gene's strand: G is C, and A is T, of the chromosome. Where a genotype was not determined the
pharmacogenetic algorithm has a term of its own ("unknown"); it has none for alleles of CYP2C9 other
than *1, *2 and *3, and of them nothing is computed.

Derived from 4,043 patients of 10 to 99 years, whose dose was stable; not for children, for another
target INR, or for the first days of treatment. Public copies of the clinical algorithm carry the
intercept 4.0367; the paper's is 4.0376.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedtwin_twins.twin.refusals import Problem, refuse_if_any

Floats = NDArray[np.float64]
UNKNOWN: Final = "unknown"
DAYS: Final = 7


@dataclass(frozen=True, kw_only=True, slots=True)
class Algorithm:
    """Coefficients on the square root of the dose in mg/week.

    Attributes:
        intercept: at age, height and weight 0.
        decade: for each full ten years of age.
        height_cm: for each cm.
        weight_kg: for each kg.
        vkorc1: by genotype; empty where genes are not asked for.
        cyp2c9: by genotype.
        race: by group.
        enzyme_inducer: carbamazepine, phenytoin, rifampicin.
        amiodarone: where it is taken.
    """

    intercept: float
    decade: float
    height_cm: float
    weight_kg: float
    vkorc1: Mapping[str, float]
    cyp2c9: Mapping[str, float]
    race: Mapping[str, float]
    enzyme_inducer: float
    amiodarone: float


PHARMACOGENETIC: Final = Algorithm(
    intercept=5.6044,
    decade=-0.2614,
    height_cm=0.0087,
    weight_kg=0.0128,
    vkorc1=MappingProxyType({"GG": 0.0, "AG": -0.8677, "AA": -1.6974, UNKNOWN: -0.4854}),
    cyp2c9=MappingProxyType(
        {
            "*1/*1": 0.0,
            "*1/*2": -0.5211,
            "*1/*3": -0.9357,
            "*2/*2": -1.0616,
            "*2/*3": -1.9206,
            "*3/*3": -2.3312,
            UNKNOWN: -0.2188,
        }
    ),
    race=MappingProxyType(
        {"white": 0.0, "asian": -0.1092, "black": -0.2760, "mixed_or_unknown": -0.1032}
    ),
    enzyme_inducer=1.1816,
    amiodarone=-0.5503,
)
CLINICAL: Final = Algorithm(
    intercept=4.0376,
    decade=-0.2546,
    height_cm=0.0118,
    weight_kg=0.0134,
    vkorc1=MappingProxyType({}),
    cyp2c9=MappingProxyType({}),
    race=MappingProxyType(
        {"white": 0.0, "asian": -0.6752, "black": 0.4060, "mixed_or_unknown": 0.0443}
    ),
    enzyme_inducer=1.2799,
    amiodarone=-0.5695,
)
RANGES: Final[Mapping[str, tuple[str, float, float, float, float]]] = MappingProxyType(
    {
        "age_years": ("a", 18, 20, 90, 110),
        "height_cm": ("cm", 120, 145, 191, 230),
        "weight_kg": ("kg", 25, 42, 145, 250),
    }
)
"""Unit, least that is computed, least and most that are usual (1st and 99th percentile of the
consortium's own patients, for age its decades), most that is computed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WarfarinPatients:
    """Patients, one for each place of every field (arrays, lists or tensors of one length).

    Attributes:
        age_years: in years.
        height_cm: in cm.
        weight_kg: in kg.
        race: `white`, `asian`, `black` or `mixed_or_unknown`, as the consortium grouped them.
        enzyme_inducer: whether carbamazepine, phenytoin or rifampicin is taken.
        amiodarone: whether it is taken.
        vkorc1: -1639 G>A: `GG`, `AG`, `AA` or `unknown`; not looked at by the clinical algorithm.
        cyp2c9: such as `*1/*3`, or `unknown`; not looked at by the clinical algorithm.
    """

    age_years: ArrayLike
    height_cm: ArrayLike
    weight_kg: ArrayLike
    race: Sequence[str]
    enzyme_inducer: ArrayLike
    amiodarone: ArrayLike
    vkorc1: Sequence[str] = ()
    cyp2c9: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class WarfarinDose:
    """Stable doses with what must be said about them.

    Attributes:
        mg_per_week: (patients,).
        cautions: beside the doses; empty where there is nothing to say.
    """

    mg_per_week: Floats
    cautions: tuple[Problem, ...]

    @property
    def mg_per_day(self) -> Floats:
        """(patients,)."""
        return np.asarray(self.mg_per_week / DAYS, np.float64)


def pharmacogenetic_dose(patients: WarfarinPatients) -> WarfarinDose:
    """The stable dose by the pharmacogenetic algorithm.

    Raises:
        Refusal: something is missing, impossible or beyond the algorithm; all of it at once.
    """
    return _dose(patients, PHARMACOGENETIC)


def clinical_dose(patients: WarfarinPatients) -> WarfarinDose:
    """The stable dose by the clinical algorithm, without genes.

    Raises:
        Refusal: something is missing, impossible or beyond the algorithm; all of it at once.
    """
    return _dose(patients, CLINICAL)


def _dose(patients: WarfarinPatients, algorithm: Algorithm) -> WarfarinDose:
    asked: dict[str, Mapping[str, float]] = {"race": algorithm.race}
    if algorithm.vkorc1:
        asked |= {"vkorc1": algorithm.vkorc1, "cyp2c9": algorithm.cyp2c9}
    numbers = {name: _floats(getattr(patients, name)) for name in RANGES}
    taken = {name: _floats(getattr(patients, name)) for name in ("enzyme_inducer", "amiodarone")}
    words = {name: list(getattr(patients, name)) for name in asked}
    refuse_if_any(_lengths({**numbers, **taken, **words}))
    refuse_if_any([*_impossible(numbers), *_neither(taken), *(_unheard(words, asked))])
    root = (
        algorithm.intercept
        + algorithm.decade * np.floor(numbers["age_years"] / 10)
        + algorithm.height_cm * numbers["height_cm"]
        + algorithm.weight_kg * numbers["weight_kg"]
        + algorithm.enzyme_inducer * taken["enzyme_inducer"]
        + algorithm.amiodarone * taken["amiodarone"]
    )
    for name, terms in asked.items():
        root = root + np.array([terms[word] for word in words[name]])
    refuse_if_any(
        Problem(
            field=f"patient {place}",
            allowed="a sum of terms above 0",
            remedy="the algorithm has no dose for so many reasons for a low one at once",
        )
        for place in np.flatnonzero(root <= 0)
    )
    return WarfarinDose(mg_per_week=root**2, cautions=tuple(_cautions(numbers, words, asked)))


def _floats(values: Any) -> Floats:
    return np.atleast_1d(np.asarray(values, np.float64))


def _lengths(fields: Mapping[str, Any]) -> Iterator[Problem]:
    patients = len(fields["age_years"])
    for name, values in fields.items():
        if len(values) != patients:
            yield Problem(
                field=name,
                value=f"{len(values)} values",
                allowed=f"{patients}, one for each patient, as in age_years",
            )


def _impossible(numbers: Mapping[str, Floats]) -> Iterator[Problem]:
    for name, (unit, least, _, _, most) in RANGES.items():
        outside = ~((numbers[name] >= least) & (numbers[name] <= most))
        for place in np.flatnonzero(outside):
            value = numbers[name][place]
            yield Problem(
                field=f"{name} of patient {place}",
                value="" if np.isnan(value) else f"{value:g}",
                unit=unit,
                allowed=f"{least:g} to {most:g}",
                remedy="the algorithm was made for adults; check number and unit",
            )


def _neither(taken: Mapping[str, Floats]) -> Iterator[Problem]:
    for name, values in taken.items():
        for place in np.flatnonzero((values != 0) & (values != 1)):
            value = values[place]
            yield Problem(
                field=f"{name} of patient {place}",
                value="" if np.isnan(value) else f"{value:g}",
                allowed="yes (1) or no (0)",
                remedy="find out which drugs are taken: the dose depends on them",
            )


def _unheard(
    words: Mapping[str, Sequence[str]], asked: Mapping[str, Mapping[str, float]]
) -> Iterator[Problem]:
    for name, terms in asked.items():
        for place, word in enumerate(words[name]):
            if word not in terms:
                yield Problem(
                    field=f"{name} of patient {place}",
                    value=str(word),
                    allowed=" or ".join(terms),
                    remedy="the algorithm has no term for it; use one that has, or dose by INR",
                )


def _cautions(
    numbers: Mapping[str, Floats],
    words: Mapping[str, Sequence[str]],
    asked: Mapping[str, Mapping[str, float]],
) -> Iterator[Problem]:
    for name, (unit, _, low, high, _) in RANGES.items():
        for place in np.flatnonzero((numbers[name] < low) | (numbers[name] > high)):
            yield Problem(
                field=f"{name} of patient {place}",
                value=f"{numbers[name][place]:g}",
                unit=unit,
                allowed=f"{low:g} to {high:g}",
                remedy="few such patients were among those that the algorithm was made from",
            )
    for name in set(asked) - {"race"}:
        for patient, word in enumerate(words[name]):
            if word == UNKNOWN:
                yield Problem(
                    field=f"{name} of patient {patient}",
                    value=UNKNOWN,
                    allowed="a genotype",
                    remedy="the mean of patients who were not tested stands for it",
                )
