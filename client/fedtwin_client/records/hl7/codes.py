"""From HL7 v2 coded elements (CE, CWE, CNE) to codes of the form `<VOCABULARY>//<code>`.

The names of coding systems are those of HL7 table 0396 and the spellings that senders use beside
it. A code of a system of the hospital's own, or of none that is named, belongs to the application
that sent it: `<system>@<application>//<code>`, so that two laboratories' codes do not meet.
"""

import re
from functools import lru_cache
from typing import NamedTuple

from fedtwin_client.records.codes.concepts import PRIORITY, standard_codes
from fedtwin_client.records.codes.tables import in_use
from fedtwin_client.records.hl7.text import Marks, part

_SYSTEMS = {
    "LOINC": "LN LOINC LNC 2.16.840.1.113883.6.1",
    "SNOMED": "SCT SNOMED SNOMEDCT SNOMED-CT SCT2 2.16.840.1.113883.6.96",
    "RXNORM": "RXNORM RXN RXNORM-CUI 2.16.840.1.113883.6.88",
    "ATC": "ATC WHOATC WC 2.16.840.1.113883.6.73",
    "ICD10": "I10 I10C ICD10 ICD-10 ICD10CM ICD-10-CM I10CM ICD10GM I10G"
    " 2.16.840.1.113883.6.90 2.16.840.1.113883.6.3",
    "ICD9": "I9 I9C I9CDX ICD9 ICD-9 ICD9CM ICD-9-CM 2.16.840.1.113883.6.103",
    "NDC": "NDC 2.16.840.1.113883.6.69",
    "CVX": "CVX 2.16.840.1.113883.12.292",
}
_NAMES = {name: vocabulary for vocabulary, names in _SYSTEMS.items() for name in names.split()}
# ICD-10-PCS and ICD-9 procedures are not diagnoses, and do not share a prefix with them.
_NAMES |= {"I10P": "ICD10PCS", "I9CP": "ICD9PROC"}
_SHARED = frozenset(_NAMES.values())
_NAME_OF_SYSTEM = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,39}\Z")
_HL7_TABLE = re.compile(r"HL7(\d{4})\Z")
_LONGEST = 2_000
_LIKE_LOINC = re.compile(r"\d{1,5}-\d\Z")


class Coded(NamedTuple):
    """A coded element.

    Attributes:
        codes: best vocabulary first.
        text: in words; empty if there are none.
        unnamed: whether a code looks like LOINC's but names no coding system.
    """

    codes: tuple[str, ...]
    text: str
    unnamed: bool = False

    @property
    def shared(self) -> tuple[str, ...]:
        """The codes of vocabularies that hospitals share."""
        return tuple(code for code in self.codes if code.partition("//")[0] in _SHARED)


def is_local(code: str) -> bool:
    """Whether a code is of no vocabulary that hospitals share."""
    return code.partition("//")[0] not in _SHARED


def read_coded(repetition: str, marks: Marks, sender: str) -> Coded:
    """All codes of a coded element: its own, the alternate, and the second alternate (2.7).

    Args:
        repetition: as written; longer than any code can be, it holds none.
        marks: the message's delimiters.
        sender: the application that sent it.
    """
    if len(repetition) > _LONGEST:
        return Coded((), part(repetition, 2, marks))
    return _standard(repetition, marks, sender, in_use().version)


@lru_cache(maxsize=16_384)
def _standard(repetition: str, marks: Marks, sender: str, tables: str) -> Coded:
    """Remembered by the version of the tables, for the site may read codes as others."""
    del tables
    coded = _coded(repetition, marks, sender)
    codes = tuple(sorted(standard_codes(coded.codes), key=_rank))
    return coded if codes == coded.codes else coded._replace(codes=codes, unnamed=False)


def _coded(repetition: str, marks: Marks, sender: str) -> Coded:
    found: dict[str, str] = {}
    unnamed = False
    for first in (1, 4, 10):
        code = "_".join(part(repetition, first, marks).split())
        if not code:
            continue
        system = part(repetition, first + 2, marks)
        vocabulary = _vocabulary(system, sender)
        unnamed |= vocabulary not in _SHARED and bool(_LIKE_LOINC.match(code))
        found.setdefault(vocabulary, f"{vocabulary}//{code}")
    texts = (part(repetition, number, marks) for number in (2, 9, 5))
    text = next((words for words in texts if words), "")
    return Coded(tuple(sorted(found.values(), key=_rank)), text, unnamed)


def _vocabulary(system: str, sender: str) -> str:
    known = _NAMES.get(system.upper())
    if known is not None:
        return known
    if _HL7_TABLE.match(system):
        return system
    local = system if _NAME_OF_SYSTEM.match(system) and system.upper() != "L" else "LOCAL"
    return f"{local}@{sender}" if sender else local


def _rank(code: str) -> int:
    vocabulary = code.partition("//")[0]
    if vocabulary in PRIORITY:
        return PRIORITY.index(vocabulary)
    return len(PRIORITY) + (vocabulary not in _SHARED)
