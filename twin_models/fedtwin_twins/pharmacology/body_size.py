"""Size and maturity of the body, by named equations.

Every function takes plain numbers or torch tensors with one number for each patient, and refuses
what no living person has.
"""

from typing import Final, Literal

from fedtwin_twins.pharmacology.elementwise import (
    Mark,
    Value,
    as_mark,
    at_least,
    check_plausible,
    sqrt,
    where,
)
from fedtwin_twins.twin.refusals import Problem, Refusal

WeightChoice = Literal["actual", "ideal", "adjusted"]
WEIGHT_CHOICES: Final = ("actual", "ideal", "adjusted")
_CM_IN_INCH: Final = 2.54
_WEEKS_IN_YEAR: Final = 52.1775
"""365.2425 / 7."""


def body_mass_index(*, weight_kg: Value, height_cm: Value) -> Value:
    """Body-mass index, kg/m2 (Quetelet): weight over the square of height.

    Raises:
        Refusal: a weight or height that no person has.
    """
    _check_size(weight_kg, height_cm)
    return weight_kg / (height_cm / 100.0) ** 2


def body_surface_area_mosteller(*, weight_kg: Value, height_cm: Value) -> Value:
    """Body surface area, m2: the root of weight times height over 3600.

    Mosteller RD, N Engl J Med 1987;317:1098, doi 10.1056/NEJM198710223171717.

    Raises:
        Refusal: a weight or height that no person has.
    """
    _check_size(weight_kg, height_cm)
    return sqrt(weight_kg * height_cm / 3600.0)


def body_surface_area_du_bois(*, weight_kg: Value, height_cm: Value) -> Value:
    """Body surface area, m2: 0.007184 x weight^0.425 x height^0.725.

    Du Bois D, Du Bois EF, Arch Intern Med 1916;17:863.

    Raises:
        Refusal: a weight or height that no person has.
    """
    _check_size(weight_kg, height_cm)
    area: Value = 0.007184 * weight_kg**0.425 * height_cm**0.725
    return area


def ideal_weight(*, height_cm: Value, female: Mark) -> Value:
    """Ideal body weight of adults, kg: 50 (women 45.5) and 2.3 for each inch above 60.

    Devine BJ, Drug Intell Clin Pharm 1974;8:650. Below 60 inches (152.4 cm) the line goes on
    downwards, as most users read it; the paper does not say.

    Raises:
        Refusal: a height that no person has, or below 120 cm, where the line has no meaning.
    """
    check_plausible(height_cm=(height_cm, "height"))
    _tall_enough(height_cm)
    return where(as_mark(female), 45.5, 50.0) + 2.3 * (height_cm / _CM_IN_INCH - 60.0)


def adjusted_weight(
    *, weight_kg: Value, height_cm: Value, female: Mark, share: float = 0.4
) -> Value:
    """Adjusted body weight, kg: ideal weight and a share of what is above it.

    Winter MA, Pharmacotherapy 2012;32:604 (share 0.4), doi 10.1002/j.1875-9114.2012.01098.x.
    Who weighs less than the ideal keeps the own weight.

    Raises:
        Refusal: a weight or height that no person has, or a share outside 0 to 1.
    """
    _check_size(weight_kg, height_cm)
    if not 0.0 <= share <= 1.0:
        raise Refusal(Problem(field="share", value=f"{share:g}", unit="1", allowed="0 to 1"))
    ideal = ideal_weight(height_cm=height_cm, female=female)
    above = at_least(weight_kg - ideal, 0.0)
    return weight_kg - (1.0 - share) * above


def chosen_weight(
    choice: WeightChoice, *, weight_kg: Value, height_cm: "Value | None", female: Mark
) -> Value:
    """Actual, ideal or adjusted weight, kg; the choice is named and never made by itself.

    Raises:
        Refusal: an unknown choice, or no height where one is needed.
    """
    if choice not in WEIGHT_CHOICES:
        raise Refusal(Problem(field="weight", value=str(choice), allowed=", ".join(WEIGHT_CHOICES)))
    if choice == "actual":
        check_plausible(weight_kg=(weight_kg, "body_weight"))
        return weight_kg
    if height_cm is None:
        remedy = "give the height, or choose the actual weight"
        raise Refusal(Problem(field="height_cm", allowed="a height", unit="cm", remedy=remedy))
    if choice == "ideal":
        return ideal_weight(height_cm=height_cm, female=female)
    return adjusted_weight(weight_kg=weight_kg, height_cm=height_cm, female=female)


