"""A coordinator that shows two histories, and the sites that compare what they hold."""

import sqlite3
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedtwin_client.node.home import NodeHome
from fedtwin_client.node.log_watch import LogWatch, describe_log, forget, read_watched
from fedtwin_protocol.canonical import canonical_bytes, sha256_hex
from fedtwin_protocol.errors import LogError, SignatureError
from fedtwin_protocol.signing import TrustRoot, public_key, sign
from fedtwin_protocol.site_key import keep_site_key
from fedtwin_protocol.transparency import (
    HEAD_TYPE,
    HELD_PURPOSE,
    HeldHead,
    LogEntry,
    LogHead,
    check_proven,
    head_from_bytes,
)
from fedtwin_protocol.v1 import exchange_pb2 as pb
from fedtwin_server.log_book import LOG_SCHEMA, LogBook, append
from fedtwin_server.tuf_repository import TufRepository, add_signatures

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
KEY = Ed25519PrivateKey.from_private_bytes(b"\1" * 32)
TRUST = TrustRoot(consortium="demo", keys=(public_key(KEY, "signer"),), threshold=1)
LEDGER = (3, "ab" * 32)


def entry(text: str) -> LogEntry:
    subject = sha256_hex(text.encode())
    return LogEntry(
        kind="plan", study=text, version=1, subject=subject, plan_hash=subject, time=NOW
    )


class Coordinator:
    """As many histories as it likes, all signed with its one online key."""

    def __init__(self, folder: Path) -> None:
        self.repository = TufRepository(folder)
        self.repository.create(TRUST, [KEY], NOW)
        self.connections: list[sqlite3.Connection] = []
        self.keys: dict[str, str] = {}

    def history(self, *texts: str) -> LogBook:
        connection = sqlite3.connect(":memory:", isolation_level=None)
        self.connections.append(connection)
        connection.executescript(LOG_SCHEMA)
        for text in texts:
            append(connection, entry(text))
        return LogBook(connection, "demo", self.repository.online_key())

    def grow(self, book: LogBook, *texts: str) -> None:
        for text in texts:
            append(book._connection, entry(text))


class Site:
    """A node's view of the log."""

    def __init__(self, folder: Path, name: str, coordinator: Coordinator) -> None:
        folder.mkdir()
        self.home, self.name, self.coordinator = NodeHome(folder=folder), name, coordinator
        trust = canonical_bytes(TRUST.model_dump(mode="json"))
        (folder / "trust.json").write_bytes(trust)
        coordinator.keys[name] = keep_site_key(self.home.identity).public
        self.watch = LogWatch(self.home, "demo", name)
        self.watch.learn_roots(coordinator.repository.roots())

    def meet(self, book: LogBook, moment: datetime = NOW) -> None:
        """One exchange on the link, as the coordinator's and the node's desks do it."""
        held = self.watch.statement(LEDGER, moment)
        size, _ = book.hold(self.name, held, self.coordinator.keys[self.name], moment)
        self.watch.hear(book.news(size, moment, to=self.name), self.coordinator.keys, moment)

    @property
    def size(self) -> int:
        head = read_watched(self.home).head
        online = public_key(self.coordinator.repository.online_key(), "coordinator")
        return head_from_bytes(head.encode(), "demo", online).size


@pytest.fixture
def coordinator(tmp_path: Path) -> Iterator[Coordinator]:
    made = Coordinator(tmp_path / "coordinator")
    yield made
    for connection in made.connections:
        connection.close()


@pytest.fixture
def site(tmp_path: Path, coordinator: Coordinator) -> Callable[[str], Site]:
    return lambda name: Site(tmp_path / name, name, coordinator)


def test_an_honest_log_grows_and_sites_hear_of_each_other(
    coordinator: Coordinator, site: Callable[[str], Site]
) -> None:
    aal, bergen, book = site("aal"), site("bergen"), coordinator.history("one")
    for number in range(20):
        aal.meet(book)
        coordinator.grow(book, f"more {number}")
        bergen.meet(book)
    aal.watch.check()
    assert (aal.size, bergen.size) == (20, 21)
    assert read_watched(bergen.home).others["aal"].believed == "yes"
    assert any("aal holds 19 entries" in line for line in describe_log(bergen.home))


