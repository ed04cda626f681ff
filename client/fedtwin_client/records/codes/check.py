"""Whether codes are among those of the vocabularies that the site has loaded.

LOINC's carry a check digit, so those are looked at where no LOINC is loaded, too.

An import gathers and looks them up at its end; a door asks for each code once, and again after the
vocabularies have changed.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from fedtwin_client.records.codes.rows import may_be_loinc
from fedtwin_client.records.codes.vocabularies import Entry, editions, look_up, vocabulary_file
from fedtwin_client.records.report import Tally
from fedtwin_protocol.errors import RecordError

_NOT_CHECKED: Final = "codes that were not checked: the loaded vocabularies cannot be read"
_LOINC: Final = "LOINC"
_NO_LOINC: Final = "a code that says it is LOINC's and cannot be: its form or check digit is wrong"
_MOST_REMEMBERED: Final = 100_000


class CodeCheck:
    """Gathers over one import; codes of vocabularies that are not loaded are passed over.

    Args:
        store: the timeline store's folder.
    """

    def __init__(self, store: Path) -> None:
        self._store = store
        self._loaded = _loaded(store)
        self._counts: Counter[str] = Counter()

    def see(self, events: pa.Table) -> None:
        """Count the codes of events."""
        for pair in pc.value_counts(events["code"].combine_chunks()).to_pylist():
            vocabulary = pair["values"].partition("//")[0]
            if vocabulary in self._loaded or vocabulary == _LOINC:
                self._counts[pair["values"]] += pair["counts"]

    def tell(self, tally: Tally) -> None:
        """Put codes that are not there, or no longer, among the notes of an import."""
        looked_up = look_up(self._store, sorted(self._counts)) if self._loaded else {}
        for code in sorted(self._counts):
            note = _fault(code, looked_up.get(code, ()), self._loaded)
            if note is None:
                continue
            tally.notes[note] += self._counts[code]
            examples = tally.examples.setdefault(note, [])
            if len(examples) < 3:
                examples.append(code)


class CodeWatch:
    """Looks codes up as they come, and sees when other vocabularies are loaded.

    Args:
        store: the timeline store's folder.
    """

    def __init__(self, store: Path) -> None:
        self._store = store
        self._file = vocabulary_file(store)
        self._mark: tuple[int, ...] | None = None
        self._loaded: dict[str, list[str]] = {}
        self._known: dict[str, str | None] = {}

    def faults(self, codes: Iterable[str]) -> list[str]:
        """What is wrong with codes, in words, for each that is not there, or no longer.

        Vocabularies that cannot be read stop no record: that is said instead.
        """
        codes = list(codes)
        try:
            self._reread()
            fresh = {
                code
                for code in codes
                if code not in self._known and code.partition("//")[0] in {*self._loaded, _LOINC}
            }
            looked_up = look_up(self._store, fresh) if fresh and self._loaded else {}
            for code in fresh:
                self._known[code] = _fault(code, looked_up.get(code, ()), self._loaded)
        except RecordError:
            self._mark = None
            return [_NOT_CHECKED] if codes else []
        found = (self._known.get(code) for code in codes)
        return [fault for fault in found if fault is not None]

    def _reread(self) -> None:
        mark = _mark_of(self._file)
        if mark != self._mark or len(self._known) > _MOST_REMEMBERED:
            self._known = {}
            self._loaded = _loaded(self._store)
            self._mark = mark


def _mark_of(file: Path) -> tuple[int, ...]:
    """Changes when the file does."""
    try:
        stat = file.stat()
    except OSError:
        return ()
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def _loaded(store: Path) -> dict[str, list[str]]:
    """The editions of each vocabulary."""
    found: dict[str, list[str]] = {}
    for edition in editions(store):
        found.setdefault(edition.vocabulary, []).append(edition.name)
    return found


def _fault(code: str, entries: Sequence[Entry], loaded: Mapping[str, Sequence[str]]) -> str | None:
    vocabulary = code.partition("//")[0]
    if vocabulary not in loaded:
        return None if may_be_loinc(code) else _NO_LOINC
    if any(entry.active for entry in entries):
        return None
    fault = "is no longer active in" if entries else "is not in"
    return f"a code that {fault} {vocabulary} ({', '.join(loaded[vocabulary])})"