def fat_free_mass(*, weight_kg: Value, height_cm: Value, female: Mark) -> Value:
    """Fat-free mass of adults, kg: 9270 W / (6680 + 216 BMI), women 9270 W / (8780 + 244 BMI).

    Janmahasatian S, Clin Pharmacokinet 2005;44:1051, doi 10.2165/00003088-200544100-00004.

    Raises:
        Refusal: a weight or height that no person has.
    """
    index = body_mass_index(weight_kg=weight_kg, height_cm=height_cm)
    men = 9270.0 * weight_kg / (6680.0 + 216.0 * index)
    women = 9270.0 * weight_kg / (8780.0 + 244.0 * index)
    return where(as_mark(female), women, men)


def normal_fat_mass(*, weight_kg: Value, fat_free_kg: Value, fat_share: float) -> Value:
    """Normal fat mass, kg: fat-free mass and a share of the fat that is particular to a parameter.

    Anderson BJ, Holford NHG, Drug Metab Pharmacokinet 2009;24:25, doi 10.2133/dmpk.24.25. Busulfan
    (McCune 2014, Clin Cancer Res 20:754, doi 10.1158/1078-0432.CCR-13-1960): 0.509 for clearance
    and 0.203 for volume. The share may be negative or above 1, and is not bounded here.

    Raises:
        Refusal: a mass that no person has, or a fat-free mass above the weight.
    """
    check_plausible(
        weight_kg=(weight_kg, "body_weight"), fat_free_kg=(fat_free_kg, "fat_free_mass")
    )
    lowest = _lowest(weight_kg - fat_free_kg)
    if lowest < 0.0:
        problem = Problem(
            field="fat_free_kg",
            value=f"{-lowest:g} above the weight",
            unit="kg",
            allowed="at most the weight",
        )
        raise Refusal(problem)
    return fat_free_kg + fat_share * (weight_kg - fat_free_kg)


def postmenstrual_age(*, age_a: Value, weeks_at_birth: Value = 40.0) -> Value:
    """Weeks since the mother's last period, from the age in years and the weeks at birth.

    Raises:
        Refusal: an age that no person has, or a birth before 20 or after 45 weeks.
    """
    check_plausible(age_a=(age_a, "age"), weeks_at_birth=(weeks_at_birth, "postmenstrual age"))
    if _lowest(45.0 - weeks_at_birth) < 0.0:
        problem = Problem(field="weeks_at_birth", value="above 45", unit="wk", allowed="20 to 45")
        raise Refusal(problem)
    return age_a * _WEEKS_IN_YEAR + weeks_at_birth


def maturation(*, postmenstrual_weeks: Value, half_weeks: float, hill: float) -> Value:
    """The share of an adult's function, 0 to 1: 1 / (1 + (PMA / half)^-hill).

    Busulfan's clearance: half 45.7 wk, hill 2.3 (McCune 2014, as above). Glomerular filtration:
    half 47.7 wk, hill 3.40 (Rhodin MM, Pediatr Nephrol 2009;24:67, doi 10.1007/s00467-008-0997-5).

    Raises:
        Refusal: an age that no person has, or a half age or exponent that is not above 0.
    """
    check_plausible(postmenstrual_weeks=(postmenstrual_weeks, "postmenstrual age"))
    for name, value in (("half_weeks", half_weeks), ("hill", hill)):
        if not value > 0.0:
            raise Refusal(Problem(field=name, value=f"{value:g}", allowed="above 0"))
    share: Value = 1.0 / (1.0 + (postmenstrual_weeks / half_weeks) ** -hill)
    return share


def _check_size(weight_kg: Value, height_cm: Value) -> None:
    check_plausible(weight_kg=(weight_kg, "body_weight"), height_cm=(height_cm, "height"))


def _lowest(value: Value) -> float:
    return float(value if isinstance(value, (int, float)) else value.min())


def _tall_enough(height_cm: Value) -> None:
    lowest = _lowest(height_cm)
    if lowest < 120.0:
        remedy = "the equation is for adults; use the actual weight"
        problem = Problem(
            field="height_cm", value=f"{lowest:g}", unit="cm", allowed="at least 120", remedy=remedy
        )
        raise Refusal(problem)
