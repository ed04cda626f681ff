"""Whether the codes of an import are among those of the vocabularies that the site has loaded."""

from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from fedtwin_client.records.report import Tally
from fedtwin_client.records.vocabularies import editions, look_up


class CodeCheck:
    """Gathers over one import; codes of vocabularies that are not loaded are passed over.

    Args:
        store: the timeline store's folder.
    """

    def __init__(self, store: Path) -> None:
        self._store = store
        self._loaded: dict[str, list[str]] = {}
        for edition in editions(store):
            self._loaded.setdefault(edition.vocabulary, []).append(edition.name)
        self._counts: Counter[str] = Counter()

    def see(self, events: pa.Table) -> None:
        """Count the codes of events."""
        if not self._loaded:
            return
        for pair in pc.value_counts(events["code"].combine_chunks()).to_pylist():
            if pair["values"].partition("//")[0] in self._loaded:
                self._counts[pair["values"]] += pair["counts"]

    def tell(self, tally: Tally) -> None:
        """Put codes that are not there, or no longer, among the notes of an import."""
        for code, entries in look_up(self._store, sorted(self._counts)).items():
            if any(entry.active for entry in entries):
                continue
            vocabulary = code.partition("//")[0]
            fault = "is no longer active in" if entries else "is not in"
            note = f"a code that {fault} {vocabulary} ({', '.join(self._loaded[vocabulary])})"
            tally.notes[note] += self._counts[code]
            examples = tally.examples.setdefault(note, [])
            if len(examples) < 3:
                examples.append(code)
