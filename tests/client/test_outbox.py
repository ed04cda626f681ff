"""The outbox: the same bytes for a task however often they are sent, and the list of what left."""

import os
import sqlite3
import stat
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtwin_client.node.departures import Departure
from fedtwin_client.node.outbox import LARGEST_HEAD, Outbox, Outgoing
from fedtwin_protocol.errors import LedgerError

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@pytest.fixture
def outbox(tmp_path):
    with Outbox(tmp_path / "outbox.db") as opened:
        yield opened


def small(task="t", head=b"noised"):
    return Outgoing(task=task, study="heart", round=3, kind="train", head=head)


def large(folder, task="t", content=b"x" * 100_000):
    blob = folder / f"draft-{task}"
    blob.write_bytes(content)
    return Outgoing(
        task=task,
        study="heart",
        round=3,
        kind="train",
        head=b"head",
        blob=blob,
        blob_sha256=sha256(content).hexdigest(),
        blob_size=len(content),
    )


def test_the_files_belong_to_their_owner_alone(outbox, tmp_path):
    outbox.store(small(), NOON)
    assert stat.S_IMODE((tmp_path / "outbox.db").stat().st_mode) == 0o600
    assert stat.S_IMODE(outbox.blobs.stat().st_mode) == 0o700


def test_an_answer_is_kept_across_a_restart(outbox, tmp_path):
    assert outbox.get("t") is None
    stored = outbox.store(small(), NOON)
    with Outbox(tmp_path / "outbox.db") as again:
        assert again.get("t") == stored == small()


def test_the_first_answer_to_a_task_is_the_one_that_is_sent(outbox, tmp_path):
    outbox.store(small(head=b"first"), NOON)
    assert outbox.store(small(head=b"second"), NOON).head == b"first"
    assert outbox.store(large(tmp_path), NOON).blob is None


def test_a_blob_is_taken_over_under_its_hash(outbox, tmp_path):
    outgoing = large(tmp_path)
    stored = outbox.store(outgoing, NOON)
    assert not outgoing.blob.exists()
    assert stored.blob == outbox.blobs / outgoing.blob_sha256
    assert outbox.get("t") == stored
    assert stored.blob.read_bytes() == b"x" * 100_000


def test_a_blob_that_lies_in_the_outbox_already_stays_there(outbox, tmp_path):
    outgoing = large(tmp_path)
    inside = outbox.blobs / outgoing.blob_sha256
    outgoing.blob.rename(inside)
    assert outbox.store(replace(outgoing, blob=inside), NOON).blob == inside


def test_a_blob_that_was_cut_short_is_refused_and_nothing_is_kept(outbox, tmp_path):
    outgoing = large(tmp_path)
    os.truncate(outgoing.blob, 5_000)
    with pytest.raises(LedgerError, match="5000 bytes where 100000 were written"):
        outbox.store(outgoing, NOON)
    assert outbox.get("t") is None


def test_a_blob_that_is_not_there_is_refused(outbox, tmp_path):
    outgoing = large(tmp_path)
    outgoing.blob.unlink()
    with pytest.raises(LedgerError, match=r"No such file.*Nothing was sent"):
        outbox.store(outgoing, NOON)


def test_a_blob_name_that_is_no_hash_cannot_leave_the_folder(outbox, tmp_path):
    with pytest.raises(LedgerError, match="expected a SHA-256"):
        outbox.store(replace(large(tmp_path), blob_sha256="../ledger.db"), NOON)


@pytest.mark.parametrize("damage", ["changed", "gone"])
def test_a_blob_damaged_on_disk_is_not_sent_again(outbox, tmp_path, damage):
    stored = outbox.store(large(tmp_path), NOON)
    if damage == "gone":
        stored.blob.unlink()
    else:
        stored.blob.write_bytes(b"y" * 100_000)
    with pytest.raises(LedgerError, match=r"not (sent|drawn) again"):
        outbox.get("t")


def test_a_message_that_belongs_in_a_blob_is_refused(outbox):
    with pytest.raises(LedgerError, match="with larger arrays in a blob"):
        outbox.store(small(head=bytes(LARGEST_HEAD + 1)), NOON)


def test_acknowledged_answers_are_pruned_but_their_tasks_never_forgotten(outbox, tmp_path):
    first, second = outbox.store(large(tmp_path, "a"), NOON), outbox.store(small("b"), NOON)
    assert outbox.waiting() == ("a", "b")
    assert outbox.acknowledge("a", NOON)
    assert outbox.acknowledge("a", NOON + timedelta(days=1))
    assert outbox.waiting() == ("b",)
    assert outbox.get("a") == first
    assert (outbox.prune(), outbox.prune()) == (1, 0)
    assert not first.blob.exists()
    assert outbox.tasks() == ("a", "b")
    assert outbox.get("b") == second
    for again in (lambda: outbox.get("a"), lambda: outbox.store(small("a"), NOON)):
        with pytest.raises(LedgerError, match="new noise would be a second release"):
            again()


