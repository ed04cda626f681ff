"""What an import did, and everything it did not use, with the reason and the place.

Three ways to account for something: `skip` (absent or withdrawn: counted), `put_aside` (wrong:
counted and written to the quarantine file), `note` (used, but worth a look). Of a message or a row
each fault is counted by itself, and the whole of it is written once (`whole.Whole`).
"""

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TextIO

from fedtwin_client.at_rest.files import SealedWriter, write_whole
from fedtwin_client.at_rest.keyring import Keyring
from fedtwin_client.records.codes.tables import in_use

EXAMPLES = 3
_RAW_LIMIT = 200_000


class Place(NamedTuple):
    """Where something stands: a file and its line, counted from 1."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """How an import read what it put aside, so that mended lines are read in the same way.

    Attributes:
        kind: of the source.
        source: its name, with which every event's `source` starts.
        zone: of times that name none.
        settings: what the source was opened with besides.
    """

    kind: str
    source: str
    zone: str
    settings: Mapping[str, object]

    def to_text(self) -> str:
        """As JSON; of equal recipes it is equal."""
        value = {
            "kind": self.kind,
            "source": self.source,
            "zone": self.zone,
            "settings": dict(self.settings),
        }
        return json.dumps(value, sort_keys=True)

    @classmethod
    def of(cls, value: Mapping[str, object]) -> "Recipe | None":
        """The recipe in parsed JSON; none if there is none."""
        kind, source, zone = value.get("kind"), value.get("source"), value.get("zone")
        settings = value.get("settings")
        if not (isinstance(kind, str) and isinstance(source, str) and isinstance(zone, str)):
            return None
        return cls(
            kind=kind,
            source=source,
            zone=zone,
            settings=settings if isinstance(settings, dict) else {},
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportReport:
    """The account of one import; it stays at the hospital.

    Attributes:
        origin: what was imported, in words.
        read: resources by type, or rows.
        events: rows that the import put into the store.
        patients: patients it holds events of.
        withdrawn: earlier records that it took out of the store.
        reasons: how often each reason made that something was not used.
        notes: how often something was used that is worth a look.
        examples: a few places for each reason and note.
        quarantine: the file with what was put aside; none if nothing was.
        code_tables: the version of the tables of codes and units that it was read by.
    """

    origin: str
    read: dict[str, int]
    events: int
    patients: int
    withdrawn: int
    reasons: dict[str, int]
    notes: dict[str, int]
    examples: dict[str, tuple[str, ...]]
    quarantine: Path | None
    code_tables: str

    @property
    def unused(self) -> int:
        """How many resources, rows or cells made no event."""
        return sum(self.reasons.values())

    def lines(self) -> list[str]:
        """The report as lines of plain text (print them without markup: units hold brackets)."""
        lines = [f"import of {self.origin}"]
        read = sorted(self.read.items()) or [("resources", 0)]
        lines += [f"  {'read':<14} {count:,} {kind}" for kind, count in read]
        lines.append(f"  {'patients':<14} {self.patients:,}")
        lines.append(f"  {'events':<14} {self.events:,}")
        lines.append(f"  {'code tables':<14} {self.code_tables}")
        if self.withdrawn:
            lines.append(f"  {'withdrawn':<14} {self.withdrawn:,}")
        lines += self._table("not used", self.reasons) + self._table("to know", self.notes)
        if self.quarantine is not None:
            lines.append(f"  {'put aside in':<14} {self.quarantine}")
        return lines

    def _table(self, title: str, counts: dict[str, int]) -> list[str]:
        if not counts:
            return []
        width = min(60, max(len(reason) for reason in counts))
        ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        lines = [f"  {title}"]
        for reason, count in ordered:
            places = ", ".join(self.examples.get(reason, ())[:2])
            lines.append(f"  {count:>8,}  {reason:<{width}}  {places}".rstrip())
        return lines


@dataclass(kw_only=True, slots=True)
class Tally:
    """The running account of an import, with its quarantine file.

    The file is made, readable by its owner alone, when the first thing is put aside; with a keyring
    it is encrypted. Without a file things are only counted. The import's recipe lies beside it.
    """

    quarantine: Path | None
    keyring: Keyring | None = None
    recipe: Recipe | None = None
    read: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
    _names: dict[Path, str] = field(default_factory=dict)
    _file: TextIO | SealedWriter | None = None

    def tell_apart(self, files: Iterable[Path]) -> None:
        """Name files that are called alike with the folders they lie in, as far as they differ."""
        waiting, depth = sorted(set(files)), 1
        while waiting:
            shown = {file: "/".join(file.parts[-depth:]) for file in waiting}
            often = Counter(shown.values())
            self._names |= shown
            waiting = [file for file in waiting if often[shown[file]] > 1]
            depth += 1

    def name_of(self, file: Path) -> str:
        """How a file is called in places."""
        return self._names.get(file, file.name)

    def skip(self, reason: str, place: Place, count: int = 1) -> None:
        """Count something, or so many of it, that made no event though nothing is wrong with it."""
        self.reasons[reason] += count
        self._example(reason, place)

    def note(self, reason: str, place: Place, count: int = 1) -> None:
        """Count something, or so many of it, that was used and is worth a look."""
        self.notes[reason] += count
        self._example(reason, place)

    def put_aside(self, reason: str, place: Place, raw: object) -> None:
        """Count something wrong, and write it to the quarantine file."""
        self.wrong(reason, place)
        self.set_aside([reason], place, raw)

    def wrong(self, reason: str, place: Place) -> None:
        """Count something wrong, which is written to the quarantine file as part of a whole."""
        self.skip(reason, place)

    def set_aside(
        self,
        reasons: Sequence[str],
        place: Place,
        raw: object,
        patient: str | None = None,
        *,
        cut: bool = False,
    ) -> None:
        """Write something to the quarantine file whose faults were counted.

        Args:
            reasons: at least one.
            place: where it stands.
            raw: all of it.
            patient: whose it is, where that was said beside it.
            cut: whether `raw` is only its beginning, which must not be read again as it is.
        """
        if self.quarantine is None:
            return
        if self._file is None:
            self.quarantine.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self.recipe is not None:
                beside = self.quarantine.with_suffix(".json")
                write_whole(beside, self.recipe.to_text().encode(), self.keyring)
            if self.keyring is not None:
                self._file = SealedWriter(self.quarantine, self.keyring)
            else:
                handle = os.open(self.quarantine, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
                self._file = os.fdopen(handle, "w", encoding="utf-8")
        text = raw_text(raw)
        line = {"file": place.file, "line": place.line, "reason": reasons[0], "raw": text}
        if len(reasons) > 1:
            line["also"] = list(reasons[1:])
        if patient is not None:
            line["patient"] = patient
        if cut or len(text) == _RAW_LIMIT:
            line["cut"] = True
        self._file.write(json.dumps(line, ensure_ascii=True) + "\n")

    def commonest(self) -> str:
        """The commonest reasons why things were not used, to end a sentence with."""
        reasons = [f"{reason} ({count})" for reason, count in self.reasons.most_common(3)]
        return f": {', '.join(reasons)}" if reasons else ""

    def close(self) -> None:
        """Finish the quarantine file; it is on the disk on return."""
        if self._file is None:
            return
        try:
            if not isinstance(self._file, SealedWriter) and not self._file.closed:
                self._file.flush()
                os.fsync(self._file.fileno())
        finally:
            self._file.close()

    def discard(self) -> None:
        """Take back the quarantine file: all that was read will be read once more."""
        self.close()
        if self.quarantine is not None:
            for file in (self.quarantine, self.quarantine.with_suffix(".json")):
                file.unlink(missing_ok=True)

    def report(self, *, origin: str, events: int, patients: int, withdrawn: int) -> ImportReport:
        """Close the account.

        Args:
            origin: what was imported, in words.
            events: rows put into the store.
            patients: different patients among them.
            withdrawn: earlier records taken out of the store.
        """
        self.close()
        return ImportReport(
            origin=origin,
            read=dict(self.read),
            events=events,
            patients=patients,
            withdrawn=withdrawn,
            reasons=dict(self.reasons),
            notes=dict(self.notes),
            examples={reason: tuple(places) for reason, places in self.examples.items()},
            quarantine=None if self._file is None else self.quarantine,
            code_tables=in_use().version,
        )

    def _example(self, reason: str, place: Place) -> None:
        places = self.examples.setdefault(reason, [])
        if len(places) < EXAMPLES:
            places.append(str(place))


def raw_text(raw: object) -> str:
    """What was read, as the quarantine keeps it: text, of a limited length."""
    text = raw if isinstance(raw, str) else json.dumps(raw, ensure_ascii=False, default=str)
    return text[:_RAW_LIMIT]
