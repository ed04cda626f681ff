"""Function of the liver, by named scores.

Every function takes plain numbers or torch tensors with one number for each patient. Scores are
numbers without a unit; bilirubin is in mg/dL and albumin in g/dL unless the name says otherwise.
"""

from typing import Final

from fedtwin_twins.pharmacology.elementwise import (
    Mark,
    Value,
    as_mark,
    at_least,
    at_most,
    check_plausible,
    log,
    rounded,
    where,
)
from fedtwin_twins.twin.refusals import Problem, Refusal

_LN_10: Final = 2.302585092994046
_INR: Final = "international normalised ratio"


def child_pugh_points(
    *,
    bilirubin_mg_dl: Value,
    albumin_g_dl: Value,
    inr: Value,
    ascites: Value,
    encephalopathy: Value,
    cholestatic: bool = False,
) -> Value:
    """Child-Pugh points, 5 to 15.

    | points | bilirubin mg/dL (cholestatic) | albumin g/dL | INR | ascites | encephalopathy |
    |---|---|---|---|---|---|
    | 1 | < 2 (< 4) | > 3.5 | < 1.7 | none | none |
    | 2 | 2 to 3 (4 to 10) | 2.8 to 3.5 | 1.7 to 2.3 | slight | grade 1 or 2 |
    | 3 | > 3 (> 10) | < 2.8 | > 2.3 | more | grade 3 or 4 |

    Pugh RN, Br J Surg 1973;60:646, doi 10.1002/bjs.1800600817; INR in place of seconds as in later
    use.

    Args:
        bilirubin_mg_dl: total.
        albumin_g_dl: in serum.
        inr: of the prothrombin time.
        ascites: 0 none, 1 slight, 2 more.
        encephalopathy: grade 0 to 4.
        cholestatic: whether the limits for primary biliary disease apply.

    Raises:
        Refusal: a value that no person has.
    """
    check_plausible(
        bilirubin_mg_dl=(bilirubin_mg_dl, "bilirubin"),
        albumin_g_dl=(albumin_g_dl, "albumin"),
        inr=(inr, _INR),
        ascites=(ascites, "ascites"),
        encephalopathy=(encephalopathy, "encephalopathy"),
    )
    low, high = (4.0, 10.0) if cholestatic else (2.0, 3.0)
    one: Value = 1.0
    return (
        one
        + where(bilirubin_mg_dl >= low, 1.0, 0.0)
        + where(bilirubin_mg_dl > high, 1.0, 0.0)
        + one
        + where(albumin_g_dl <= 3.5, 1.0, 0.0)
        + where(albumin_g_dl < 2.8, 1.0, 0.0)
        + one
        + where(inr >= 1.7, 1.0, 0.0)
        + where(inr > 2.3, 1.0, 0.0)
        + one
        + where(ascites >= 1.0, 1.0, 0.0)
        + where(ascites >= 2.0, 1.0, 0.0)
        + one
        + where(encephalopathy >= 1.0, 1.0, 0.0)
        + where(encephalopathy >= 3.0, 1.0, 0.0)
    )


def child_pugh_class(points: float) -> str:
    """`A` for 5 or 6 points, `B` for 7 to 9, `C` for 10 to 15 (Pugh 1973, as above).

    Raises:
        Refusal: there are no such points.
    """
    if points not in range(5, 16):
        raise Refusal(Problem(field="points", value=f"{points:g}", allowed="5 to 15"))
    return "A" if points <= 6 else "B" if points <= 9 else "C"


def meld(
    *, bilirubin_mg_dl: Value, inr: Value, creatinine_mg_dl: Value, dialysis: Mark = False
) -> Value:
    """Model for end-stage liver disease, 6 to 40, rounded.

    10 x (0.957 ln creatinine + 0.378 ln bilirubin + 1.120 ln INR + 0.643); values below 1 count as
    1, creatinine as at most 4, and as 4 with dialysis twice in the last week. Kamath PS, Hepatology
    2001;33:464, doi 10.1053/jhep.2001.22172; bounds of OPTN policy 9 (2016).

    Raises:
        Refusal: a value that no person has.
    """
    return rounded(at_most(_meld(bilirubin_mg_dl, inr, creatinine_mg_dl, dialysis), 40.0))


