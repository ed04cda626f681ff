"""The studies a node has heard of, and what the hospital decided: one SQLite file.

`held`: the policy wants a person's word. `approved`: a person gave it, and the agent has still to
build the cohort and reserve the budget. `accepted`, `declined`: decided. `ended`: over. Commands
(`fedtwin client studies accept …`) write here; the running agent notices.
"""

import os
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Final, Literal

from fedtwin_client.at_rest.database import ERRORS, connect, prepare
from fedtwin_protocol.errors import ConfigurationError
from fedtwin_protocol.signing import envelope_from_bytes
from fedtwin_protocol.study import StudyPlan, plan_from_bytes

Decision = Literal["new", "held", "approved", "accepted", "declined", "ended"]

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS studies (
    plan_hash TEXT PRIMARY KEY, study TEXT NOT NULL, version INTEGER NOT NULL,
    envelope BLOB NOT NULL, decision TEXT NOT NULL, reasons TEXT NOT NULL DEFAULT '',
    by_person TEXT NOT NULL DEFAULT '', reported_count REAL, state TEXT NOT NULL DEFAULT '',
    heard TEXT NOT NULL, decided TEXT NOT NULL DEFAULT '');
"""
_COLUMNS: Final = (
    "plan_hash, study, version, envelope, decision, reasons, by_person, reported_count, state,"
    " heard, decided"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class KnownStudy:
    """A study as this node knows it.

    Attributes:
        plan_hash: SHA-256 of the plan.
        study: its name.
        version: the plan's.
        envelope: the signed plan.
        decision: the hospital's.
        reasons: sentences of the policy, one a line.
        by_person: who decided, if a person did.
        reported_count: the noised cohort count that was sent; none before.
        state: how the coordinator says the study stands.
        heard: when it was first offered.
        decided: when it was decided.
    """

    plan_hash: str
    study: str
    version: int
    envelope: bytes
    decision: Decision
    reasons: str
    by_person: str
    reported_count: float | None
    state: str
    heard: str
    decided: str

    @property
    def plan(self) -> StudyPlan:
        """The plan; its signatures were verified when it was heard of."""
        return _plan_in(self.envelope)


@lru_cache(maxsize=64)
def _plan_in(envelope: bytes) -> StudyPlan:
    """Every task asks for its study's plan; to parse it takes longer than a round's sum."""
    return plan_from_bytes(envelope_from_bytes(envelope).body)


class KnownStudies:
    """The node's studies.

    Args:
        path: the file; made if absent, readable by its owner only.
    """

    def __init__(self, path: Path) -> None:
        try:
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
            self._connection = connect(path)
            prepare(self._connection, _SCHEMA)
        except (OSError, *ERRORS) as error:
            raise ConfigurationError(
                f"{path} cannot be used ({error}): check its owner, its rights and the disk"
            ) from error

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def change_mark(self) -> int:
        """Changes when another process has written."""
        return int(self._connection.execute("PRAGMA data_version").fetchone()[0])

    def hear(self, plan: StudyPlan, envelope: bytes, state: str, now: datetime) -> KnownStudy:
        """Note an offer; one that is known keeps its decision."""
        self._connection.execute(
            "INSERT INTO studies (plan_hash, study, version, envelope, decision, state, heard)"
            " VALUES (?, ?, ?, ?, 'new', ?, ?)"
            " ON CONFLICT (plan_hash) DO UPDATE SET state = excluded.state",
            (plan.hash, plan.study, plan.version, envelope, state, now.isoformat()),
        )
        found = self.by_hash(plan.hash)
        assert found is not None
        return found

    def replaced_by(self, plan: StudyPlan) -> list[KnownStudy]:
        """Older versions of a study that were live, now marked as replaced."""
        older = self._select(
            "WHERE study = ? AND version < ? AND state IN ('open', 'running')",
            plan.study,
            plan.version,
        )
        for study in older:
            self._connection.execute(
                "UPDATE studies SET state = 'replaced' WHERE plan_hash = ?", (study.plan_hash,)
            )
        return self._select("WHERE study = ? AND state = 'replaced'", plan.study) if older else []

    def decide(
        self,
        plan_hash: str,
        decision: Decision,
        reasons: tuple[str, ...],
        now: datetime,
        by_person: str = "",
    ) -> None:
        """Write a decision down."""
        self._connection.execute(
            "UPDATE studies SET decision = ?, reasons = ?, decided = ?,"
            " by_person = CASE WHEN ? = '' THEN by_person ELSE ? END WHERE plan_hash = ?",
            (decision, "\n".join(reasons), now.isoformat(), by_person, by_person, plan_hash),
        )

    def set_count(self, plan_hash: str, count: float) -> None:
        """Keep the count that was reported; it is used for every later message."""
        self._connection.execute(
            "UPDATE studies SET reported_count = ? WHERE plan_hash = ?", (count, plan_hash)
        )

    def by_hash(self, plan_hash: str) -> KnownStudy | None:
        """The study with that plan."""
        rows = self._select("WHERE plan_hash = ?", plan_hash)
        return rows[0] if rows else None

    def by_name(self, name: str) -> KnownStudy:
        """The newest version of a study.

        Raises:
            ConfigurationError: none of that name was offered.
        """
        rows = self._select("WHERE study = ? ORDER BY version DESC, heard DESC", name)
        if not rows:
            known = ", ".join(sorted({item.study for item in self.all()})) or "none yet"
            raise ConfigurationError(
                f"no study '{name}' was offered to this hospital; it knows: {known}"
            )
        return rows[0]

    def all(self) -> list[KnownStudy]:
        """Every study, in the order they were heard of."""
        return self._select("ORDER BY heard, study")

    def _select(self, rest: str, *values: object) -> list[KnownStudy]:
        names = _COLUMNS.replace(" ", "").split(",")
        rows = self._connection.execute(f"SELECT {_COLUMNS} FROM studies {rest}", values)  # noqa: S608 - constants only
        return [KnownStudy(**dict(zip(names, row, strict=True))) for row in rows]
