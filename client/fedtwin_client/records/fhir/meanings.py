"""What texts of FHIR Observations mean under the rules of one import.

Codes, subjects, statuses and units mean what the reader of single resources takes them to mean: its
functions are asked, once for each text however often it comes.
"""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from fedtwin_client.records.blocks import microseconds
from fedtwin_client.records.codes.concepts import codes_of, is_local
from fedtwin_client.records.fhir.observation import PLAIN, comparator_of, read_values, unit_of
from fedtwin_client.records.instants import Instants, read_alike, read_instants
from fedtwin_client.records.reading import OLDEST_YEAR, Reading, UnusableError, unit_rule
from fedtwin_client.records.subjects import Subjects

_MOST_REMEMBERED: Final = 100_000


class Kept(NamedTuple):
    """What a value becomes.

    Attributes:
        code: as the store writes it.
        local: whether it is of no vocabulary that hospitals share.
        factor: what a quantity's number is multiplied with.
        offset: what is added to it then.
        unit: the unit that the code is kept in.
        src_unit: the unit as written.
        comparator: if it is a bound.
        number: of a value that is no quantity.
        text: of a value that is no quantity.
    """

    code: str
    local: bool
    factor: float
    offset: float
    unit: str | None
    src_unit: str | None
    comparator: str | None
    number: float | None = None
    text: str | None = None


class Meanings:
    """What texts mean under the rules of one import; none where a text is out of the ordinary."""

    def __init__(self, reading: Reading, subjects: Subjects) -> None:
        self._reading = reading
        self._subjects = subjects
        self._earliest = _exact(datetime(OLDEST_YEAR, 1, 1, tzinfo=UTC))
        self._latest = _exact(reading.now)
        self._kept: dict[tuple[str | None, ...], Kept | None] = {}
        self._answers: dict[tuple[str | None, ...], Kept | None] = {}
        self._statuses: dict[str, str | None] = {}
        self._subjects_of, self._patients_of = _Pseudonyms(), _Pseudonyms()

    def status(self, text: str | None) -> str | None:
        """A status as events hold it; none where the Observation is out of the ordinary."""
        if text is None:
            return ""
        if text not in self._statuses:
            value = json.loads(text)
            plain = isinstance(value, str) and value in PLAIN
            self._statuses[text] = value if plain else None
        return self._statuses[text]

    def subjects(self, texts: pa.Array) -> tuple[pa.Array, NDArray[np.bool_]]:
        """The pseudonyms behind JSON texts, and where there is nothing else to say about one."""
        return self._subjects_of.ask(texts, self._subject)

    def patients(self, references: pa.Array) -> tuple[pa.Array, NDArray[np.bool_]]:
        """The same for references alone, which hold nothing that JSON writes otherwise."""
        return self._patients_of.ask(
            references, lambda one: self._subject(f'{{"reference":"{one}"}}')
        )

    def _subject(self, text: str) -> int | None:
        try:
            return self._subjects.of(_strict(text))
        except (UnusableError, ValueError, RecursionError):
            return None

    def instants(self, texts: pa.Array) -> Instants:
        """Times, as the rules of reading have them."""
        return read_instants(texts, self._earliest, self._latest, self._instant)

    def instants_alike(self, texts: NDArray[np.uint8]) -> Instants:
        """Times, as rows of bytes without quotation marks."""
        return read_alike(texts, self._earliest, self._latest, self._instant)

    def _instant(self, text: str) -> tuple[int, int] | None:
        try:
            moment = self._reading.moment(_strict(text))
        except (UnusableError, ValueError, RecursionError):
            return None
        return _exact(moment.start), _exact(moment.known)

    def kept(
        self, code: str | None, unit: str | None, unit_code: str | None, comparator: str | None
    ) -> Kept | None:
        """What numbers with these JSON texts beside them become; none where it is an odd case."""
        asked = (code, unit, unit_code, comparator)
        if asked not in self._kept:
            self._kept[asked] = self._keep(*asked)
        return self._kept[asked]

    def _keep(
        self, code: str | None, unit: str | None, unit_code: str | None, comparator: str | None
    ) -> Kept | None:
        try:
            codes = codes_of(None if code is None else _strict(code))
            members = {"unit": unit, "code": unit_code, "comparator": comparator}
            quantity = {name: _strict(text) for name, text in members.items() if text is not None}
            bound = comparator_of(quantity)
            kept = unit_rule(codes[0], unit_of(quantity))
        except (UnusableError, IndexError, ValueError, RecursionError):
            return None
        return Kept(
            code=codes[0],
            local=is_local(codes[0]),
            factor=kept.convert.factor,
            offset=kept.convert.offset,
            unit=kept.unit,
            src_unit=kept.src_unit,
            comparator=bound,
        )

    def answered(self, code: str | None, answer: str) -> Kept | None:
        """What a value becomes that is no quantity; none where it is an odd case.

        Args:
            code: the JSON text of what is asked.
            answer: of a member with its name; empty for none at all.
        """
        asked = (code, answer)
        if asked not in self._answers:
            if len(self._answers) > _MOST_REMEMBERED:
                self._answers.clear()
            self._answers[asked] = self._answer(*asked)
        return self._answers[asked]

    def _answer(self, code: str | None, answer: str) -> Kept | None:
        try:
            codes = codes_of(None if code is None else _strict(code))
            found = read_values(_strict(f"{{{answer}}}"), codes[0], self._reading, whole=True)
        except (UnusableError, IndexError, ValueError, RecursionError):
            return None
        if len(found) != 1:
            return None
        return Kept(
            code=codes[0],
            local=is_local(codes[0]),
            factor=1.0,
            offset=0.0,
            unit=found[0].unit,
            src_unit=found[0].src_unit,
            comparator=found[0].comparator,
            number=found[0].number,
            text=found[0].text,
        )

    @property
    def source(self) -> str:
        """The name of the source."""
        return self._reading.source


class _Pseudonyms:
    """What texts lead to, each asked for once as long as they are not very many."""

    def __init__(self) -> None:
        self._texts = pa.array([], type=pa.string())
        self._found = pa.array([], type=pa.int64())

    def ask(
        self, texts: pa.Array, look_up: Callable[[str], int | None]
    ) -> tuple[pa.Array, NDArray[np.bool_]]:
        """The pseudonym of each text, and where there is one."""
        known = pc.index_in(texts, self._texts)
        if known.null_count:
            unknown = pc.unique(texts.filter(pc.is_null(known)))
            if len(self._texts) > _MOST_REMEMBERED:
                self._texts, self._found = self._texts[:0], self._found[:0]
                unknown = pc.unique(texts)
            fresh = unknown.drop_null()
            found = pa.array([look_up(text) for text in fresh.to_pylist()], pa.int64())
            self._texts = pa.concat_arrays([self._texts, fresh])
            self._found = pa.concat_arrays([self._found, found])
            known = pc.index_in(texts, self._texts)
        subjects = self._found.take(known)
        return subjects, np.asarray(subjects.is_valid())


def _exact(time: datetime) -> int:
    found = microseconds(time)
    assert found is not None
    return found


def _refuse(constant: str) -> float:
    raise ValueError(constant)


_strict: Final = json.JSONDecoder(parse_constant=_refuse).decode