def test_a_log_that_was_cut_off_raises_the_alarm_and_the_node_stops(
    coordinator: Coordinator, site: Callable[[str], Site]
) -> None:
    aal = site("aal")
    aal.meet(coordinator.history("one", "two", "three"))
    with pytest.raises(LogError, match="was cut off"):
        aal.meet(coordinator.history("one", "two"))
    with pytest.raises(LogError, match="has stopped since"):
        aal.watch.check()
    assert "ALARM since 2026-03-01 12:00" in "\n".join(describe_log(aal.home))


@pytest.mark.parametrize("texts", [("one", "2"), ("one", "2", "three"), ("2", "one", "x", "y")])
def test_an_entry_that_was_tampered_with_raises_the_alarm(
    coordinator: Coordinator, site: Callable[[str], Site], texts: tuple[str, ...]
) -> None:
    aal = site("aal")
    aal.meet(coordinator.history("one", "two"))
    with pytest.raises(LogError):
        aal.meet(coordinator.history(*texts))
    assert read_watched(aal.home).alarm is not None


def test_an_alarm_outlives_a_restart_and_ends_by_a_person(
    coordinator: Coordinator, site: Callable[[str], Site]
) -> None:
    aal, honest = site("aal"), coordinator.history("one", "two")
    aal.meet(honest)
    with pytest.raises(LogError):
        aal.meet(coordinator.history("other"))
    again = LogWatch(aal.home, "demo", "aal")
    with pytest.raises(LogError):
        again.check()
    forget(aal.home, "Dr A. Berg", NOW)
    again.check()
    aal.meet(honest)
    assert aal.size == 2
    assert read_watched(aal.home).forgotten == (f"{NOW.isoformat()} Dr A. Berg",)
    assert len(list(aal.home.folder.glob("log.2*.json"))) == 1


@pytest.mark.parametrize(
    ("for_aal", "for_bergen"),
    [
        (("one", "two"), ("one", "three")),
        (("one", "two"), ("one", "three", "four")),
        (("one", "two", "five", "six"), ("one", "three")),
        (("one",), ("two",)),
    ],
    ids=["same size", "larger", "smaller", "from the start"],
)
def test_two_histories_are_caught_when_what_a_site_holds_is_passed_on(
    coordinator: Coordinator,
    site: Callable[[str], Site],
    for_aal: tuple[str, ...],
    for_bergen: tuple[str, ...],
) -> None:
    """Each site alone sees a log that only grows. Bergen's word, passed on to aal, ends it."""
    aal, bergen = site("aal"), site("bergen")
    first, second = coordinator.history(*for_aal), coordinator.history(*for_bergen)
    for _ in range(3):
        aal.meet(first)
        bergen.meet(second)
        coordinator.grow(first, f"more {_}")
        coordinator.grow(second, f"else {_}")
    bergen.meet(second)
    held = bergen.watch.statement(LEDGER, NOW)
    first.hold("bergen", held, coordinator.keys["bergen"], NOW)
    with pytest.raises(LogError, match="signed two histories"):
        aal.meet(first)
    evidence = read_watched(aal.home).alarm.evidence
    assert evidence["held by bergen"] == held.statement.decode()
    with pytest.raises(LogError):
        aal.watch.check()


def test_a_proof_of_the_coordinators_own_making_does_not_help(
    coordinator: Coordinator, site: Callable[[str], Site]
) -> None:
    aal, bergen = site("aal"), site("bergen")
    first, second = coordinator.history("one", "two", "a"), coordinator.history("one", "three")
    aal.meet(first)
    bergen.meet(second)
    first.hold("bergen", bergen.watch.statement(LEDGER, NOW), coordinator.keys["bergen"], NOW)
    honest = first.news(3, NOW, to="aal")
    for proof in ([], [b"\0" * 32], list(second.news(1, NOW).consistency)):
        news = pb.LogNews()
        news.CopyFrom(honest)
        del news.others[0].proof[:]
        news.others[0].proof.extend(proof)
        watch = site(f"aal-{len(proof)}-{bool(proof and proof[0][0])}").watch
        with pytest.raises(LogError, match="signed two histories"):
            watch.hear(news, coordinator.keys, NOW)


