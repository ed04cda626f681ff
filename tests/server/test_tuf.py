"""Dishonest coordinators and the TUF client: each shows a list that must not be believed."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tuf.api.metadata import Metadata, Targets

from fedtwin_protocol.errors import FedtwinError, ReleaseError, SignatureError
from fedtwin_protocol.signing import TrustRoot, public_key
from fedtwin_protocol.tuf_client import Listing, Read, TufClient, keep_metadata, read_folder
from fedtwin_protocol.tuf_roots import follow_roots
from fedtwin_server.tuf_repository import (
    TufRepository,
    add_signatures,
    check_threshold,
    listed,
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
KEYS = [Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n in (1, 2, 3, 4)]
TRUST = TrustRoot(
    consortium="demo",
    keys=tuple(public_key(key, f"signer {n}") for n, key in enumerate(KEYS[:3])),
    threshold=2,
)
MODEL = b"the honest model"


class Consortium:
    """A repository, a client, and whatever the coordinator does in between."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.repository = TufRepository(folder / "coordinator")
        self.repository.create(TRUST, KEYS[:3], NOW)

    def release(self, version: int, data: bytes = MODEL, keys: int = 2) -> Metadata[Targets]:
        facts = {"study": "heart", "version": str(version), "epsilon": "1"}
        files = listed({"model.safetensors": data}, "heart", version, facts)
        targets = self.repository.next_targets(files, NOW)
        add_signatures(targets, KEYS[:keys])
        return targets

    def publish(self, version: int, data: bytes = MODEL) -> None:
        self.repository.publish(self.release(version, data), NOW)

    @property
    def served(self) -> Path:
        return self.repository.folder

    def copy(self, name: str) -> Path:
        """The repository as it is now, kept to be shown later."""
        kept = self.folder / name
        kept.mkdir()
        for path in self.served.glob("*.json"):
            (kept / path.name).write_bytes(path.read_bytes())
        return kept

    def refresh(
        self, read: Read | None = None, now: datetime = NOW, client: str = "client"
    ) -> Listing:
        made = TufClient(self.folder / client, TRUST, read or read_folder(self.served), now)
        return made.refresh()

    def download(self, read: Read) -> bytes:
        client = TufClient(self.folder / "client", TRUST, read, NOW)
        listing = client.refresh()
        (path,) = [path for path in listing.files if path.startswith("heart/1/")]
        return client.download(path, listing.files[path], self.folder)


@pytest.fixture
def consortium(tmp_path: Path) -> Consortium:
    made = Consortium(tmp_path)
    made.publish(1)
    return made


def serving(metadata: Path, target: Callable[[], Iterator[bytes]]) -> Read:
    """Honest metadata, and whatever for a target."""
    honest = read_folder(metadata)

    def read(path: str) -> Iterator[bytes]:
        yield from target() if path.startswith("targets/") else honest(path)

    return read


def test_an_honest_list_is_believed_and_its_file_arrives(consortium: Consortium) -> None:
    listing = consortium.refresh()
    assert (listing.version, listing.versions("heart")) == (2, [1])
    assert listing.signers == ("signer 0", "signer 1")
    assert listing.of("heart", 1)["model.safetensors"].custom["epsilon"] == "1"
    assert consortium.download(serving(consortium.served, lambda: iter([MODEL]))) == MODEL


def test_roll_back_an_older_list_is_refused(consortium: Consortium) -> None:
    old = consortium.copy("old")
    consortium.publish(2)
    consortium.refresh()
    with pytest.raises(ReleaseError, match="older list of releases"):
        consortium.refresh(read_folder(old))


def test_roll_back_by_the_online_key_alone_is_refused(consortium: Consortium) -> None:
    """A coordinator that signs a newer snapshot over the older list, with its own key."""
    consortium.publish(2)
    consortium.refresh()
    (consortium.served / "3.targets.json").unlink()
    consortium.repository._renew_snapshot(NOW)
    consortium.repository._renew_timestamp(NOW)
    with pytest.raises(ReleaseError, match="older list of releases"):
        consortium.refresh()


def test_freeze_a_list_past_its_date_is_refused(consortium: Consortium) -> None:
    consortium.refresh()
    later = NOW + timedelta(hours=25)
    with pytest.raises(ReleaseError, match="past its date"):
        consortium.refresh(now=later)
    consortium.repository.refresh_if_due(later)
    assert consortium.refresh(now=later).version == 2


def test_the_signers_absence_shows_after_a_year(consortium: Consortium) -> None:
    later = NOW + timedelta(days=366)
    consortium.repository.refresh_if_due(later)
    with pytest.raises(ReleaseError, match="past its date"):
        consortium.refresh(now=later)


def test_a_list_of_the_coordinators_own_is_refused(consortium: Consortium) -> None:
    """Its own model, listed with its online key: the signers did not sign it."""
    forged = consortium.release(2, b"its own model", keys=0)
    add_signatures(forged, [consortium.repository.online_key()])
    put_in_place(consortium, forged)
    with pytest.raises(SignatureError, match="not signed by those"):
        consortium.refresh()


