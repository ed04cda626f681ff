"""The timelines as a whole: codes that no shared vocabulary has, and what was put aside."""

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Final

import duckdb

from fedtwin_client.at_rest.files import is_sealed, read_sealed
from fedtwin_client.at_rest.keyring import Keyring
from fedtwin_client.cohort.times import stored_codes
from fedtwin_client.readiness.counts import CodeCount, SiteCounts
from fedtwin_client.records.codes import is_local
from fedtwin_client.records.events import BIRTH, DEATH, SEX
from fedtwin_client.store.tail import FILE, Tail
from fedtwin_client.store.timeline import Timeline
from fedtwin_protocol.study import StudyPlan

NAMED_FROM: Final = 10
"""A local code of fewer patients may itself say who they are, and is not named."""
_COMMONEST: Final = 20
_WHOLE: Final = """
SELECT count(*), count(DISTINCT subject_id), max(time) FILTER (time <= $now) FROM events
"""
_CODES: Final = "SELECT code, count(*) FROM events GROUP BY code ORDER BY 2 DESC, 1"
_SUBJECTS: Final = """
SELECT code, count(DISTINCT subject_id) FROM events
WHERE code IN (SELECT unnest($codes::VARCHAR[])) GROUP BY code
"""
_QUOTED: Final = re.compile(r"'[^']*'|\"[^\"]*\"|\d{4,}")
# As `records.reading` words them.
_UNIT: Final = re.compile(
    r"no unit for (.+), which is kept in |is not known for (.+)$|does not fit (.+), kept in "
)


def site_counts(
    db: duckdb.DuckDBPyConnection, timeline: Timeline, plan: StudyPlan, now: datetime
) -> SiteCounts:
    """Count the timelines as a whole.

    Args:
        db: a connection with the view `events`.
        timeline: where it comes from.
        plan: the codes that it asks for are mapped, whatever their vocabulary.
        now: UTC without a zone.
    """
    rows, subjects, newest = db.execute(_WHOLE, {"now": now}).fetchone() or (0, 0, None)
    apart = {BIRTH, DEATH, SEX}
    coded = {
        code: int(number) for code, number in db.execute(_CODES).fetchall() if code not in apart
    }
    asked = set(asked_codes(plan))
    unmapped = {code: n for code, n in coded.items() if is_local(code) and code not in asked}
    unused = _unused(timeline)
    return SiteCounts(
        rows=int(rows),
        subjects=int(subjects),
        newest=None if newest is None else newest.replace(tzinfo=UTC),
        coded=sum(coded.values()),
        unmapped=sum(unmapped.values()),
        commonest=_commonest(db, unmapped),
        put_aside=dict(unused.put_aside),
        refused_units=dict(unused.units),
        doors=dict(unused.doors),
    )


def asked_codes(plan: StudyPlan) -> list[str]:
    """Every code that a plan reads, as the store writes them."""
    cohort = plan.cohort
    codes = [code for feature in plan.features for code in feature.codes]
    codes += [*cohort.index.codes, *cohort.require_codes, *cohort.exclude_codes]
    codes += plan.endpoint.codes
    codes += [word.code for word in plan.sequence.vocabulary] if plan.sequence else []
    return stored_codes(tuple(codes))


def _commonest(db: duckdb.DuckDBPyConnection, unmapped: dict[str, int]) -> tuple[CodeCount, ...]:
    codes = list(unmapped)[: 10 * _COMMONEST]  # most rows first; some have too few patients
    subjects = dict(db.execute(_SUBJECTS, {"codes": codes}).fetchall()) if codes else {}
    named = [code for code in codes if subjects[code] >= NAMED_FROM][:_COMMONEST]
    return tuple(
        CodeCount(code=code, rows=unmapped[code], subjects=int(subjects[code])) for code in named
    )


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
