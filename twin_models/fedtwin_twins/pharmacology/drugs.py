"""Names of drugs and their codes, so that tables and records speak of the same one."""

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from typing import Final

from fedtwin_twins.pharmacology.tables import Verified, built_in_text, read_table
from fedtwin_twins.twin.refusals import Problem, Refusal

FORMAT: Final = "fedtwin-drugs/1"
_COLUMNS: Final = ("name", "rxnorm", "atc", "verified", "synonyms")


@dataclass(frozen=True, kw_only=True, slots=True)
class Drug:
    """A drug's ingredient, or a fixed pair of them.

    Attributes:
        name: international non-proprietary name, as tables write it.
        rxnorm: ingredient code; empty where it has none.
        atc: code; empty where none is carried.
        verified: how far the RxNorm code was checked.
        synonyms: other names that are understood.
    """

    name: str
    rxnorm: str
    atc: str
    verified: Verified
    synonyms: tuple[str, ...]


def parse_drugs(text: str, where: str) -> Mapping[str, Drug]:
    """Drugs by every name and code that is understood, in lower case.

    Raises:
        Refusal: the table is damaged, or two drugs have one name or code.
    """
    _, rows = read_table(text, where, FORMAT, _COLUMNS)
    found: dict[str, Drug] = {}
    for row in rows:
        drug = Drug(
            name=row.needed("name"),
            rxnorm=row.text("rxnorm"),
            atc=row.text("atc"),
            verified=row.verified(),
            synonyms=tuple(filter(None, row.text("synonyms").split("|"))),
        )
        codes = (f"rxnorm:{drug.rxnorm}" * bool(drug.rxnorm), f"atc:{drug.atc}" * bool(drug.atc))
        for key in filter(None, (drug.name, *drug.synonyms, *codes)):
            if found.setdefault(key.lower(), drug) is not drug:
                raise row.refusal("name", f"'{key}' once alone, for one drug")
    return found


@cache
def built_in_drugs() -> Mapping[str, Drug]:
    """The drugs that the tables of this package speak of."""
    return parse_drugs(built_in_text("drugs.csv"), "drugs.csv")


def find_drug(name: str, drugs: Mapping[str, Drug] | None = None) -> Drug:
    """A drug by name, synonym, or code (`RxNorm:42316`, `ATC:L04AD02`); case does not matter.

    Raises:
        Refusal: no table speaks of it; names what looks alike.
    """
    known = built_in_drugs() if drugs is None else drugs
    drug = known.get(name.strip().lower())
    if drug is None:
        alike = get_close_matches(name.strip().lower(), known, n=3)
        hint = f"did you mean {' or '.join(known[key].name for key in alike)}?" if alike else ""
        raise Refusal(
            Problem(
                field="drug",
                value=name or "empty",
                allowed="a drug that the tables speak of, by international name or RxNorm code",
                remedy=hint or "nothing is known here of other drugs, for good or bad",
            )
        )
    return drug
