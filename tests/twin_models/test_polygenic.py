"""Polygenic scores: the published cases, strands, missing and third alleles."""

import json

import pytest

from fedtwin_twins.genes.polygenic import (
    Palindromes,
    RunningScore,
    ScoreVariant,
    UnmatchedError,
    copies_of_effect,
)

from .genes import SHARED

CASES = SHARED / "cases" / "risk" / "pgs.json"


def additive(weight: float) -> tuple[float, float, float]:
    return 0.0, weight, 2 * weight


@pytest.mark.skipif(not CASES.exists(), reason="the shared cases are not here")
def test_published_cases() -> None:
    book = json.loads(CASES.read_text())
    variants = [
        ScoreVariant(v["effect_allele"], v["other_allele"], additive(float(v["effect_weight"])))
        for v in book["variants"]
    ]
    for case in book["cases"]:
        total = RunningScore()
        for number, (variant, seen) in enumerate(
            zip(variants, case["input"]["genotypes"], strict=True)
        ):
            if seen["gt"] is None:
                continue
            copies = {seen["ref"]: 2 - seen["gt"], seen["alt"]: seen["gt"]}
            total.add(number, variant, copies_of_effect(variant, copies, Palindromes.KEEP))
        expected = case["expected"]
        assert total.total == pytest.approx(expected["sum"], abs=case["tol"])
        assert total.matched == expected["matched"]
        assert len(variants) - total.matched == expected["missing"]
        assert total.palindromic == expected["palindromic_kept"]


@pytest.mark.parametrize(
    ("copies", "count", "flipped"),
    [
        ({"C": 0, "T": 2}, 2, False),
        ({"T": 1, "C": 1}, 1, False),
        ({"G": 1, "A": 1}, 1, True),
        ({"C": 2}, 0, False),  # a line without alternatives
        ({"T": 2}, 2, False),
        ({"A": 2}, 2, True),
        ({"C": 1, "T": 1, "G": 0}, 1, False),
    ],
)
def test_the_effect_allele_is_found_on_either_side_and_strand(
    copies: dict[str, int], count: int, flipped: bool
) -> None:
    found = copies_of_effect(ScoreVariant("T", "C", additive(1)), copies, Palindromes.DROP)
    assert (found.count, found.flipped) == (count, flipped)


@pytest.mark.parametrize(
    ("effect", "other", "copies", "says"),
    [
        ("T", "C", {"T": 1, "G": 1}, "other alleles"),
        ("T", "C", {"T": 1, "C": 0, "G": 1}, "third allele"),
        ("A", "T", {"A": 1, "T": 1}, "both strands"),
        ("A", None, {"A": 1, "T": 1}, "does not name the other"),
        ("A", None, {"C": 1, "G": 1}, "other alleles"),
    ],
)
def test_what_is_not_clear_is_left_out(
    effect: str, other: str | None, copies: dict[str, int], says: str
) -> None:
    with pytest.raises(UnmatchedError, match=says):
        copies_of_effect(ScoreVariant(effect, other, additive(1)), copies, Palindromes.DROP)


@pytest.mark.parametrize(
    ("here", "there", "count"),
    [(0.1, 0.2, 0), (0.9, 0.2, 2), (0.45, 0.2, None), (0.2, 0.52, None), (None, 0.2, None)],
)
def test_frequencies_tell_the_strand_of_a_palindrome(
    here: float | None, there: float, count: int | None
) -> None:
    variant = ScoreVariant("A", "T", additive(1), there)
    copies = {"A": 0, "T": 2}
    frequencies = None if here is None else {"A": here, "T": 1 - here}
    if count is None:
        with pytest.raises(UnmatchedError, match="both strands"):
            copies_of_effect(variant, copies, Palindromes.FREQUENCY, frequencies)
        return
    found = copies_of_effect(variant, copies, Palindromes.FREQUENCY, frequencies)
    assert (found.count, found.palindromic) == (count, True)


def test_a_variant_counts_once() -> None:
    total = RunningScore()
    variant = ScoreVariant("A", "G", (0.0, 0.5, 0.5))
    for _ in range(2):
        total.add(3, variant, copies_of_effect(variant, {"A": 2, "G": 0}, Palindromes.DROP))
    assert (total.total, total.matched, total.size) == (0.5, 1, 0.5)
