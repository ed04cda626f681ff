"""Pseudonyms and the one way back."""

import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtwin_client.records.pseudonyms import (
    Identity,
    IdentityMap,
    Pseudonyms,
    open_secret,
    pseudonym,
)
from fedtwin_protocol.errors import ConfigurationError, RecordError

SECRET = bytes(range(32))


def test_a_pseudonym_is_the_first_63_bits_of_the_hmac() -> None:
    # printf '%s' 'sys|1' | openssl dgst -sha256 -mac HMAC -macopt hexkey:000102...1f
    import hashlib
    import hmac

    digest = hmac.new(SECRET, b"sys|1", hashlib.sha256).hexdigest()
    assert pseudonym(SECRET, Identity("sys", "1")) == int(digest[:16], 16) >> 1


@given(st.text(max_size=20), st.binary(min_size=32, max_size=32))
def test_it_fits_an_int64_and_depends_on_the_secret(value: str, secret: bytes) -> None:
    made = pseudonym(secret, Identity("sys", value))
    assert 0 <= made < 2**63
    if secret != SECRET:
        assert made != pseudonym(SECRET, Identity("sys", value))


def test_the_map_leads_back_and_is_the_owners_alone(tmp_path: Path) -> None:
    given_out = Pseudonyms(SECRET)
    identity = Identity("http://hospital/mrn", "007")
    subject = given_out.of(identity)
    identities = IdentityMap(tmp_path / "map.sqlite")
    identities.record(given_out.identities([subject]), {"fhir:Patient/1": identity})
    again = IdentityMap(tmp_path / "map.sqlite")
    assert again.who_is(subject) == identity
    assert again.addresses() == {"fhir:Patient/1": identity}
    assert stat.S_IMODE((tmp_path / "map.sqlite").stat().st_mode) == 0o600
    with pytest.raises(RecordError, match="pseudonym of this site"):
        again.who_is(5)


def test_two_patients_never_share_a_pseudonym(tmp_path: Path) -> None:
    identities = IdentityMap(tmp_path / "map.sqlite")
    identities.record({5: Identity("s", "1")}, {})
    with pytest.raises(RecordError, match="two patients have one pseudonym"):
        identities.record({5: Identity("s", "2"), 6: Identity("s", "3")}, {})
    with pytest.raises(RecordError):
        identities.who_is(6)


def test_a_secret_is_made_once_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "secret"
    assert open_secret(path, SECRET) == SECRET
    assert open_secret(path, bytes(32)) == SECRET
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_spoilt_secret_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"short")
    with pytest.raises(ConfigurationError, match="32 bytes, found 5"):
        open_secret(tmp_path / "secret", SECRET)
    with pytest.raises(ConfigurationError, match="32 bytes"):
        Pseudonyms(b"")
