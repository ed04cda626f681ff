"""Function of the kidneys, by named equations; each for the people it was made for.

Results are in mL/min, or in mL/min/1.73 m2 where the name ends in `indexed`; drugs are dosed by
mL/min, so an indexed rate is turned back with the patient's own body surface area. Every function
takes plain numbers or torch tensors with one number for each patient.
"""

from typing import Final

from fedtwin_twins.pharmacology.body_size import WeightChoice, chosen_weight
from fedtwin_twins.pharmacology.elementwise import (
    Mark,
    Range,
    Value,
    as_mark,
    at_least,
    at_most,
    check_plausible,
    check_range,
    where,
)

_ADULTS: Final = Range(
    unit="a", low=18.0, high=125.0, hint="the equation is for adults; for children use Schwartz"
)
_CHILDREN: Final = Range(
    unit="a", low=1.0, high=18.0, hint="the equation is for children; for adults use CKD-EPI"
)
_REFERENCE_AREA_M2: Final = 1.73


def cockcroft_gault(
    *,
    age_a: Value,
    weight_kg: Value,
    creatinine_mg_dl: Value,
    female: Mark,
    weight: WeightChoice,
    height_cm: "Value | None" = None,
    creatinine_floor_mg_dl: float = 0.0,
) -> Value:
    """Creatinine clearance, mL/min: (140 - age) x weight / (72 x creatinine), women 0.85 of it.

    Cockcroft DW, Gault MH, Nephron 1976;16:31, doi 10.1159/000180580: 249 men of 18 to 92 years.
    It came before creatinine was standardised.

    Args:
        age_a: years; from 18.
        weight_kg: the patient's own.
        creatinine_mg_dl: in serum.
        female: whether 0.85 applies.
        weight: which one goes in; the paper took the actual one, others are later habits.
        height_cm: for the ideal and the adjusted weight.
        creatinine_floor_mg_dl: lower values are raised to it, as some models ask for; 0: none.

    Raises:
        Refusal: a value that no person has, a child, or no height where one is needed.
    """
    check_plausible(age_a=(age_a, "age"), creatinine_mg_dl=(creatinine_mg_dl, "creatinine"))
    check_range("age_a", age_a, _ADULTS)
    kg = chosen_weight(weight, weight_kg=weight_kg, height_cm=height_cm, female=female)
    creatinine = at_least(creatinine_mg_dl, creatinine_floor_mg_dl)
    return (140.0 - age_a) * kg / (72.0 * creatinine) * where(as_mark(female), 0.85, 1.0)


def ckd_epi_2021_creatinine_indexed(
    *, age_a: Value, creatinine_mg_dl: Value, female: Mark
) -> Value:
    """Glomerular filtration rate by creatinine, mL/min/1.73 m2, without a term for race.

    142 x min(Cr/k, 1)^a x max(Cr/k, 1)^-1.200 x 0.9938^age x 1.012 (women); k 0.7 (men 0.9),
    a -0.241 (men -0.302). Inker LA, N Engl J Med 2021;385:1737, doi 10.1056/NEJMoa2102953, Table 2.

    Raises:
        Refusal: a value that no person has, or a child.
    """
    check_plausible(age_a=(age_a, "age"), creatinine_mg_dl=(creatinine_mg_dl, "creatinine"))
    check_range("age_a", age_a, _ADULTS)
    woman = as_mark(female)
    ratio = creatinine_mg_dl / where(woman, 0.7, 0.9)
    low = at_most(ratio, 1.0) ** where(woman, -0.241, -0.302)
    rate: Value = 142.0 * low * at_least(ratio, 1.0) ** -1.200 * 0.9938**age_a
    return rate * where(woman, 1.012, 1.0)


def ckd_epi_2012_cystatin_c_indexed(*, age_a: Value, cystatin_c_mg_l: Value, female: Mark) -> Value:
    """Glomerular filtration rate by cystatin C, mL/min/1.73 m2.

    133 x min(Cys/0.8, 1)^-0.499 x max(Cys/0.8, 1)^-1.328 x 0.996^age x 0.932 (women). Inker LA,
    N Engl J Med 2012;367:20, doi 10.1056/NEJMoa1114248; still the equation of 2021 for cystatin C.

    Raises:
        Refusal: a value that no person has, or a child.
    """
    check_plausible(age_a=(age_a, "age"), cystatin_c_mg_l=(cystatin_c_mg_l, "cystatin C"))
    check_range("age_a", age_a, _ADULTS)
    ratio = cystatin_c_mg_l / 0.8
    low = at_most(ratio, 1.0) ** -0.499
    rate: Value = 133.0 * low * at_least(ratio, 1.0) ** -1.328 * 0.996**age_a
    return rate * where(as_mark(female), 0.932, 1.0)


