"""The node keeps an eye on the coordinator: one public log, the same for everybody.

`log.json` holds the last head that was believed, what other sites were heard to hold, and the
alarm, if there was one; `roots/` the TUF roots, which say who signs today and which key is the
coordinator's. Rules:
1. A newer head is believed with a proof that the old log is its beginning, and not otherwise.
2. Another site's statement, signed with the key that a signed plan names, must be a beginning of
   the coordinator's newest log, too.
3. What breaks a rule is kept with both signatures as evidence, and this node takes part in nothing
   any more until a person has looked: the coordinator could be showing two histories.
4. No task is carried out on a link on which the coordinator has not shown its log.
"""

import hashlib
import hmac
import json
import logging
import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Final

from pydantic import AwareDatetime, Field, ValidationError

from fedtwin_client.node.home import NodeHome
from fedtwin_protocol.contract import Part
from fedtwin_protocol.credentials import read_private, write_atomically
from fedtwin_protocol.errors import ConfigurationError, LogError, SignatureError
from fedtwin_protocol.signing import SigningKey, envelope_from_bytes
from fedtwin_protocol.site_key import keep_site_key
from fedtwin_protocol.transparency import (
    HELD_PURPOSE,
    HeldHead,
    LogHead,
    check_gossip,
    check_growth,
    head_from_bytes,
)
from fedtwin_protocol.v1 import exchange_pb2 as pb

log = logging.getLogger("fedtwin.log")
LOG_FILE: Final = "log.json"
SECRET_BYTES: Final = 32


class Heard(Part):
    """What another site was last heard to hold.

    Attributes:
        size: of the log that it holds.
        said: when, by that site's clock.
        believed: whether its signature is that of the key in a signed plan; else why not.
    """

    size: int
    said: AwareDatetime | None
    believed: str


class Alarm(Part):
    """Why this node stopped.

    Attributes:
        text: what did not fit.
        time: when.
        evidence: what was held, and what was shown, as they came.
    """

    text: str
    time: AwareDatetime
    evidence: dict[str, str]


class Watched(Part):
    """`log.json`."""

    head: str = ""
    others: dict[str, Heard] = Field(default_factory=dict)
    alarm: Alarm | None = None
    forgotten: tuple[str, ...] = ()


def read_watched(home: NodeHome) -> Watched:
    """What this node keeps of the log.

    Raises:
        LogError: the file is damaged.
    """
    path = home.folder / LOG_FILE
    try:
        return Watched.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return Watched()
    except (OSError, ValidationError) as error:
        raise LogError(
            f"{path} is damaged, so that nobody knows which log this node held: 'fedtwin client "
            "log --forget-by NAME' starts anew"
        ) from error


def forget(home: NodeHome, person: str, now: datetime) -> None:
    """A person has looked: drop the held head and the alarm; who and when is kept.

    What was held is set aside as `log.<time>.json`.
    """
    path = home.folder / LOG_FILE
    before: tuple[str, ...] = ()
    if path.exists():
        try:
            before = read_watched(home).forgotten
        except LogError:
            before = ()
        path.rename(home.folder / f"log.{now:%Y%m%dT%H%M%S}.json")
    fresh = Watched(forgotten=(*before, f"{now.isoformat()} {person}"))
    write_atomically(path, fresh.model_dump_json().encode())