def test_one_of_two_needed_signatures_is_refused(consortium: Consortium) -> None:
    once = consortium.release(2, keys=1)
    with pytest.raises(SignatureError, match="found 1"):
        check_threshold(once, TRUST)
    with pytest.raises(SignatureError, match="found 1"):
        consortium.repository.publish(once, NOW)
    put_in_place(consortium, once)
    with pytest.raises(SignatureError, match="1/2 keys"):
        consortium.refresh()


def put_in_place(consortium: Consortium, targets: Metadata[Targets]) -> None:
    """Publish a list in spite of everything, as a dishonest coordinator would."""
    consortium.repository._write(f"{targets.signed.version}.targets.json", targets)
    consortium.repository._renew_snapshot(NOW)
    consortium.repository._renew_timestamp(NOW)


def test_mix_and_match_a_list_of_another_snapshot_is_refused(consortium: Consortium) -> None:
    """Two lists of the same version, both signed by the signers, one of them shown to few."""
    other = Consortium(consortium.folder / "other")
    other.publish(1, b"another model that was signed once")
    mixed = consortium.served / "2.targets.json"
    mixed.write_bytes((other.served / "2.targets.json").read_bytes())
    with pytest.raises(ReleaseError, match="parts of two releases are mixed"):
        consortium.refresh()


def test_a_changed_byte_is_refused(consortium: Consortium) -> None:
    consortium.refresh()
    changed = MODEL.replace(b"honest", b"hOnest")
    with pytest.raises(ReleaseError, match="it was changed"):
        consortium.download(serving(consortium.served, lambda: iter([changed])))
    path = consortium.served / "2.targets.json"
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"1", b"9", 1))
    with pytest.raises(ReleaseError, match="it was changed"):
        consortium.refresh(client="another")


@pytest.mark.parametrize("where", ["targets/", "metadata/timestamp", "metadata/2.root"])
def test_endless_data_is_cut_off(consortium: Consortium, where: str) -> None:
    sent = 0

    def read(path: str) -> Iterator[bytes]:
        nonlocal sent
        if not path.startswith(where):
            yield from read_folder(consortium.served)(path)
            return
        while sent < 2**30:
            sent += 65536
            yield bytes(65536)

    with pytest.raises(ReleaseError, match="the transfer was ended"):
        consortium.download(read)
    assert sent <= 2**20


def test_a_signers_key_is_replaced_by_old_and_new_signers_together(consortium: Consortium) -> None:
    consortium.refresh()
    coming = TRUST.model_copy(update={"keys": (*TRUST.keys[1:], public_key(KEYS[3], "signer 3"))})
    targets = consortium.repository.next_targets({}, NOW)
    add_signatures(targets, [KEYS[1], KEYS[3]])
    for signers in ([KEYS[3]], [KEYS[1], KEYS[3]], [KEYS[0], KEYS[1]]):
        root = consortium.repository.next_root(coming, NOW)
        add_signatures(root, signers)
        with pytest.raises(SignatureError, match="lacks the threshold"):
            consortium.repository.publish_root(root, targets, NOW)
    root = consortium.repository.next_root(coming, NOW)
    add_signatures(root, [KEYS[0], KEYS[1], KEYS[3]])
    consortium.repository.publish_root(root, targets, NOW)
    listing = consortium.refresh()
    assert (listing.root.version, listing.root.trust) == (2, coming)
    assert listing.roots[0].trust == TRUST
    (pinned_late,) = follow_roots(coming, consortium.repository.roots())
    assert pinned_late.version == 2
    lonely = consortium.release(2, keys=0)
    add_signatures(lonely, [KEYS[0], KEYS[1]])  # one of them was replaced
    put_in_place(consortium, lonely)
    with pytest.raises(SignatureError, match="1/2 keys"):
        consortium.refresh()


def test_another_consortiums_root_is_refused(consortium: Consortium) -> None:
    strangers = TRUST.model_copy(update={"threshold": 1})
    with pytest.raises(ReleaseError, match="none of the 1 TUF roots"):
        follow_roots(strangers, consortium.repository.roots())
    theirs = TufClient(consortium.folder / "theirs", strangers, read_folder(consortium.served), NOW)
    with pytest.raises(ReleaseError, match="none of the"):
        theirs.refresh()


def test_what_was_fetched_can_be_verified_again_without_a_network(consortium: Consortium) -> None:
    consortium.refresh()
    kept = consortium.folder / "kept"
    keep_metadata(consortium.folder / "client", kept)
    assert consortium.refresh(read_folder(kept), client="offline").version == 2
    (kept / "2.targets.json").write_bytes(b"{}")
    with pytest.raises(FedtwinError):
        consortium.refresh(read_folder(kept), client="offline again")
