"""Reports and persons' words about features, in one file of the node's folder; it stays there."""

import os
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from fedtwin_client.at_rest.database import ERRORS, connect
from fedtwin_client.readiness.counts import Report
from fedtwin_client.readiness.gates import Word
from fedtwin_protocol.errors import ConfigurationError

FILE: Final = "readiness.sqlite"
_KEPT: Final = 50
"""Newest reports of a plan that are kept."""
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS reports (
    number INTEGER PRIMARY KEY, plan_hash TEXT NOT NULL, study TEXT NOT NULL, made TEXT NOT NULL,
    body TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS reports_by_plan ON reports (plan_hash, number);
CREATE TABLE IF NOT EXISTS words (
    number INTEGER PRIMARY KEY, plan_hash TEXT NOT NULL, feature TEXT NOT NULL,
    verdict TEXT NOT NULL, because TEXT NOT NULL, by_person TEXT NOT NULL, time TEXT NOT NULL);
"""


class Kept:
    """The file.

    Args:
        folder: the node's.

    Raises:
        ConfigurationError: the file cannot be used.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        try:
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
            self._db = connect(self.path)
            self._db.executescript(_SCHEMA)
        except (OSError, *ERRORS) as error:
            raise ConfigurationError(
                f"the readiness reports {self.path} cannot be used ({error}): check the file's "
                "owner, its rights and the disk"
            ) from error

    def __enter__(self) -> "Kept":
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()

    def keep(self, report: Report) -> None:
        """Add a report; the oldest beyond 50 of a plan go."""
        self._db.execute(
            "INSERT INTO reports (plan_hash, study, made, body) VALUES (?, ?, ?, ?)",
            (report.plan_hash, report.study, report.made.isoformat(), report.model_dump_json()),
        )
        self._db.execute(
            "DELETE FROM reports WHERE plan_hash = ? AND number NOT IN (SELECT number FROM reports"
            " WHERE plan_hash = ? ORDER BY number DESC LIMIT ?)",
            (report.plan_hash, report.plan_hash, _KEPT),
        )

    def last(self, plan_hash: str) -> Report | None:
        """The newest report about a plan; none was made.

        Raises:
            ConfigurationError: it is damaged.
        """
        row = self._db.execute(
            "SELECT body FROM reports WHERE plan_hash = ? ORDER BY number DESC LIMIT 1",
            (plan_hash,),
        ).fetchone()
        if row is None:
            return None
        try:
            return Report.model_validate_json(row[0])
        except ValidationError as error:
            raise ConfigurationError(
                f"the last readiness report in {self.path} is damaged or of another version: make "
                "a new one with 'fedtwin client readiness'"
            ) from error

    def say(self, plan_hash: str, feature: str, word: Word) -> None:
        """Write a person's word down; earlier ones stay on record."""
        self._db.execute(
            "INSERT INTO words (plan_hash, feature, verdict, because, by_person, time)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (plan_hash, feature, word.verdict, word.because, word.by, word.time),
        )

    def words(self, plan_hash: str) -> dict[str, Word]:
        """What was last said of each feature of a plan."""
        rows = self._db.execute(
            "SELECT feature, verdict, because, by_person, time FROM words WHERE plan_hash = ?"
            " ORDER BY number",
            (plan_hash,),
        )
        return {row[0]: Word(row[1], row[2], row[3], row[4]) for row in rows}
