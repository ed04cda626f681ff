"""What a column's name says: which measure, disease or role, how surely, and in which unit.

A score of 1 is a name that the lexicon has; words that say nothing (`baseline`, `serum`) do not
lower it, words that make it something else (`urine`, `change`, `date`) lower it much.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cache
from typing import Generic, TypeVar

from fedtwin_client.records.codes.units import normal_unit
from fedtwin_client.records.tables.proposals.names import NEUTRAL, TELLTALE

_BRACKETED = re.compile(r"\s*[\[(]\s*([^\[\]()]*(?:[\[(][^\[\]()]*[\])][^\[\]()]*)*)\s*[\])]\s*\Z")
_GAP = re.compile(r"[\s_.,;:-]+(?:in[\s_]+)?")
_SIGN = re.compile(r"[\s_.,;:-]*(°\s?[CFcf]|%)\s*\Z")
_CAMEL = re.compile(r"(?<=[a-zà-ÿ])(?=[A-Z])")
_LETTERS = str.maketrans({"ß": "ss", "\N{MICRO SIGN}": "u", "\N{GREEK SMALL LETTER MU}": "u"})
_WORDS = re.compile(r"[a-z]+\d*[a-z]*|\d+")
_SPELLED = {
    "mgdl": "mg/dL", "mmoll": "mmol/L", "umoll": "umol/L", "gdl": "g/dL", "gl": "g/L",
    "mgl": "mg/L", "ugl": "ug/L", "ugdl": "ug/dL", "nmoll": "nmol/L", "pmoll": "pmol/L",
    "ngml": "ng/mL", "ngl": "ng/L", "pgml": "pg/mL", "iul": "U/L", "ul": "U/L",
    "mmhg": "mm[Hg]", "bpm": "/min", "pct": "%", "percent": "%", "cm": "cm", "kg": "kg",
    "lb": "[lb_av]", "lbs": "[lb_av]", "inch": "[in_i]", "inches": "[in_i]", "degc": "Cel",
    "celsius": "Cel",
    "degf": "[degF]", "fahrenheit": "[degF]", "mmolmol": "mmol/mol", "meql": "meq/L",
    "kgm2": "kg/m2",
}  # fmt: skip

Meant = TypeVar("Meant")


@dataclass(frozen=True, kw_only=True, slots=True)
class Heading:
    """A column's name, taken apart.

    Attributes:
        words: of the name, lower case without accents, without the unit.
        unit: UCUM unit in the name, if it names one that is known.
        written: the unit as it stands there; also one that is not known.
    """

    words: tuple[str, ...]
    unit: str | None
    written: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Match(Generic[Meant]):
    """What a name may mean.

    Attributes:
        meant: the entry of the lexicon.
        score: from 0 to 1.
        why: in words.
    """

    meant: Meant
    score: float
    why: str


def heading_of(name: str) -> Heading:
    """Take a column's name apart: `chol (mg/dL)`, `LDL_mmol_l`, `Größe [cm]`."""
    bracketed = _BRACKETED.search(name)
    if bracketed and bracketed.start() > 0:
        written = bracketed[1].strip()
        unit = normal_unit(written)
        return Heading(words=words_of(name[: bracketed.start()]), unit=unit, written=written)
    sign = _SIGN.search(name)
    if sign and sign.start() > 0:
        unit = normal_unit(sign[1])
        return Heading(words=words_of(name[: sign.start()]), unit=unit, written=sign[1])
    for gap in _GAP.finditer(name):
        written = name[gap.end() :]
        if gap.start() > 0 and "/" in written and (unit := normal_unit(written)) is not None:
            return Heading(words=words_of(name[: gap.start()]), unit=unit, written=written)
    words = words_of(name)
    for length in (3, 2, 1):
        if len(words) > length:
            ending = "".join(words[-length:])
            if ending in _SPELLED and (length > 1 or len(ending) > 1):
                unit = _SPELLED[ending]
                return Heading(words=words[:-length], unit=unit, written=unit)
    return Heading(words=words, unit=None, written=None)


@cache
def words_of(text: str) -> tuple[str, ...]:
    """The words of a name, lower case without accents."""
    apart = _CAMEL.sub(" ", text.strip()).translate(_LETTERS)
    plain = unicodedata.normalize("NFKD", apart).encode("ascii", "ignore").decode().lower()
    return tuple(_WORDS.findall(plain))


def matches(
    words: tuple[str, ...], entries: Iterable[tuple[Meant, tuple[str, ...]]]
) -> Iterator[Match[Meant]]:
    """The entries that a name may mean, in the order of the entries.

    Args:
        words: of the column's name.
        entries: each with its spellings.
    """
    for meant, names in entries:
        best = max((_score(words, words_of(name)) for name in names), default=(0.0, ""))
        if best[0] >= 0.5:
            yield Match(meant=meant, score=best[0], why=best[1])


def name_score(words: tuple[str, ...], names: tuple[str, ...]) -> float:
    """How well a name fits one entry, from 0 to 1."""
    return max((_score(words, words_of(name))[0] for name in names), default=0.0)


def _score(words: tuple[str, ...], name: tuple[str, ...]) -> tuple[float, str]:
    spelled = " ".join(name)
    if not words or not name:
        return 0.0, ""
    joined, wanted = "".join(words), "".join(name)
    if joined == wanted:
        return 1.0, f"the name is '{spelled}'"
    if all(word in words for word in name):
        return _score_with_more(words, name)
    if len(joined) < 5 or len(wanted) < 5:
        return 0.0, ""
    likeness = SequenceMatcher(None, joined, wanted).ratio()
    if likeness >= 0.86:
        return 0.6 * likeness, f"the name is like '{spelled}'"
    return (0.6, f"the name begins '{spelled}'") if wanted.startswith(joined) else (0.0, "")


def _score_with_more(words: tuple[str, ...], name: tuple[str, ...]) -> tuple[float, str]:
    """A name with further words beside it."""
    spelled = " ".join(name)
    extra = [word for word in words if word not in name and word not in NEUTRAL]
    telling = [word for word in extra if word in TELLTALE]
    if telling:
        return 0.3, ""
    short = len("".join(name)) <= 2 and bool(extra)
    score = max(0.5, 0.95 - 0.15 * len(extra)) - (0.3 if short else 0.0)
    beside = f", with '{' '.join(extra)}' beside it" if extra else ""
    return score, f"the name holds '{spelled}'{beside}"
