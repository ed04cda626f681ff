"""From OMOP concepts to codes, units, comparators and answers.

The standard concept gives the code; where there is none (concept 0, or one that CONCEPT lacks) the
source concept does, and else the source value as a code of this hospital alone. Concept ids of
operators: CDM documentation, table MEASUREMENT.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from fedtwin_client.records.codes.analytes import analyte
from fedtwin_client.records.codes.concepts import standard_code, yes_or_no
from fedtwin_client.records.codes.units import SAME, conversion, normal_unit
from fedtwin_client.records.reading import UnusableError, unit_rule

NO_CONCEPT = "no concept: coded by the source value"
SOURCE_CONCEPT = "no standard concept: coded by the source concept"
NOT_STANDARD = "a concept that is not standard"
NOT_IN_CONCEPT = "a concept that is not in the table concept"
UNIT_NOT_IN_CONCEPT = "a unit's concept that is not in the table concept"
ANSWER_NOT_IN_CONCEPT = "an answer's concept that is not in the table concept"
QUALIFIED = "has a qualifier, which is not read"

_VOCABULARIES = {
    "RxNorm": "RXNORM",
    "ICD10CM": "ICD10",
    "ICD10GM": "ICD10",
    "ICD10CN": "ICD10",
    "ICD9CM": "ICD9",
}
_OPERATORS = {
    "4171754": "<=",
    "4171755": ">=",
    "4171756": "<",
    "4172703": None,
    "4172704": ">",
}
_LONGEST_CODE = 120
_UNFIT = re.compile(r"[^A-Za-z0-9_.\-]+")


class Concept(NamedTuple):
    """A row of the table `concept`."""

    vocabulary: str
    code: str
    standard: bool


class Said(NamedTuple):
    """What the columns of a row say of its meaning, apart from its own values."""

    concept: str | None
    source_concept: str | None
    source_value: str | None
    answer: str | None
    operator: str | None
    unit: str | None
    unit_text: str | None
    qualifier: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Understood:
    """What rows that say the same become.

    Attributes:
        code: of the event; none where there is a reason.
        reason: why such rows make no event.
        number_reason: why such rows make no event if they have a number.
        known: whether the code is one whose unit this node knows, so that text cannot be its value.
        unit: of the number.
        src_unit: the unit as it was written.
        factor: number = written * factor + offset.
        offset: see factor.
        comparator: `<`, `<=`, `>` or `>=`.
        answer: a coded answer.
        answer_number: 1 for yes, 0 for no.
        notes: what is worth a look.
    """

    code: str | None = None
    reason: str | None = None
    number_reason: str | None = None
    known: bool = False
    unit: str | None = None
    src_unit: str | None = None
    factor: float = 1.0
    offset: float = 0.0
    comparator: str | None = None
    answer: str | None = None
    answer_number: float | None = None
    notes: tuple[str, ...] = ()


class Concepts:
    """The concepts that a database uses."""

    def __init__(self, concepts: Mapping[str, Concept], prefix: str = "") -> None:
        """Take the concepts.

        Args:
            concepts: by their id.
            prefix: in place of the vocabulary, for tables whose rows stand for a beginning or end.
        """
        self._concepts = concepts
        self._prefix = prefix

    def prefixed(self, prefix: str) -> "Concepts":
        """The same concepts, whose codes get a prefix of their own."""
        return Concepts(self._concepts, prefix)

    def understand(self, said: Said) -> Understood:
        """What rows that say this become."""
        notes: list[str] = []
        try:
            code = self._code(said, notes)
            answer = self._answer(said.answer, notes)
        except UnusableError as error:
            return Understood(reason=error.reason)
        if present(said.qualifier):
            notes.append(QUALIFIED)
        plain = Understood(
            code=code,
            known=analyte(code) is not None,
            answer=answer,
            answer_number=None if answer is None else yes_or_no(answer),
        )
        try:
            comparator = _comparator(said.operator)
            rule = unit_rule(code, self._unit(said, notes))
        except UnusableError as error:
            return replace(plain, number_reason=error.reason, notes=tuple(notes))
        return replace(
            plain,
            unit=rule.unit,
            src_unit=rule.src_unit,
            factor=rule.convert.factor,
            offset=rule.convert.offset,
            comparator=comparator,
            notes=tuple(notes),
        )

    def _code(self, said: Said, notes: list[str]) -> str:
        found = self._concepts.get(said.concept or "")
        if found is None and present(said.concept):
            notes.append(NOT_IN_CONCEPT)
        if found is not None:
            if not found.standard:
                notes.append(NOT_STANDARD)
            return self._written(found)
        source = self._concepts.get(said.source_concept or "")
        if source is not None and present(said.source_concept):
            notes.append(SOURCE_CONCEPT)
            return self._written(source)
        value = "_".join((said.source_value or "").split())
        if not value:
            raise UnusableError("no code")
        code = f"{self._prefix or 'LOCAL'}//{value}"
        if len(code) > _LONGEST_CODE:
            raise UnusableError("no concept, and a source value that is too long for a code")
        if (standard := standard_code(code)) != code:
            return standard
        notes.append(NO_CONCEPT)
        return code

    def _written(self, concept: Concept) -> str:
        code = "_".join(concept.code.split())
        if self._prefix:
            return f"{self._prefix}//{code}"
        vocabulary = _VOCABULARIES.get(concept.vocabulary, concept.vocabulary)
        return standard_code(f"{_UNFIT.sub('_', vocabulary).strip('_') or 'LOCAL'}//{code}")

    def _answer(self, concept: str | None, notes: list[str]) -> str | None:
        if not present(concept):
            return None
        found = self._concepts.get(concept or "")
        if found is None:
            notes.append(ANSWER_NOT_IN_CONCEPT)
            return None
        return Concepts(self._concepts)._written(found)

    def _unit(self, said: Said, notes: list[str]) -> str | None:
        """The unit's concept if its code is known here, or else what the source wrote."""
        concept = self._concepts.get(said.unit or "") if present(said.unit) else None
        if concept is None and present(said.unit):
            notes.append(UNIT_NOT_IN_CONCEPT)
        code = concept.code if concept is not None and concept.vocabulary == "UCUM" else None
        written = [text.strip() for text in (code, said.unit_text) if text and text.strip()]
        known = [text for text in written if normal_unit(text) is not None]
        normal = [unit for unit in map(normal_unit, known) if unit is not None]
        if len(normal) == 2 and conversion(normal[0], normal[1]) != SAME:
            raise UnusableError("the unit's concept and the unit's source value differ")
        return next(iter(known or written), None)


def present(concept: str | None) -> bool:
    """Whether a column names a concept: 0 means that there is none."""
    return concept is not None and concept != "0"


def _comparator(operator: str | None) -> str | None:
    if not present(operator):
        return None
    if operator not in _OPERATORS:
        raise UnusableError("a comparator that is not known")
    return _OPERATORS[operator]
