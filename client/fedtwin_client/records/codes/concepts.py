"""From a FHIR CodeableConcept to codes of the form `<VOCABULARY>//<code>`.

The systems' addresses are those of the HL7 terminology pages (terminology.hl7.org) and FHIR R4
section 4.3; ICD-10 and its clinical modifications share one prefix. A code of another system is
written with that system's address, so that two hospitals' local codes are never taken for one.
What the site's own table says that a code stands for is put in its place before anything else.
"""

import re
from collections.abc import Iterable
from typing import Any

from fedtwin_client.records.codes.tables import in_use

VOCABULARIES = {
    "http://loinc.org": "LOINC",
    "urn:oid:2.16.840.1.113883.6.1": "LOINC",
    "http://snomed.info/sct": "SNOMED",
    "urn:oid:2.16.840.1.113883.6.96": "SNOMED",
    "http://www.nlm.nih.gov/research/umls/rxnorm": "RXNORM",
    "urn:oid:2.16.840.1.113883.6.88": "RXNORM",
    "http://www.whocc.no/atc": "ATC",
    "http://fhir.de/CodeSystem/bfarm/atc": "ATC",
    "http://hl7.org/fhir/sid/icd-10": "ICD10",
    "http://hl7.org/fhir/sid/icd-10-cm": "ICD10",
    "http://hl7.org/fhir/sid/icd-10-de": "ICD10",
    "http://fhir.de/CodeSystem/bfarm/icd-10-gm": "ICD10",
    "urn:oid:2.16.840.1.113883.6.90": "ICD10",
    "http://hl7.org/fhir/sid/icd-9-cm": "ICD9",
    "http://hl7.org/fhir/sid/ndc": "NDC",
    "http://hl7.org/fhir/sid/cvx": "CVX",
    "http://www.ama-assn.org/go/cpt": "CPT4",
    "http://www.cms.gov/Medicare/Coding/HCPCSReleaseCodeSets": "HCPCS",
    "http://hl7.org/fhir/sid/icd-10-pcs": "ICD10PCS",
    "http://www.cms.gov/Medicare/Coding/ICD10": "ICD10PCS",
    "http://fhir.de/CodeSystem/bfarm/ops": "OPS",
    # As Germany's were called until 2020, and as documents (CDA) and what is made of them have it.
    "http://fhir.de/CodeSystem/dimdi/atc": "ATC",
    "http://fhir.de/CodeSystem/dimdi/icd-10-gm": "ICD10",
    "http://fhir.de/CodeSystem/dimdi/ops": "OPS",
    "urn:oid:2.16.840.1.113883.6.3": "ICD10",
    "urn:oid:2.16.840.1.113883.6.4": "ICD10PCS",
    "urn:oid:2.16.840.1.113883.6.12": "CPT4",
    "urn:oid:2.16.840.1.113883.6.69": "NDC",
    "urn:oid:2.16.840.1.113883.6.73": "ATC",
    "urn:oid:2.16.840.1.113883.6.103": "ICD9",
    "urn:oid:2.16.840.1.113883.6.285": "HCPCS",
    "urn:oid:2.16.840.1.113883.12.292": "CVX",
}
_EDITION = re.compile(r"http://snomed\.info/sct/\d+(?:/version/\d+)?\Z")
_SHARED = frozenset(VOCABULARIES.values())
PRIORITY = ("LOINC", "SNOMED", "RXNORM", "ATC", "ICD10")

# SNOMED CT qualifiers, LOINC answers and HL7 table 0136 for yes and no.
_YES = {"SNOMED//373066001", "LOINC//LA33-6", "terminology.hl7.org_CodeSystem_v2-0136//Y"}
_NO = {"SNOMED//373067005", "LOINC//LA32-8", "terminology.hl7.org_CodeSystem_v2-0136//N"}
_UNFIT = re.compile(r"[^A-Za-z0-9_.\-]+")


def codes_of(concept: Any) -> list[str]:
    """All codes of a concept, best vocabulary first; the first coding of each vocabulary.

    Args:
        concept: a FHIR CodeableConcept as parsed JSON; anything else has no codes.
    """
    if not isinstance(concept, dict) or not isinstance(concept.get("coding"), list):
        return []
    codes = [code for coding in concept["coding"] if (code := _code(coding)) is not None]
    return sorted(standard_codes(codes), key=_rank)


def standard_codes(codes: Iterable[str]) -> Iterable[str]:
    """The codes of one thing, as the site's table has them; the first of each vocabulary.

    What the record itself says in a vocabulary comes before what an alias says.
    """
    aliases = in_use().aliases
    if aliases:
        codes = [standard_code(code) for code in sorted(codes, key=lambda one: one in aliases)]
    found: dict[str, str] = {}
    for code in codes:
        found.setdefault(code.partition("//")[0], code)
    return found.values()


def standard_code(code: str) -> str:
    """The code that the site's table says a code stands for; itself where it says nothing.

    Every code that does not come from `codes_of` goes through here before it is used.
    """
    return in_use().standard(code)


def is_local(code: str) -> bool:
    """Whether a code is of no vocabulary that hospitals share."""
    return code.partition("//")[0] not in _SHARED


def yes_or_no(code: str) -> float | None:
    """1 or 0 if a coded answer says yes or no."""
    if code in _YES:
        return 1.0
    return 0.0 if code in _NO else None


def _rank(code: str) -> int:
    vocabulary = code.partition("//")[0]
    return PRIORITY.index(vocabulary) if vocabulary in PRIORITY else len(PRIORITY)


def _code(coding: Any) -> str | None:
    if not isinstance(coding, dict) or not isinstance(coding.get("code"), str):
        return None
    code = "_".join(coding["code"].split())
    system = coding.get("system")
    if not code:
        return None
    if not isinstance(system, str) or not system:
        return f"LOCAL//{code}"
    own = _UNFIT.sub("_", system.partition("://")[2] or system).strip("_")
    return f"{_vocabulary(system) or own}//{code}"


def _vocabulary(system: str) -> str | None:
    """The vocabulary at an address, also with https, a version or an edition behind it."""
    if (known := VOCABULARIES.get(system)) is not None:
        return known
    plain = system.partition("|")[0].rstrip("/")
    if plain.startswith("https://"):
        plain = f"http{plain.removeprefix('https')}"
    return "SNOMED" if _EDITION.match(plain) else VOCABULARIES.get(plain)
