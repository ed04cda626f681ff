"""What a row of a table says of a gene's result: phenotypes, or a range of activity scores.

`Poor Metabolizer|Likely Poor Metabolizer` is any of the two; `score 0..0.5` is a score from 0 to
0.5 with both ends, `score 2.5..` one from 2.5 on, `score 1` that score alone.
"""

import re
from dataclasses import dataclass
from typing import Final

from fedtwin_twins.pharmacology.gene_results import GeneResult

_SCORE: Final = re.compile(r"score (?P<low>\d+(\.\d+)?)(?P<range>\.\.(?P<high>\d+(\.\d+)?)?)?\Z")


@dataclass(frozen=True, slots=True)
class ResultPattern:
    """Results that a row is for.

    Attributes:
        phenotypes: any of these; empty where the score decides.
        scores: lowest and highest, both inclusive; none where the phenotype decides.
    """

    phenotypes: frozenset[str]
    scores: tuple[float, float] | None = None

    def holds(self, result: GeneResult) -> bool:
        """Whether a result is one of them."""
        if self.scores is None:
            return result.phenotype in self.phenotypes
        if result.activity_score is None:
            return False
        low, high = self.scores
        if result.at_least and high != float("inf"):
            return False
        return low <= result.activity_score <= high

    def overlaps(self, other: "ResultPattern") -> bool:
        """Whether a result could be in both; a phenotype and a score are not compared."""
        if self.scores is None or other.scores is None:
            return bool(self.phenotypes & other.phenotypes)
        return self.scores[0] <= other.scores[1] and other.scores[0] <= self.scores[1]


def parse_pattern(text: str) -> ResultPattern:
    """Read a cell.

    Raises:
        ValueError: it is no pattern.
    """
    if not text.startswith("score"):
        names = [name.strip() for name in text.split("|")]
        if not all(names):
            raise ValueError("expected phenotypes with '|' between them")
        return ResultPattern(frozenset(names))
    match = _SCORE.match(text)
    if match is None:
        raise ValueError("expected 'score 1', 'score 0..0.5' or 'score 2.5..'")
    low = float(match["low"])
    high = low if match["range"] is None else float(match["high"] or "inf")
    if high < low:
        raise ValueError("expected the lower score first")
    return ResultPattern(frozenset(), (low, high))
