"""Models of side effects that come with this package, each with its study."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from fedtwin_twins.pharmacology.adverse_events import AdverseEventModel, Estimate, wilson


def _expected_groups(people: int, allele: float) -> tuple[float, float, float]:
    """How many have 0, 1 and 2 alleles, by Hardy and Weinberg."""
    return (people * (1 - allele) ** 2, people * 2 * allele * (1 - allele), people * allele**2)


_EXPECTED: Final = _expected_groups(509, 0.161)
_BY_EXPECTED: Final = "95 % interval of Wilson, with group sizes expected by Hardy and Weinberg"
_DRAWN: Final = "from the draws of the model that foretells it"

ADVERSE_EVENTS: Final[Mapping[str, AdverseEventModel]] = MappingProxyType(
    {
        "vancomycin_kidney_chavada_2017": AdverseEventModel(
            kind="acute kidney injury",
            drug="vancomycin",
            metric="area under the curve of the first 24 h",
            unit="mg.h/L",
            function="threshold",
            rates={"below": wilson(12, 107), "above": wilson(8, 20)},
            ratio=Estimate(value=5.07, low=1.57, high=16.29),
            window=(0.0, 563.0),
            source="Chavada 2017, Antimicrob Agents Chemother 61:e02535-16",
            verified="read",
            note="127 adults with MRSA in the blood, at least 14 days; the odds ratio is adjusted "
            "(crude 5.28) and is applied to a rate of your own",
        ),
        "vancomycin_kidney_zasowski_2018": AdverseEventModel(
            kind="kidney injury",
            drug="vancomycin",
            metric="area under the curve of the first 24 h",
            unit="mg.h/L",
            function="threshold",
            ratio=Estimate(value=3.5, low=3.0, high=4.0, kind="range of the paper's estimates"),
            relative=True,
            window=(0.0, 677.0),
            source="Zasowski 2018, Antimicrob Agents Chemother 62:e01684-17, abstract",
            verified="read",
            note="323 adults; 683 mg.h/L for hours 24 to 48; the abstract has no rate and no "
            "confidence interval",
        ),
        "simvastatin_myopathy_search_2008": AdverseEventModel(
            kind="definite or incipient myopathy in 5 years of simvastatin 80 mg a day",
            drug="simvastatin",
            metric="SLCO1B1 c.521C alleles",
            unit="{alleles}",
            function="per allele",
            # 98 of 6031 fell ill; sensitivity 70.4 %, specificity 73.7 %: 29 of 4402 without it.
            rates={"0": wilson(29, 4402)},
            ratio=Estimate(value=4.5, low=2.6, high=7.7),
            source="SEARCH 2008, doi 10.1056/NEJMoa0801936; rates through PMC3871416",
            verified="memory",
            note="the odds ratio was read, its interval and the numbers of people are from memory; "
            "80 mg is no longer begun",
        ),
        "statin_side_effects_voora_2009": AdverseEventModel(
            kind="stopping, muscle pain or a raised creatine kinase",
            drug="statins",
            metric="SLCO1B1 *5 alleles",
            unit="{alleles}",
            function="by count",
            rates={
                str(count): wilson(rate * people, people, _BY_EXPECTED)
                for count, (rate, people) in enumerate(
                    zip((0.19, 0.27, 0.50), _EXPECTED, strict=True)
                )
            },
            source="Voora 2009, doi 10.1016/j.jacc.2009.04.053 (PMC3417133), abstract",
            verified="read",
            note="509 people on atorvastatin, simvastatin or pravastatin; the abstract has no "
            "sizes of groups: the interval takes an allele frequency of 0.161",
        ),
        "fluorouracil_leukopenia_grade_3": AdverseEventModel(
            kind="leukopenia of grade 3 or 4",
            drug="fluorouracil",
            metric="lowest white cell count",
            unit="10*9/L",
            function="share of draws",
            window=(2.0, float("inf")),
            source="CTCAE version 5.0: white blood cells below 2.0 x 10*9/L",
            verified="memory",
            note=f"{_DRAWN}; white cells stand for neutrophils, which the model does not have",
        ),
        "tacrolimus_trough_first_weeks": AdverseEventModel(
            kind="a trough outside 10 to 15 ng/mL",
            drug="tacrolimus",
            metric="trough",
            unit="ng/mL",
            function="share of draws",
            window=(10.0, 15.0),
            source="practice of the Prograf cohort, Woillard 2011, first 6 weeks",
            verified="transcription",
            note=_DRAWN,
        ),
        "tacrolimus_trough_later": AdverseEventModel(
            kind="a trough outside 5 to 10 ng/mL",
            drug="tacrolimus",
            metric="trough",
            unit="ng/mL",
            function="share of draws",
            window=(5.0, 10.0),
            source="practice of the Prograf cohort, Woillard 2011, after 6 weeks",
            verified="transcription",
            note=_DRAWN,
        ),
        "insulin_low_glucose": AdverseEventModel(
            kind="glucose below 70 mg/dL",
            drug="insulin",
            metric="glucose",
            unit="mg/dL",
            function="share of draws",
            window=(70.0, float("inf")),
            source="level 1 of hypoglycaemia, Battelino 2019, doi 10.2337/dci19-0028",
            verified="memory",
            note=f"{_DRAWN}, at one time; for the share of a day use `time_beyond`",
        ),
        "insulin_very_low_glucose": AdverseEventModel(
            kind="glucose below 54 mg/dL",
            drug="insulin",
            metric="glucose",
            unit="mg/dL",
            function="share of draws",
            window=(54.0, float("inf")),
            source="level 2 of hypoglycaemia, Battelino 2019, doi 10.2337/dci19-0028",
            verified="memory",
            note=f"{_DRAWN}, at one time; for the share of a day use `time_beyond`",
        ),
    }
)
"""The models that come with this package, by name."""