def test_nobody_can_accuse_the_coordinator_with_a_head_that_it_did_not_sign(
    coordinator: Coordinator, site: Callable[[str], Site]
) -> None:
    """A malicious site must not be able to stop the others."""
    aal, bergen, book = site("aal"), site("bergen"), coordinator.history("one", "two")
    other = Ed25519PrivateKey.generate()
    head = LogHead(consortium="demo", size=2, root="0" * 64, time=NOW)
    invented = sign(HEAD_TYPE, head.to_bytes(), [other]).to_bytes()
    statement = HeldHead(site="bergen", head=invented.decode(), time=NOW).to_bytes()
    key = keep_site_key(bergen.home.identity)
    news = book.news(0, NOW)
    news.others.append(
        pb.GossipedHead(
            site="bergen", statement=statement, signature=key.sign(HELD_PURPOSE, statement)
        )
    )
    aal.watch.hear(news, coordinator.keys, NOW)
    aal.watch.check()
    assert "none" in read_watched(aal.home).others["bergen"].believed
    with pytest.raises(LogError):
        book.hold(
            "bergen",
            pb.HeldLogHead(statement=statement, signature=key.sign(HELD_PURPOSE, statement)),
            coordinator.keys["bergen"],
            NOW,
        )


def test_the_coordinator_cannot_speak_in_a_sites_name(
    coordinator: Coordinator, site: Callable[[str], Site]
) -> None:
    """A statement that the named key did not sign is passed over and said so."""
    aal, bergen, book = site("aal"), site("bergen"), coordinator.history("one")
    bergen.meet(book)
    news = book.news(0, NOW, to="aal")
    news.others[0].signature = keep_site_key(aal.home.identity).sign(
        HELD_PURPOSE, news.others[0].statement
    )
    aal.watch.hear(news, coordinator.keys, NOW)
    assert "not the signature of bergen" in read_watched(aal.home).others["bergen"].believed
    unknown = {name: key for name, key in coordinator.keys.items() if name != "bergen"}
    aal.watch.hear(book.news(1, NOW, to="aal"), unknown, NOW)
    assert "no signed plan" in read_watched(aal.home).others["bergen"].believed


def test_a_head_of_another_key_or_consortium_is_no_head(
    coordinator: Coordinator, site: Callable[[str], Site]
) -> None:
    aal = site("aal")
    online = coordinator.repository.online_key()
    for consortium, key in (("demo", Ed25519PrivateKey.generate()), ("other", online)):
        head = LogHead(consortium=consortium, size=0, root=sha256_hex(b""), time=NOW)
        news = pb.LogNews(head=sign(HEAD_TYPE, head.to_bytes(), [key]).to_bytes())
        watch = LogWatch(aal.home, "demo", "aal")
        forget(aal.home, "test", NOW + timedelta(seconds=len(consortium)))
        with pytest.raises(LogError):
            watch.hear(news, coordinator.keys, NOW)


def test_roots_must_follow_the_pinned_signers(
    coordinator: Coordinator, site: Callable[[str], Site], tmp_path: Path
) -> None:
    aal = site("aal")
    stranger = TufRepository(tmp_path / "stranger")
    key = Ed25519PrivateKey.generate()
    theirs = TRUST.model_copy(update={"keys": (public_key(key, "stranger"),)})
    stranger.create(theirs, [key], NOW)
    root = stranger.next_root(theirs, NOW)
    add_signatures(root, [key])
    with pytest.raises(SignatureError):
        aal.watch.learn_roots([root.to_bytes()])
    assert aal.home.trust() == TRUST


def test_a_ledger_is_committed_to_without_being_shown(
    coordinator: Coordinator, site: Callable[[str], Site]
) -> None:
    aal, bergen, book = site("aal"), site("bergen"), coordinator.history("one")
    assert aal.watch.commitment((0, "")) == ""
    assert aal.watch.commitment(LEDGER) != bergen.watch.commitment(LEDGER)
    assert aal.watch.commitment(LEDGER) == LogWatch(aal.home, "demo", "aal").commitment(LEDGER)
    statement = aal.watch.statement(LEDGER, NOW)
    assert LEDGER[1] not in statement.statement.decode()
    _, fact = book.hold("aal", statement, coordinator.keys["aal"], NOW)
    assert fact is not None
    assert fact.subject == aal.watch.commitment(LEDGER)
    assert book.hold("aal", statement, coordinator.keys["aal"], NOW)[1] is None


def test_a_forged_entry_is_not_proven_by_another_ones_proof(coordinator: Coordinator) -> None:
    book = coordinator.history("one", "two", "three")
    head, _ = book.head(NOW)
    (shown,) = book.prove(book.entries("two", 1), NOW)
    assert check_proven(shown, head).entry == entry("two")
    shown.entry = entry("forged").to_bytes()
    with pytest.raises(LogError, match="not in this log"):
        check_proven(shown, head)
