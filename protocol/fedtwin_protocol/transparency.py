"""The consortium's public log: what is written in it, its signed heads, and when to believe one.

Entries are canonical JSON: signed plans, closed rounds (a hash of what was made, and the sites),
commitments to sites' ledgers, releases. A *head* is size and root of the log, signed with the
coordinator's online key, which the signers vouch for in the TUF root. Rules:
1. A head is believed only after one that is held if a proof shows that the older log is the
   beginning of the newer one. A smaller head, or another root for the same size, is a second
   history.
2. What a site holds it signs with its own long-term key (a *held head*). The coordinator passes
   these on, each with a proof that it is a beginning of the coordinator's newest head. A site that
   gets one without a proof has caught the coordinator with two signed histories.
3. A held head whose inner signature is not the coordinator's, or whose outer one is not that of
   the key in the signed plan, accuses nobody: it is passed over and said so.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from pydantic import AwareDatetime, Field, ValidationError

from fedtwin_protocol.canonical import canonical_bytes
from fedtwin_protocol.contract import Part
from fedtwin_protocol.errors import LogError, SignatureError
from fedtwin_protocol.merkle import check_consistency, check_inclusion, leaf_hash
from fedtwin_protocol.signing import SigningKey, TrustRoot, envelope_from_bytes, verify
from fedtwin_protocol.site_key import check_site_signature
from fedtwin_protocol.v1 import exchange_pb2 as pb

HEAD_TYPE: Final = "application/vnd.fedtwin.log-head+json"
HELD_PURPOSE: Final = "application/vnd.fedtwin.held-log-head+json"
Kind = Literal["plan", "round", "ledger", "release"]


class LogEntry(Part):
    """One line of the log.

    Attributes:
        kind: what happened.
        study: the study's name; empty for `ledger`.
        version: of its plan; 0 for `ledger`.
        subject: SHA-256, hexadecimal: of the plan; of the state that a round left; a commitment to
            a site's ledger; of the release's signed statement.
        plan_hash: SHA-256 of the plan; empty for `ledger`.
        round: of a closed round, else 0.
        sites: who took part in the round; whose ledger it is.
        time: when it was written.
    """

    kind: Kind
    study: str = Field(default="", max_length=80)
    version: int = Field(default=0, ge=0)
    subject: str = Field(pattern=r"^[0-9a-f]{64}$")
    plan_hash: str = Field(default="", max_length=64)
    round: int = Field(default=0, ge=0)
    sites: tuple[str, ...] = ()
    time: AwareDatetime

    def to_bytes(self) -> bytes:
        """Canonical JSON: what is hashed into the log."""
        return canonical_bytes(self.model_dump(mode="json"))

    @property
    def key(self) -> str:
        """The same for the same fact, so that it is written once."""
        whose = ",".join(self.sites) if self.kind == "ledger" else ""
        return f"{self.kind}/{self.plan_hash}/{self.round}/{whose}/{self.subject}"


class LogHead(Part):
    """Size and root (hexadecimal) of the log at a time; canonical JSON is what is signed."""

    consortium: str = Field(max_length=80)
    size: int = Field(ge=0)
    root: str = Field(pattern=r"^[0-9a-f]{64}$")
    time: AwareDatetime

    def to_bytes(self) -> bytes:
        """Canonical JSON."""
        return canonical_bytes(self.model_dump(mode="json"))

    @property
    def root_bytes(self) -> bytes:
        """The root, 32 bytes."""
        return bytes.fromhex(self.root)


class HeldHead(Part):
    """What a site says it holds; its canonical JSON is what the site signs.

    Attributes:
        site: who says so.
        head: the coordinator's signed head, as it came; empty before the first.
        ledger: commitment to the newest entry of the site's privacy ledger, hexadecimal; empty for
            a ledger without entries. Keyed with a secret of the site, so that nothing can be
            guessed from it, and the site can open it to an auditor.
        time: by the site's clock.
    """

    site: str = Field(max_length=120)
    head: str = Field(default="", max_length=4000)
    ledger: str = Field(default="", pattern=r"^([0-9a-f]{64})?$")
    time: AwareDatetime

    def to_bytes(self) -> bytes:
        """Canonical JSON."""
        return canonical_bytes(self.model_dump(mode="json"))


@dataclass(frozen=True, kw_only=True, slots=True)
class Proven:
    """An entry that a proof showed to be in the log, and its number there."""

    index: int
    entry: LogEntry


def head_from_bytes(signed: bytes, consortium: str, online: SigningKey) -> LogHead:
    """Believe that the coordinator signed a head, or raise.

    Args:
        signed: the DSSE envelope.
        consortium: whose log it must be.
        online: the coordinator's online key, as the signers vouch for it.

    Raises:
        LogError: it is no head of that consortium signed with that key.
    """
    trust = TrustRoot(consortium=consortium, keys=(online,), threshold=1)
    try:
        body = verify(envelope_from_bytes(signed), HEAD_TYPE, trust)
        head = LogHead.model_validate_json(body)
    except (SignatureError, ValidationError) as error:
        raise LogError(f"what is shown as the log's head is none: {error}") from error
    if head.consortium != consortium:
        raise LogError(f"expected a head of {consortium}'s log, got one of {head.consortium}")
    return head


def held_from_bytes(data: bytes, site: str) -> HeldHead:
    """Read what a site says it holds; its signature is not looked at here.

    Raises:
        LogError: it is no such statement, or of another site.
    """
    try:
        held = HeldHead.model_validate_json(data)
    except ValidationError as error:
        raise LogError(f"what {site} says of the log cannot be read") from error
    if held.site != site or held.to_bytes() != data:
        raise LogError(f"what came as {site}'s statement of the log is another's")
    return held


def check_growth(old: LogHead | None, new: LogHead, proof: Sequence[bytes]) -> None:
    """Rule 1: the log that was held is the beginning of the one that is shown.

    Raises:
        LogError: it is not; says which sizes.
    """
    if old is not None:
        check_consistency(old.size, new.size, proof, old.root_bytes, new.root_bytes)


def check_gossip(
    told: pb.GossipedHead, newest: LogHead, keys: Mapping[str, str], online: SigningKey
) -> HeldHead:
    """Rules 2 and 3: another site's statement against the coordinator's newest head.

    Args:
        told: the statement with its signature and proof, as the coordinator passed it on.
        newest: the coordinator's newest head, already believed.
        keys: sites' long-term keys from signed plans, base64.
        online: the coordinator's online key.

    Returns:
        What that site holds.

    Raises:
        SignatureError: rule 3: it accuses nobody.
        LogError: two histories, both signed by the coordinator.
    """
    if told.site not in keys:
        raise SignatureError(f"no signed plan here names the key of {told.site}")
    check_site_signature(keys[told.site], HELD_PURPOSE, told.statement, told.signature, told.site)
    try:
        held = held_from_bytes(told.statement, told.site)
        seen = None
        if held.head:
            seen = head_from_bytes(held.head.encode(), newest.consortium, online)
    except LogError as error:
        raise SignatureError(str(error)) from error
    if seen is None:
        return held
    try:
        check_consistency(
            seen.size, newest.size, list(told.proof), seen.root_bytes, newest.root_bytes
        )
    except LogError as error:
        raise LogError(
            f"the coordinator has signed two histories of the log: {told.site} holds {seen.size} "
            f"entries with root {seen.root[:16]}…, here it shows {newest.size} with root "
            f"{newest.root[:16]}… ({error})"
        ) from error
    return held


def entry_from_bytes(data: bytes) -> LogEntry:
    """Read an entry.

    Raises:
        LogError: it is none, or not in canonical form.
    """
    try:
        entry = LogEntry.model_validate_json(data)
    except ValidationError as error:
        raise LogError("an entry of the log cannot be read") from error
    if entry.to_bytes() != data:
        raise LogError("an entry of the log is not in canonical form")
    return entry


def check_proven(shown: pb.ProvenEntry, head: LogHead) -> Proven:
    """Believe that an entry is in the log, or raise.

    Raises:
        LogError: the entry is none, or the proof does not lead to the head's root.
    """
    entry = entry_from_bytes(shown.entry)
    check_inclusion(
        leaf_hash(shown.entry), shown.index, head.size, list(shown.proof), head.root_bytes
    )
    return Proven(index=shown.index, entry=entry)


def news_to_json(news: pb.LogNews) -> bytes:
    """Spell what the coordinator said of its log for a file: heads, entries and their proofs."""
    value: dict[str, Any] = {
        "head": news.head.decode("utf-8", errors="replace"),
        "entries": [
            {
                "index": shown.index,
                "entry": shown.entry.decode("utf-8", errors="replace"),
                "proof": [step.hex() for step in shown.proof],
            }
            for shown in news.entries
        ],
    }
    return canonical_bytes(value)


def news_from_json(data: bytes) -> pb.LogNews:
    """Read what `news_to_json` wrote; nothing is believed yet.

    Raises:
        LogError: the file holds something else.
    """
    try:
        value = json.loads(data)
        entries = [
            pb.ProvenEntry(
                index=item["index"],
                entry=item["entry"].encode(),
                proof=[bytes.fromhex(step) for step in item["proof"]],
            )
            for item in value["entries"]
        ]
        return pb.LogNews(head=value["head"].encode(), entries=entries)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LogError("the file with the proofs of the log is damaged: fetch it again") from error
