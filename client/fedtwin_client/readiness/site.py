"""The timelines as a whole: codes that no shared vocabulary has, and what was put aside."""

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Final

import numpy as np

from fedtwin_client.at_rest.files import is_sealed, read_sealed
from fedtwin_client.at_rest.keyring import Keyring
from fedtwin_client.cohort.times import stored_codes
from fedtwin_client.readiness.counts import CodeCount, SiteCounts
from fedtwin_client.records.codes.concepts import is_local
from fedtwin_client.records.events import BIRTH, DEATH, SEX
from fedtwin_client.store.pieces import NEVER, Piece
from fedtwin_client.store.tail import FILE, Tail
from fedtwin_client.store.timeline import Timeline
from fedtwin_protocol.study import StudyPlan

NAMED_FROM: Final = 10
"""A local code of fewer patients may itself say who they are, and is not named."""
_COMMONEST: Final = 20
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_QUOTED: Final = re.compile(r"'[^']*'|\"[^\"]*\"|\d{4,}")
# As `records.reading` words them.
_UNIT: Final = re.compile(
    r"no unit for (.+), which is kept in |is not known for (.+)$|does not fit (.+), kept in "
)


class SiteTally:
    """The timelines as a whole, counted in one piece of the store after another.

    Attributes:
        newest: when the newest event up to now happened, microseconds; none: there is none.
    """

    def __init__(self, plan: StudyPlan, now: int) -> None:
        """Start with nothing.

        Args:
            plan: the codes that it asks for are mapped, whatever their vocabulary.
            now: microseconds since 1970.
        """
        self.newest: int | None = None
        self._asked, self._now = set(asked_codes(plan)), now
        self._subjects = 0
        self._codes: Counter[str] = Counter()
        self._subjects_of: Counter[str] = Counter()

    def add(self, piece: Piece) -> None:
        """Count a piece."""
        self._subjects += len(piece.subjects)
        past = piece.time.max(initial=-NEVER)
        if past > self._now:
            past = piece.time[piece.time <= self._now].max(initial=-NEVER)
        if past != -NEVER:
            self.newest = int(past) if self.newest is None else max(int(past), self.newest)
        names, code = piece.coded("code")
        numbers = np.bincount(code, minlength=len(names)).tolist()
        counted = list(zip(names, numbers, strict=True))
        self._codes.update({name: number for name, number in counted if number})
        local = np.array([number > 0 and self._is_unmapped(n) for n, number in counted], np.bool_)
        if local.any():
            rows = np.flatnonzero(local[code])
            pairs = np.unique(piece.owner[rows].astype(np.int64) * len(names) + code[rows])
            own = np.bincount(pairs % len(names), minlength=len(names)).tolist()
            self._subjects_of.update(
                {name: number for name, number in zip(names, own, strict=True) if number}
            )

    def counts(self, timeline: Timeline) -> SiteCounts:
        """What was counted, and what imports and doors put aside.

        Args:
            timeline: that was counted.
        """
        coded = {n: number for n, number in self._codes.items() if n not in {BIRTH, DEATH, SEX}}
        unmapped = {code: number for code, number in coded.items() if self._is_unmapped(code)}
        common = sorted(unmapped, key=lambda code: (-unmapped[code], code))
        named = [code for code in common if self._subjects_of[code] >= NAMED_FROM][:_COMMONEST]
        unused = _unused(timeline)
        newest = None if self.newest is None else _EPOCH + timedelta(microseconds=self.newest)
        return SiteCounts(
            rows=self._codes.total(),
            subjects=self._subjects,
            newest=newest,
            coded=sum(coded.values()),
            unmapped=sum(unmapped.values()),
            commonest=tuple(
                CodeCount(code=code, rows=unmapped[code], subjects=self._subjects_of[code])
                for code in named
            ),
            put_aside=dict(unused.put_aside),
            refused_units=dict(unused.units),
            doors=dict(unused.doors),
        )

    def _is_unmapped(self, code: str) -> bool:
        return is_local(code) and code not in self._asked and code not in {BIRTH, DEATH, SEX}


def asked_codes(plan: StudyPlan) -> list[str]:
    """Every code that a plan reads, as the store writes them."""
    cohort = plan.cohort
    codes = [code for feature in plan.features for code in feature.codes]
    codes += [*cohort.index.codes, *cohort.require_codes, *cohort.exclude_codes]
    codes += plan.endpoint.codes
    codes += [word.code for word in plan.sequence.vocabulary] if plan.sequence else []
    return stored_codes(tuple(codes))


@dataclass(kw_only=True, slots=True)
class _Unused:
    """What made no event; a record that is put aside again for the same reason counts once."""

    put_aside: Counter[str] = field(default_factory=Counter)
    units: Counter[str] = field(default_factory=Counter)
    doors: Counter[str] = field(default_factory=Counter)
    seen: set[bytes] = field(default_factory=set)

    def add_all(self, reasons: Sequence[str], raw: str) -> None:
        """Count something that was put aside, for each of its reasons."""
        before: Counter[str] = Counter()
        for reason in reasons:
            self._add(reason, raw, before[reason])
            before[reason] += 1

    def _add(self, reason: str, raw: str, before: int) -> None:
        said = f"{reason}\0{before or ''}{raw}"
        key = sha256(said.encode(errors="surrogatepass")).digest()[:16]
        if key in self.seen:
            return
        self.seen.add(key)
        self.put_aside[bare(reason)] += 1
        found = _UNIT.search(reason)
        if found:
            self.units[next(name for name in found.groups() if name)] += 1


def _unused(timeline: Timeline) -> _Unused:
    """What was put aside, and what doors did not use."""
    unused = _Unused()
    for path in sorted((timeline.folder / "quarantine").glob("*.ndjson")):
        for line in _lines(path, timeline.keyring):
            value = json.loads(line)
            unused.add_all([str(value["reason"]), *value.get("also", ())], str(value["raw"]))
    if (timeline.folder / FILE).exists():
        with Tail(timeline.folder, timeline.keyring) as tail:
            for _, _, aside in tail.asides():
                unused.add_all((aside.reason, *aside.also), aside.raw)
            for (_, kind, what), number in tail.account().items():
                if kind == "reason":
                    unused.doors[bare(what)] += number
    return unused


def _lines(path: Path, keyring: Keyring | None) -> Iterator[bytes]:
    if keyring is None or not is_sealed(path):
        with path.open("rb") as file:
            yield from file
        return
    left = b""
    for piece in read_sealed(path, keyring):
        *lines, left = (left + piece).split(b"\n")
        yield from lines


def bare(reason: str) -> str:
    """A reason without what it quotes of a record, and without long numbers."""
    return _QUOTED.sub("…", reason)[:200]
