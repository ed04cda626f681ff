"""Invitations as the coordinator keeps them: hashed, for one name, once, for a day, five tries."""

import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fedtwin_protocol.canonical import sha256_hex
from fedtwin_protocol.errors import IdentityError, InvitationError
from fedtwin_protocol.invitation import Invitation, read_invitation, write_invitation
from fedtwin_protocol.signing import TrustRoot
from fedtwin_server.authority import Authority, create_authority
from fedtwin_server.consortium import make_signer
from fedtwin_server.invitations import Guest, InvitationBook

NOW = datetime(2026, 11, 2, 8, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("coordinator")
    create_authority(
        folder,
        consortium="north",
        addresses=["localhost"],
        now=NOW,
        root_folder=folder / "offline",
    )
    make_signer(folder / "signer.key", "oslo")
    return folder


@pytest.fixture(scope="module")
def trust(home: Path) -> TrustRoot:
    key = make_signer(home / "another.key", "oslo")
    return TrustRoot(consortium="north", keys=(key,), threshold=1)


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    made = sqlite3.connect(tmp_path / "book.sqlite", isolation_level=None)
    yield made
    made.close()


class Desk:
    """A book with its CA; the time is handed in."""

    def __init__(self, home: Path, trust: TrustRoot, connection: sqlite3.Connection) -> None:
        self.book = InvitationBook(connection)
        self._authority = Authority.load(home)
        self._trust = trust

    def invite(self, name: str, role: str = "site", **changes: timedelta) -> Invitation:
        guest = Guest(role=role, name=name, address="localhost:8443", **changes)
        return self.book.create(guest, self._authority, self._trust, NOW)

    def refusal(
        self, shown_id: str, name: str, role: str = "site", now: datetime = NOW + HOUR
    ) -> str:
        with pytest.raises(InvitationError) as caught:
            self.book.redeem(shown_id, name, role, now)
        return str(caught.value)


@pytest.fixture
def desk(home: Path, trust: TrustRoot, connection: sqlite3.Connection) -> Desk:
    return Desk(home, trust, connection)


def test_the_secret_has_256_bits_and_differs_each_time(desk: Desk) -> None:
    secrets = {desk.invite("alpha").secret for _ in range(20)}
    assert len(secrets) == 20
    assert {len(secret) for secret in secrets} == {43}  # 32 bytes in base64url


def test_the_database_holds_a_hash_and_nothing_it_could_be_used_with(
    desk: Desk, tmp_path: Path
) -> None:
    invitation = desk.invite("alpha")
    stored = b"".join(path.read_bytes() for path in tmp_path.glob("book.sqlite*"))
    assert sha256_hex(invitation.invitation_id.encode()).encode() in stored
    assert invitation.invitation_id.encode() not in stored
    assert invitation.secret.encode() not in stored
    assert bytes.fromhex(invitation.invitation_id) not in stored


def test_it_can_be_used_once(desk: Desk) -> None:
    invitation = desk.invite("alpha")
    desk.book.redeem(invitation.invitation_id, "alpha", "site", NOW + HOUR)
    expected = "used already, at 2026-11-02 09:00:00 UTC: ask for a new invitation of site alpha"
    assert expected in desk.refusal(invitation.invitation_id, "alpha")


@pytest.mark.parametrize(("hours", "usable"), [(23.99, True), (24, False), (1000, False)])
def test_it_holds_for_a_day(desk: Desk, hours: float, usable: bool) -> None:
    invitation = desk.invite("alpha")
    assert invitation.expires == NOW + timedelta(hours=24)
    then = NOW + timedelta(hours=hours)
    if usable:
        desk.book.redeem(invitation.invitation_id, "alpha", "site", then)
    else:
        assert "expired at 2026-11-03 08:00:00 UTC" in desk.refusal(
            invitation.invitation_id, "alpha", now=then
        )


@pytest.mark.parametrize(("name", "role"), [("beta", "site"), ("alpha", "researcher")])
def test_it_is_bound_to_name_and_role(desk: Desk, name: str, role: str) -> None:
    invitation = desk.invite("alpha")
    assert "another name or role" in desk.refusal(invitation.invitation_id, name, role)
    desk.book.redeem(invitation.invitation_id, "alpha", "site", NOW + HOUR)


@pytest.mark.parametrize(("tries", "locked"), [(4, False), (5, True)])
def test_five_wrong_ids_lock_it(desk: Desk, tries: int, locked: bool) -> None:
    invitation, other = desk.invite("alpha"), desk.invite("beta")
    for index in range(tries):
        assert "unknown here" in desk.refusal(f"{index:064x}", "alpha")
    if locked:
        assert "locked after 5 failed tries" in desk.refusal(invitation.invitation_id, "alpha")
    else:
        desk.book.redeem(invitation.invitation_id, "alpha", "site", NOW + HOUR)
    desk.book.redeem(other.invitation_id, "beta", "site", NOW + HOUR)


def test_five_tries_under_other_names_lock_it_too(desk: Desk) -> None:
    invitation = desk.invite("alpha")
    for index in range(5):
        desk.refusal(invitation.invitation_id, f"thief-{index}")
    assert "locked" in desk.refusal(invitation.invitation_id, "alpha")


def test_a_newer_one_replaces_it(desk: Desk) -> None:
    older, newer = desk.invite("alpha"), desk.invite("alpha")
    assert "replaced by a newer one" in desk.refusal(older.invitation_id, "alpha")
    desk.book.redeem(newer.invitation_id, "alpha", "site", NOW + HOUR)


def test_a_longer_life_than_two_weeks_is_refused(desk: Desk) -> None:
    with pytest.raises(IdentityError, match="at most 14 days"):
        desk.invite("alpha", lifetime=timedelta(days=15))


def test_the_bootstrap_certificate_ends_with_it(desk: Desk) -> None:
    invitation = desk.invite("alpha", lifetime=HOUR)
    identity = invitation.bootstrap_credentials().identity
    assert identity.uri == "spiffe://north/invited/site/alpha"
    assert identity.not_after == invitation.expires == NOW + HOUR


class TestTheFile:
    def test_only_its_owner_can_read_it(self, desk: Desk, tmp_path: Path) -> None:
        path = tmp_path / "alpha.invitation"
        write_invitation(path, desk.invite("alpha"))
        assert path.stat().st_mode & 0o777 == 0o600
        assert read_invitation(path, NOW).name == "alpha"
        path.chmod(0o640)
        with pytest.raises(InvitationError, match=r"open to other users.*chmod 600"):
            read_invitation(path, NOW)

    def test_a_changed_name_does_not_fit_its_certificate(self, desk: Desk, tmp_path: Path) -> None:
        path = tmp_path / "alpha.invitation"
        write_invitation(path, desk.invite("alpha"))
        path.write_text(path.read_text().replace('"name":"alpha"', '"name":"bravo"'))
        with pytest.raises(InvitationError, match="is no whole invitation"):
            read_invitation(path, NOW)

    @pytest.mark.parametrize(
        ("now", "sentence"),
        [
            (NOW + timedelta(hours=25), "if that time lies ahead, this computer's clock is wrong"),
            (NOW - HOUR, "is not valid before .* compare the clocks"),
        ],
    )
    def test_a_wrong_clock_is_named(
        self, desk: Desk, tmp_path: Path, now: datetime, sentence: str
    ) -> None:
        path = tmp_path / "alpha.invitation"
        write_invitation(path, desk.invite("alpha"))
        with pytest.raises(IdentityError, match=sentence):
            read_invitation(path, now)

    def test_a_sentence_about_a_damaged_file_does_not_show_the_secret(
        self, desk: Desk, tmp_path: Path
    ) -> None:
        path, invitation = tmp_path / "alpha.invitation", desk.invite("alpha")
        write_invitation(path, invitation)
        path.write_text(path.read_text().replace(invitation.secret, invitation.secret[:-4]))
        with pytest.raises(InvitationError) as caught:
            read_invitation(path, NOW)
        assert "the secret is not 32 bytes long" in str(caught.value)
        assert invitation.secret[:-4] not in str(caught.value)
        assert invitation.secret not in repr(invitation)
