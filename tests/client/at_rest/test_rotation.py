"""New keys for a node, and a node's first encryption: a kill at any moment loses nothing."""

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from fedtwin_client.at_rest.boxes import fresh_key
from fedtwin_client.at_rest.database import connect
from fedtwin_client.at_rest.keyring import fingerprint, key_file, open_keyring, read_file
from fedtwin_client.node.home import NodeHome
from fedtwin_client.node.ledger import Ledger
from fedtwin_client.node.sealing import (
    keys_in_words,
    make_keys,
    needs_sealing,
    read_secret,
    rotate,
    seal,
)
from fedtwin_client.records.pseudonyms import IdentityMap
from fedtwin_client.store.quarantine import lines_of, names
from fedtwin_client.store.timeline import Timeline
from fedtwin_protocol.errors import ConfigurationError

RUN = """
import os, signal, sys
from pathlib import Path
from fedtwin_client.at_rest import database, files, keyring
from fedtwin_client.node import sealing
from fedtwin_client.node.home import NodeHome
from fedtwin_protocol import credentials
home = NodeHome(folder=Path(sys.argv[1]))
after = int(sys.argv[3])
def counted(whole):
    def step(*args, **options):
        global after
        after -= 1
        if after == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return whole(*args, **options)
    return step
# Every write that could be the last one: files put in place, databases, flushes.
os.fsync = counted(os.fsync)
os.replace = counted(os.replace)
Path.replace = counted(Path.replace)
Path.unlink = counted(Path.unlink)
database._opened = counted(database._opened)
if sys.argv[2] == "rotate":
    sealing.rotate(home)
else:
    sealing.make_keys(home)
    sealing.seal(home)
print(after)
"""


def run(home: NodeHome, what: str, after: int) -> subprocess.CompletedProcess[str]:
    """Do it in a process of its own that is killed at its `after`-th write."""
    return subprocess.run(
        [sys.executable, "-c", RUN, str(home.folder), what, str(after)],
        capture_output=True,
        text=True,
        check=False,
    )


def content(home: NodeHome) -> tuple[Any, ...]:
    """What the node knows of its patients, and its secret."""
    keyring = open_keyring(home.folder) if (home.folder / "keyring.json").exists() else None
    addresses = IdentityMap(home.records / "identities.sqlite").addresses()
    with closing(connect(home.folder / "outbox.sqlite")) as db:
        outbox = db.execute("SELECT * FROM t").fetchall()
    return (
        Timeline.open(home.records).events().to_pylist(),
        addresses,
        outbox,
        [line for name in names(home.records) for line in lines_of(home.records, name)],
        read_secret(home, keyring),
    )


def filled(node: Any, patients: int = 60) -> tuple[Any, ...]:
    """Fill a node; returns what it knows."""
    node.fill(patients=patients)
    Ledger(node.home.ledger_file).shut()
    with closing(connect(node.home.folder / "outbox.sqlite")) as db:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("CREATE TABLE t (a)")
        db.execute("INSERT INTO t VALUES ('planted-answer')")
    return content(node.home)


def steps(home: NodeHome, what: str, folder: Path) -> int:
    """How many writes there are, counted on a copy."""
    import shutil

    copy = folder / "copy" / "node"
    shutil.copytree(home.folder, copy)
    for key in home.folder.parent.glob("node.key*"):
        shutil.copy(key, folder / "copy" / key.name)
    text = (copy / "node.yaml").read_text()
    (copy / "node.yaml").write_text(text.replace(str(home.folder.parent), str(folder / "copy")))
    done = run(NodeHome(folder=copy), what, 10**6)
    assert done.returncode == 0, done.stderr
    shutil.rmtree(folder / "copy")
    return 10**6 - int(done.stdout)