def meld_na(
    *,
    bilirubin_mg_dl: Value,
    inr: Value,
    creatinine_mg_dl: Value,
    sodium_mmol_l: Value,
    dialysis: Mark = False,
) -> Value:
    """MELD with sodium, 6 to 40, rounded.

    Where MELD is above 11: MELD + 1.32 (137 - Na) - 0.033 MELD (137 - Na), with Na within 125 and
    137. OPTN policy 9 (2016), after Kim WR, N Engl J Med 2008;359:1018, doi 10.1056/NEJMoa0801209.

    Raises:
        Refusal: a value that no person has.
    """
    check_plausible(sodium_mmol_l=(sodium_mmol_l, "sodium"))
    base = rounded(_meld(bilirubin_mg_dl, inr, creatinine_mg_dl, dialysis))
    lacking = 137.0 - at_most(at_least(sodium_mmol_l, 125.0), 137.0)
    with_sodium = base + 1.32 * lacking - 0.033 * base * lacking
    return rounded(at_most(where(base > 11.0, with_sodium, base), 40.0))


def meld_3(
    *,
    bilirubin_mg_dl: Value,
    inr: Value,
    creatinine_mg_dl: Value,
    sodium_mmol_l: Value,
    albumin_g_dl: Value,
    female: Mark,
    dialysis: Mark = False,
) -> Value:
    """MELD 3.0 of adults, 6 to 40, rounded.

    1.33 (women) + 4.56 ln bilirubin + 0.82 (137 - Na) - 0.24 (137 - Na) ln bilirubin + 9.09 ln INR
    + 11.14 ln creatinine + 1.85 (3.5 - albumin) - 1.83 (3.5 - albumin) ln creatinine + 6;
    bilirubin, INR and creatinine count as at least 1, creatinine as at most 3 (and as 3 under
    dialysis), Na within 125 and 137, albumin within 1.5 and 3.5. Kim WR, Gastroenterology
    2021;161:1887, doi 10.1053/j.gastro.2021.08.050.

    Raises:
        Refusal: a value that no person has.
    """
    check_plausible(
        bilirubin_mg_dl=(bilirubin_mg_dl, "bilirubin"),
        inr=(inr, _INR),
        creatinine_mg_dl=(creatinine_mg_dl, "creatinine"),
        sodium_mmol_l=(sodium_mmol_l, "sodium"),
        albumin_g_dl=(albumin_g_dl, "albumin"),
    )
    creatinine = at_most(at_least(creatinine_mg_dl, 1.0), 3.0)
    ln_creatinine = log(where(as_mark(dialysis, "dialysis"), 3.0 + 0.0 * creatinine, creatinine))
    ln_bilirubin = log(at_least(bilirubin_mg_dl, 1.0))
    lacking = 137.0 - at_most(at_least(sodium_mmol_l, 125.0), 137.0)
    albumin = 3.5 - at_most(at_least(albumin_g_dl, 1.5), 3.5)
    score = (
        where(as_mark(female), 1.33, 0.0)
        + 4.56 * ln_bilirubin
        + 0.82 * lacking
        - 0.24 * lacking * ln_bilirubin
        + 9.09 * log(at_least(inr, 1.0))
        + 11.14 * ln_creatinine
        + 1.85 * albumin
        - 1.83 * albumin * ln_creatinine
        + 6.0
    )
    return rounded(at_most(at_least(score, 6.0), 40.0))


def albi(*, bilirubin_umol_l: Value, albumin_g_l: Value) -> Value:
    """Albumin-bilirubin score: 0.66 log10 bilirubin (umol/L) - 0.085 albumin (g/L).

    Johnson PJ, J Clin Oncol 2015;33:550, doi 10.1200/JCO.2014.57.9151.

    Raises:
        Refusal: a value that no person has.
    """
    check_plausible(
        bilirubin_umol_l=(bilirubin_umol_l, "bilirubin in umol/L"),
        albumin_g_l=(albumin_g_l, "albumin in g/L"),
    )
    return 0.66 * log(bilirubin_umol_l) / _LN_10 - 0.085 * albumin_g_l


def albi_grade(score: float) -> int:
    """1 up to -2.60, 2 up to -1.39, 3 above (Johnson 2015, as above)."""
    return 1 if score <= -2.60 else 2 if score <= -1.39 else 3


def _meld(bilirubin: Value, inr: Value, creatinine: Value, dialysis: Mark) -> Value:
    check_plausible(
        bilirubin_mg_dl=(bilirubin, "bilirubin"),
        inr=(inr, _INR),
        creatinine_mg_dl=(creatinine, "creatinine"),
    )
    bounded = at_most(at_least(creatinine, 1.0), 4.0)
    counted = where(as_mark(dialysis, "dialysis"), 4.0 + 0.0 * bounded, bounded)
    score = 0.957 * log(counted) + 0.378 * log(at_least(bilirubin, 1.0)) + 0.643
    return 10.0 * (score + 1.120 * log(at_least(inr, 1.0)))