def ckd_epi_2021_both_indexed(
    *, age_a: Value, creatinine_mg_dl: Value, cystatin_c_mg_l: Value, female: Mark
) -> Value:
    """Glomerular filtration rate by creatinine and cystatin C, mL/min/1.73 m2.

    135 x min(Cr/k, 1)^a x max(Cr/k, 1)^-0.544 x min(Cys/0.8, 1)^-0.323 x max(Cys/0.8, 1)^-0.778
    x 0.9961^age x 0.963 (women); k 0.7 (men 0.9), a -0.219 (men -0.144). Inker LA, N Engl J Med
    2021;385:1737, doi 10.1056/NEJMoa2102953, Table 2.

    Raises:
        Refusal: a value that no person has, or a child.
    """
    check_plausible(
        age_a=(age_a, "age"),
        creatinine_mg_dl=(creatinine_mg_dl, "creatinine"),
        cystatin_c_mg_l=(cystatin_c_mg_l, "cystatin C"),
    )
    check_range("age_a", age_a, _ADULTS)
    woman = as_mark(female)
    creatinine = creatinine_mg_dl / where(woman, 0.7, 0.9)
    cystatin = cystatin_c_mg_l / 0.8
    low = (
        at_most(creatinine, 1.0) ** where(woman, -0.219, -0.144) * at_most(cystatin, 1.0) ** -0.323
    )
    high = at_least(creatinine, 1.0) ** -0.544 * at_least(cystatin, 1.0) ** -0.778
    rate: Value = 135.0 * low * high * 0.9961**age_a
    return rate * where(woman, 0.963, 1.0)


def mdrd_indexed(*, age_a: Value, creatinine_mg_dl: Value, female: Mark) -> Value:
    """Glomerular filtration rate, mL/min/1.73 m2: 175 x Cr^-1.154 x age^-0.203 x 0.742 (women).

    Levey AS, Ann Intern Med 2006;145:247, doi 10.7326/0003-4819-145-4-200608150-00004, for
    standardised creatinine. Made for chronic kidney disease; too low above about 60. The paper's
    factor for race is left out, as kidney societies have asked for since 2021.

    Raises:
        Refusal: a value that no person has, or a child.
    """
    check_plausible(age_a=(age_a, "age"), creatinine_mg_dl=(creatinine_mg_dl, "creatinine"))
    check_range("age_a", age_a, _ADULTS)
    rate: Value = 175.0 * creatinine_mg_dl**-1.154 * age_a**-0.203
    return rate * where(as_mark(female), 0.742, 1.0)


def schwartz_bedside_indexed(*, age_a: Value, height_cm: Value, creatinine_mg_dl: Value) -> Value:
    """Glomerular filtration rate of children, mL/min/1.73 m2: 0.413 x height / creatinine.

    Schwartz GJ, J Am Soc Nephrol 2009;20:629, doi 10.1681/ASN.2008030287: 349 children of 1 to 16
    years with chronic kidney disease, enzymatic creatinine.

    Raises:
        Refusal: a value that no person has, an infant or an adult.
    """
    check_plausible(
        age_a=(age_a, "age"),
        height_cm=(height_cm, "height"),
        creatinine_mg_dl=(creatinine_mg_dl, "creatinine"),
    )
    check_range("age_a", age_a, _CHILDREN)
    return 0.413 * height_cm / creatinine_mg_dl


def de_indexed(*, indexed_ml_min: Value, body_surface_area_m2: Value) -> Value:
    """From mL/min/1.73 m2 to the patient's own mL/min: times body surface area over 1.73.

    Raises:
        Refusal: a rate or an area that no person has.
    """
    check_plausible(
        indexed_ml_min=(indexed_ml_min, "glomerular filtration rate"),
        body_surface_area_m2=(body_surface_area_m2, "body_surface_area"),
    )
    return indexed_ml_min * body_surface_area_m2 / _REFERENCE_AREA_M2