def test_a_blob_that_another_answer_still_needs_is_not_pruned(outbox, tmp_path):
    outbox.store(large(tmp_path, "a"), NOON)
    kept = outbox.store(large(tmp_path, "b"), NOON)
    outbox.acknowledge("a", NOON)
    outbox.prune()
    assert outbox.get("b") == kept


def test_an_acknowledgement_of_what_was_never_stored_is_told(outbox):
    assert not outbox.acknowledge("unknown", NOON)


def test_sweeping_removes_what_a_crash_left_and_nothing_else(outbox, tmp_path):
    kept = outbox.store(large(tmp_path), NOON)
    (outbox.blobs / "draft-1-abc").write_bytes(b"half")
    assert outbox.sweep() == 1
    assert list(outbox.blobs.iterdir()) == [kept.blob]


def test_a_full_disk_keeps_nothing_and_says_so(outbox):
    pragma = outbox._database.connection.execute
    pages = pragma("PRAGMA page_count").fetchone()[0]
    pragma(f"PRAGMA max_page_count = {pages + 1}")
    with pytest.raises(LedgerError, match=r"the disk is full.*Nothing was sent that is not in it"):
        outbox.store(small(head=bytes(500_000)), NOON)
    assert outbox.get("t") is None
    assert outbox.tasks() == ()


def test_what_left_is_listed_with_its_totals(outbox):
    held = "gradient_sum, 14 numbers, noised"
    for minute in range(3):
        outbox.sent(
            Departure(
                time=NOON + timedelta(minutes=minute),
                kind="answer",
                study="heart",
                round=minute,
                bytes=200,
                held=held,
            )
        )
    left = outbox.left()
    assert [departure.round for departure in left.departures] == [0, 1, 2]
    assert (left.messages, left.bytes) == (3, 600)
    assert left.departures[0].held == held
    assert left.departures[0].time == NOON
    assert outbox.left(NOON + timedelta(minutes=1)).messages == 2
    assert left.by_kind() == {"answer": (3, 600)}


def test_heartbeats_are_summed_by_the_hour(outbox):
    for minute in range(0, 150, 10):
        time = NOON + timedelta(minutes=minute)
        outbox.sent(Departure(time=time, kind="heartbeat", bytes=12, held="the time"))
    hours = outbox.left().departures
    assert [(hour.time.hour, hour.messages, hour.bytes) for hour in hours] == [
        (12, 6, 72),
        (13, 6, 72),
        (14, 3, 36),
    ]
    assert outbox.left(NOON + timedelta(minutes=90)).messages == 9


def test_the_list_costs_no_flush_and_leaves_the_next_answer_flushed(outbox):
    outbox.sent(Departure(time=NOON, kind="hello", bytes=30, held="the software's version"))
    assert outbox._database.connection.execute("PRAGMA synchronous").fetchone() == (2,)


def test_a_locked_outbox_says_so(tmp_path):
    with Outbox(tmp_path / "outbox.db", patience_s=0.05) as outbox:
        other = sqlite3.connect(tmp_path / "outbox.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(LedgerError, match="another process"):
            outbox.store(small(), NOON)
        with pytest.raises(LedgerError, match="another process"):
            outbox.sent(Departure(time=NOON, kind="answer", bytes=1, held="x"))
        other.close()


@settings(max_examples=25, deadline=None)
@given(
    actions=st.lists(
        st.tuples(
            st.sampled_from(["store", "acknowledge", "prune", "restart"]), st.sampled_from("abc")
        ),
        max_size=25,
    )
)
def test_a_task_has_one_answer_for_ever(tmp_path_factory, actions):
    path = tmp_path_factory.mktemp("outbox") / "outbox.db"
    outbox = Outbox(path)
    released: dict[str, bytes] = {}
    for number, (action, task) in enumerate(actions):
        if action == "store":
            try:
                answer = outbox.store(small(task, head=b"%d" % number), NOON)
            except LedgerError:
                assert task in released
                continue
            assert released.setdefault(task, answer.head) == answer.head
        elif action == "acknowledge":
            outbox.acknowledge(task, NOON)
        elif action == "prune":
            outbox.prune()
        else:
            outbox.shut()
            outbox = Outbox(path)
    assert set(outbox.tasks()) == set(released)
    outbox.shut()