class LogWatch:
    """Judges what the coordinator shows of its log.

    Args:
        home: the node's folder.
        consortium: whose log it is.
        site: this node.
    """

    def __init__(self, home: NodeHome, consortium: str, site: str) -> None:
        self._home = home
        self._consortium = consortium
        self._site = site
        self._key = keep_site_key(home.identity)
        self._secret = _secret(home.identity / "ledger_commitment.key")
        self._read_at = 0
        self._watched = self._read()

    @property
    def root_version(self) -> int:
        """Of the newest TUF root here; 0 before the first."""
        return self._home.root_version()

    def learn_roots(self, roots: list[bytes]) -> None:
        """Believe the TUF roots that follow those here.

        Raises:
            ReleaseError: they are none.
            SignatureError: they are not signed by those before them.
        """
        self._home.keep_roots(roots)

    def statement(self, ledger: tuple[int, str], now: datetime) -> pb.HeldLogHead:
        """What this node holds, signed.

        Args:
            ledger: number and hash of the ledger's newest entry.
            now: the time.
        """
        held = HeldHead(
            site=self._site,
            head=self._read().head,
            ledger=self.commitment(ledger),
            time=now,
        )
        body = held.to_bytes()
        return pb.HeldLogHead(
            statement=body,
            signature=self._key.sign(HELD_PURPOSE, body),
            root_version=self.root_version,
        )

    def commitment(self, ledger: tuple[int, str]) -> str:
        """A ledger's newest entry, hidden behind a secret of this node; empty of an empty ledger.

        An entry's hash alone could be guessed at: it covers a cohort's size and the time. With the
        secret (`identity/ledger_commitment.key`) an auditor can check the commitment.
        """
        number, digest = ledger
        if not number:
            return ""
        return hmac.new(self._secret, f"{number} {digest}".encode(), hashlib.sha256).hexdigest()

    def hear(self, news: pb.LogNews, keys: Mapping[str, str], now: datetime) -> None:
        """Believe what the coordinator shows, or raise the alarm.

        Args:
            news: its newest head with a proof, and what other sites hold.
            keys: sites' signing keys from signed plans, base64.
            now: the time.

        Raises:
            LogError: a rule is broken; it is written down, and `check` raises from now on.
        """
        watched = self._read()
        if watched.alarm is not None:
            return
        online = self._online_key()
        # Of names that no signed plan knows, only those of this message: they could go on for ever.
        others = {site: heard for site, heard in watched.others.items() if site in keys}
        try:
            new = head_from_bytes(news.head, self._consortium, online)
            check_growth(self._held(watched, online), new, list(news.consistency))
            for told in news.others:
                others[told.site] = self._judge(told, new, keys, online)
        except LogError as error:
            self._raise_alarm(watched, news, str(error), now)
            raise
        self._write(
            watched.model_copy(update={"head": news.head.decode("ascii"), "others": others})
        )

    def check(self) -> None:
        """Take part in nothing after an alarm.

        Raises:
            LogError: there was one.
        """
        alarm = self._read().alarm
        if alarm is not None:
            raise LogError(f"this node has stopped since {alarm.time:%Y-%m-%d %H:%M}: {alarm.text}")

    def _judge(
        self, told: pb.GossipedHead, newest: LogHead, keys: Mapping[str, str], online: SigningKey
    ) -> Heard:
        try:
            held = check_gossip(told, newest, keys, online)
        except SignatureError as error:
            log.debug("what %s holds of the log is passed over: %s", told.site, error)
            return Heard(size=0, said=None, believed=str(error))
        size = 0
        if held.head:
            size = head_from_bytes(held.head.encode(), self._consortium, online).size
        return Heard(size=size, said=held.time, believed="yes")

    def _held(self, watched: Watched, online: SigningKey) -> LogHead | None:
        if not watched.head:
            return None
        return head_from_bytes(watched.head.encode(), self._consortium, online)

    def _raise_alarm(self, watched: Watched, news: pb.LogNews, text: str, now: datetime) -> None:
        shown = {told.site: told.statement.decode("utf-8", "replace") for told in news.others}
        evidence = {
            "held here": watched.head,
            "shown here": news.head.decode("utf-8", "replace"),
            **{f"held by {site}": statement for site, statement in shown.items()},
        }
        log.error("ALARM: %s. This node takes part in nothing until a person has looked", text)
        alarm = Alarm(text=text, time=now, evidence=evidence)
        self._write(watched.model_copy(update={"alarm": alarm}))

    def _online_key(self) -> SigningKey:
        root = self._home.newest_root()
        if root is None:
            raise LogError("the coordinator has shown no TUF root, so its log cannot be believed")
        return root.online

    def _read(self) -> Watched:
        """The file, read again when a command has changed it."""
        path = self._home.folder / LOG_FILE
        stamp = path.stat().st_mtime_ns if path.exists() else 0
        if stamp != self._read_at or not stamp:
            self._watched, self._read_at = read_watched(self._home), stamp
        return self._watched

    def _write(self, watched: Watched) -> None:
        path = self._home.folder / LOG_FILE
        if watched != self._watched:
            write_atomically(path, watched.model_dump_json().encode())
            self._watched, self._read_at = watched, path.stat().st_mtime_ns


def describe_log(home: NodeHome) -> list[str]:
    """What this node keeps of the log, a line each.

    Raises:
        LogError: the file is damaged.
    """
    watched = read_watched(home)
    lines = ["no head of the log was shown to this node yet"]
    if watched.head:
        head = _unverified(watched.head)
        lines = [f"log of {head.size} entries, root {head.root}, of {head.time:%Y-%m-%d %H:%M} UTC"]
    for site, heard in sorted(watched.others.items()):
        when = f" at {heard.said:%Y-%m-%d %H:%M} UTC" if heard.said else ""
        fits = "which fits" if heard.believed == "yes" else f"not believed: {heard.believed}"
        lines.append(f"{site} holds {heard.size} entries{when}, {fits}")
    lines += [f"forgotten by a person: {line}" for line in watched.forgotten]
    if watched.alarm is not None:
        lines.append(f"ALARM since {watched.alarm.time:%Y-%m-%d %H:%M} UTC: {watched.alarm.text}")
        lines += [f"  {what}: {document}" for what, document in watched.alarm.evidence.items()]
        lines.append(
            "this node takes part in nothing: send the lines above to the other hospitals and the "
            "signers; 'fedtwin client log --forget-by NAME' lets it go on"
        )
    return lines


def _unverified(signed: str) -> LogHead:
    """A head that was believed when it was kept."""
    return LogHead.model_validate(json.loads(envelope_from_bytes(signed.encode()).body))


def _secret(path: Path) -> bytes:
    if not path.exists():
        write_atomically(path, os.urandom(SECRET_BYTES))
    data = read_private(path, f"there is no {path}")
    if len(data) != SECRET_BYTES:
        raise ConfigurationError(f"{path} is damaged: remove it, and a new one is made")
    return data
