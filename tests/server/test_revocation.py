"""The list of revoked certificates: signed and dated; if it cannot be relied on, nobody gets in."""

import random
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fedtwin_protocol.credentials import new_key_and_request
from fedtwin_protocol.errors import IdentityError
from fedtwin_server.authority import Authority, IssuedLeaf, create_authority, renew_issuing
from fedtwin_server.revocation import IssuedBook, RevocationList, RevocationWatch

NOW = datetime(2026, 11, 2, 8, tzinfo=UTC)
HOUR = timedelta(hours=1)


@dataclass
class Office:
    """A CA, its book and its list."""

    authority: Authority
    book: IssuedBook

    @property
    def path(self) -> Path:
        return self.authority.home / "revoked.crl"

    def issue(self, name: str, now: datetime = NOW) -> IssuedLeaf:
        _, request = new_key_and_request()
        leaf = self.authority.issue_leaf(request, "site", name, now)
        self.book.add(leaf)
        return leaf

    def watch(self) -> RevocationWatch:
        return RevocationWatch(self.path, self.authority.issuer_pem)


def authority_in(folder: Path) -> Authority:
    return create_authority(
        folder, consortium="north", addresses=["localhost"], now=NOW, root_folder=folder / "offline"
    )


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    connection = sqlite3.connect(tmp_path / "book.sqlite", isolation_level=None)
    yield Office(authority=authority_in(tmp_path / "home"), book=IssuedBook(connection))
    connection.close()


def test_a_revoked_name_is_listed_and_gets_nothing_more(office: Office) -> None:
    alpha, beta = office.issue("alpha"), office.issue("beta")
    assert office.book.revoke("site", "alpha", NOW + HOUR) == 1
    office.book.publish(office.authority, NOW + HOUR)
    found = office.watch().current(NOW + HOUR)
    found.check(beta.identity)
    with pytest.raises(IdentityError, match=r"was revoked at 2026-11-02 09:00:00 UTC: ask north"):
        found.check(alpha.identity)
    with pytest.raises(IdentityError, match="gets no certificate"):
        office.issue("alpha")


def test_readmission_lifts_the_bar_but_not_the_old_certificates(office: Office) -> None:
    old = office.issue("alpha")
    office.book.revoke("site", "alpha", NOW)
    office.book.readmit("site", "alpha")
    new = office.issue("alpha")
    office.book.publish(office.authority, NOW)
    found = office.watch().current(NOW)
    found.check(new.identity)
    with pytest.raises(IdentityError, match="was revoked"):
        found.check(old.identity)


def test_a_misspelt_name_is_not_revoked_in_silence(office: Office) -> None:
    office.issue("alpha")
    with pytest.raises(IdentityError, match="is it misspelt"):
        office.book.revoke("site", "alhpa", NOW)


def absent(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    path.write_bytes(b"")


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def no_list(path: Path) -> None:
    path.write_bytes(b"nobody is revoked")


def of_another(path: Path) -> None:
    """Signed by another CA of the same name, without the revocation."""
    other = authority_in(path.parent / "other")
    connection = sqlite3.connect(":memory:", isolation_level=None)
    made = IssuedBook(connection).publish(other, NOW)
    connection.close()
    path.write_bytes(made.read_bytes())


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (absent, r"cannot be read \(No such file or directory\)"),
        (empty, "is damaged"),
        (cut_short, "is damaged"),
        (no_list, "is damaged"),
        (of_another, "is not signed by this consortium's issuing CA"),
    ],
)
def test_a_list_that_cannot_be_relied_on_lets_nobody_in_until_it_is_written_again(
    office: Office,
    spoil: Callable[[Path], None],
    reason: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    alpha = office.issue("alpha")
    office.book.revoke("site", "alpha", NOW)
    office.book.publish(office.authority, NOW)
    watch = office.watch()
    watch.current(NOW)
    spoil(office.path)
    for _ in range(2):
        with pytest.raises(IdentityError, match=f"nobody is let in, because .*{reason}"):
            watch.current(NOW)
    assert office.book.publish_if_due(office.authority, NOW)
    assert "the list of revoked certificates is written again: nobody is let in" in caplog.text
    with pytest.raises(IdentityError, match="was revoked"):
        watch.current(NOW).check(alpha.identity)


def test_a_list_past_its_date_lets_nobody_in(office: Office) -> None:
    office.book.publish(office.authority, NOW)
    watch = office.watch()
    watch.current(NOW + timedelta(hours=23.9))
    with pytest.raises(IdentityError, match=r"nobody is let in, .* past its date .* clock right"):
        watch.current(NOW + timedelta(hours=24))


def test_it_is_written_again_at_half_its_life(office: Office) -> None:
    assert office.book.publish_if_due(office.authority, NOW)
    assert not office.book.publish_if_due(office.authority, NOW + timedelta(hours=11.9))
    assert office.book.publish_if_due(office.authority, NOW + timedelta(hours=12))


def test_a_clock_that_went_back_writes_it_again(office: Office) -> None:
    """A list from the future would otherwise outlive its successors."""
    office.book.publish(office.authority, NOW + HOUR)
    assert office.book.publish_if_due(office.authority, NOW)


def test_no_changed_byte_goes_unnoticed(office: Office, tmp_path: Path) -> None:
    alpha = office.issue("alpha")
    office.book.revoke("site", "alpha", NOW)
    whole = office.book.publish(office.authority, NOW).read_bytes()
    chance, path = random.Random(4), tmp_path / "changed.crl"
    for position in range(len(whole)):
        changed = bytearray(whole)
        changed[position] ^= 1 << chance.randrange(8)
        path.write_bytes(changed)
        with pytest.raises(IdentityError, match=r"nobody is let in|was revoked"):
            RevocationList.load(path, office.authority.issuer_pem, NOW).check(alpha.identity)


def test_a_renewed_issuing_ca_signs_a_list_with_the_old_revocations(office: Office) -> None:
    alpha = office.issue("alpha")
    office.book.revoke("site", "alpha", NOW)
    office.book.publish(office.authority, NOW)
    home = office.authority.home
    office.authority = renew_issuing(home, home / "offline", NOW + HOUR)
    with pytest.raises(IdentityError, match="not signed by this consortium's issuing CA"):
        office.watch().current(NOW + HOUR)
    assert office.book.publish_if_due(office.authority, NOW + HOUR)
    with pytest.raises(IdentityError, match="was revoked"):
        office.watch().current(NOW + HOUR).check(alpha.identity)


def test_a_serial_leaves_the_list_a_day_after_it_expired(office: Office) -> None:
    office.issue("alpha")
    office.book.revoke("site", "alpha", NOW)
    sizes = []
    for hours in (1, 47, 49):
        then = NOW + timedelta(hours=hours)
        office.book.publish(office.authority, then)
        sizes.append(len(office.watch().current(then)))
    assert sizes == [1, 1, 0]