@pytest.mark.parametrize("what", ["seal", "rotate"])
def test_a_kill_between_any_two_writes_loses_nothing(
    node: Any, tmp_path: Path, what: str, request: pytest.FixtureRequest
) -> None:
    """Each killed run goes on from where the one before was killed; a few of very many here."""
    if what == "rotate":
        node.seal()
    before = filled(node)
    total = steps(node.home, what, tmp_path)
    assert total > 100
    rng = random.Random(what)
    for at in sorted(rng.sample(range(1, total), 6)):
        done = run(node.home, what, at)
        assert done.returncode in {0, -signal.SIGKILL}, done.stderr
        assert content(node.home) == before, at
    if needs_sealing(node.home.folder):
        make_keys(node.home)
        seal(node.home)
    assert content(node.home) == before
    assert node.planted() == []
    assert not needs_sealing(node.home.folder)
    keys_in_words(node.home)


@pytest.mark.slow
@pytest.mark.parametrize("what", ["seal", "rotate"])
def test_a_kill_at_every_write(node: Any, tmp_path: Path, what: str) -> None:
    """One after the other; whatever state a kill leaves, the next run starts from it."""
    if what == "rotate":
        node.seal()
    before = filled(node, patients=4)
    total = steps(node.home, what, tmp_path)
    for at in range(1, total):
        done = run(node.home, what, at)
        assert done.returncode in {0, -signal.SIGKILL}, done.stderr
        if key_file(node.home.folder) and not (node.home.folder / "keyring.json").exists():
            # Killed between naming the site key and making the keyring: nothing is encrypted yet.
            with pytest.raises(ConfigurationError, match="run 'fedtwin client keys seal'"):
                content(node.home)
            continue
        assert content(node.home) == before, at
    make_keys(node.home)
    seal(node.home)
    assert content(node.home) == before


def test_a_kill_at_any_time(node: Any) -> None:
    """From outside, not at a write of ours: SQLCipher's own writes are hit as well."""
    node.seal()
    before = filled(node)
    rng = random.Random(5)
    for _ in range(4):
        process = subprocess.Popen(
            [sys.executable, "-c", RUN, str(node.home.folder), "rotate", str(10**6)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(rng.uniform(0.3, 1.2))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert content(node.home) == before


def test_after_a_rotation_the_old_keys_open_nothing(node: Any) -> None:
    """And what was copied before does not open with today's."""
    import shutil

    node.seal()
    before = filled(node)
    old_key, old_keys = node.key.read_bytes(), open_keyring(node.home.folder).keys
    backup = node.home.folder.parent / "backup"
    shutil.copytree(node.home.folder, backup)
    rotate(node.home)
    assert content(node.home) == before
    assert node.key.read_bytes() != old_key
    assert not node.key.with_name("node.key.next").exists()
    fresh = open_keyring(node.home.folder).keys
    assert set(fresh.values()).isdisjoint(old_keys.values())
    assert list(read_file(node.home.folder).keys[0].boxes) == [fingerprint(node.key.read_bytes())]
    with pytest.raises(ConfigurationError, match="right key file"):
        open_keyring(backup)
    node.key.write_bytes(old_key)
    with pytest.raises(ConfigurationError, match="right key file"):
        open_keyring(node.home.folder)


def test_a_site_key_made_elsewhere_takes_over_when_it_is_put_in_place(
    node: Any, tmp_path: Path
) -> None:
    node.seal()
    before = filled(node)
    new = tmp_path / "new.key"
    new.write_bytes(fresh_key())
    new.chmod(0o600)
    rotate(node.home, new)
    assert content(node.home) == before
    assert needs_sealing(node.home.folder)
    node.key.write_bytes(new.read_bytes())
    seal(node.home)
    assert content(node.home) == before
    assert not needs_sealing(node.home.folder)


def test_a_database_in_use_is_not_given_a_new_key(node: Any) -> None:
    node.seal()
    before = filled(node)
    with closing(connect(node.home.folder / "outbox.sqlite")) as other:
        other.execute("SELECT * FROM t").fetchall()
        with pytest.raises(ConfigurationError, match="in use by another process"):
            rotate(node.home)
    assert content(node.home) == before
    assert "finished" in rotate(node.home)
    assert content(node.home) == before
