"""What the CA issues, by profile, and what it refuses to sign."""

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fedtwin_protocol.credentials import Credentials, load_credentials, new_key_and_request
from fedtwin_protocol.errors import ConfigurationError, IdentityError
from fedtwin_protocol.identity import certificates_from_pem
from fedtwin_server.authority import Authority, create_authority, renew_issuing

NOW = datetime(2026, 11, 2, 8, tzinfo=UTC)
DAY = timedelta(hours=24)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    folder = tmp_path_factory.mktemp("coordinator")
    return create_authority(
        folder,
        consortium="north",
        addresses=["fed.example.org", "10.0.0.7"],
        now=NOW,
        root_folder=folder / "offline",
    )


def member(authority: Authority, role: str = "site", life: timedelta = DAY) -> Credentials:
    key_pem, request = new_key_and_request()
    leaf = authority.issue_leaf(request, role, "alpha", NOW, life)
    return Credentials(key_pem=key_pem, chain_pem=leaf.chain_pem, roots_pem=authority.roots_pem)


def leaf_of(credentials: Credentials) -> x509.Certificate:
    return certificates_from_pem(credentials.chain_pem)[0]


def names(certificate: x509.Certificate) -> list[str]:
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return [str(name.value) for name in found]


def uses(certificate: x509.Certificate) -> list[x509.ObjectIdentifier]:
    return list(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)


@pytest.mark.parametrize("role", ["site", "researcher"])
def test_a_member_has_one_uri_name_and_is_a_client_only(authority: Authority, role: str) -> None:
    leaf = leaf_of(member(authority, role))
    assert names(leaf) == [f"spiffe://north/{role}/alpha"]
    assert uses(leaf) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert leaf.not_valid_after_utc - NOW == DAY


def test_the_coordinator_is_a_server_only(authority: Authority) -> None:
    leaf = leaf_of(load_credentials(authority.home / "coordinator"))
    assert names(leaf) == ["spiffe://north/coordinator", "fed.example.org", "10.0.0.7"]
    assert uses(leaf) == [ExtendedKeyUsageOID.SERVER_AUTH]


def test_nothing_but_the_two_cas_can_sign(authority: Authority) -> None:
    chain = certificates_from_pem(member(authority).chain_pem + authority.roots_pem)
    limits = [
        each.extensions.get_extension_for_class(x509.BasicConstraints).value for each in chain
    ]
    assert [(each.ca, each.path_length) for each in limits] == [(False, None), (True, 0), (True, 1)]


def test_key_files_are_for_their_owner_only(authority: Authority) -> None:
    paths = [path for path in authority.home.rglob("*") if path.is_file()]
    private = {path.name for path in paths if b"PRIVATE KEY" in path.read_bytes()}
    assert private == {"root.key", "credentials.pem"}
    modes = {path.stat().st_mode & 0o777 for path in paths if path.name in private}
    assert modes == {0o600}


def test_the_online_home_does_not_hold_the_root_key(authority: Authority, tmp_path: Path) -> None:
    root = (authority.home / "offline" / "root.key").read_bytes()
    online = [*authority.home.glob("authority/*"), *authority.home.glob("coordinator/*")]
    assert online
    assert not [path for path in online if root in path.read_bytes()]
    with pytest.raises(IdentityError, match="there is no root key"):
        renew_issuing(authority.home, tmp_path, NOW)


@pytest.mark.parametrize("life", [timedelta(seconds=20), timedelta(minutes=5), DAY, DAY * 14])
def test_renewal_is_due_at_two_thirds_of_a_life_and_never_at_once(
    authority: Authority, life: timedelta
) -> None:
    due = member(authority, life=life).renew_at - NOW
    assert 0.64 < due / life <= 2 / 3


@pytest.mark.parametrize("life", [timedelta(0), timedelta(seconds=-1), DAY * 14.1])
def test_a_life_out_of_bounds_is_refused(authority: Authority, life: timedelta) -> None:
    with pytest.raises(IdentityError, match="at most 14 days"):
        member(authority, life=life)


@pytest.mark.parametrize(
    ("name", "role"),
    [("Alpha", "site"), ("a/b", "site"), ("alpha", "coordinator"), ("", "site"), ("é-1", "site")],
)
def test_a_name_or_role_that_could_be_misread_is_refused(
    authority: Authority, name: str, role: str
) -> None:
    _, request = new_key_and_request()
    with pytest.raises(IdentityError, match=r"expected a (name|role)"):
        authority.issue_leaf(request, role, name, NOW)


def test_names_in_a_request_count_for_nothing(authority: Authority) -> None:
    """A site that asks to be the coordinator gets a certificate for itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    wanted = [
        x509.UniformResourceIdentifier("spiffe://north/coordinator"),
        x509.DNSName("fed.example.org"),
    ]
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "coordinator")]))
        .add_extension(x509.SubjectAlternativeName(wanted), critical=True)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.DER)
    )
    leaf = certificates_from_pem(authority.issue_leaf(request, "site", "alpha", NOW).chain_pem)[0]
    assert names(leaf) == ["spiffe://north/site/alpha"]
    assert uses(leaf) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert "coordinator" not in leaf.subject.rfc4514_string()


def request_with(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


@pytest.mark.parametrize(
    ("request_der", "sentence"),
    [
        (b"", "PKCS#10"),
        (b"no request at all", "PKCS#10"),
        (request_with(rsa.generate_private_key(65537, 2048)), "for an EC P-256 key"),
        (request_with(ec.generate_private_key(ec.SECP384R1())), "for an EC P-256 key"),
    ],
)
def test_a_request_of_another_kind_is_refused(
    authority: Authority, request_der: bytes, sentence: str
) -> None:
    with pytest.raises(IdentityError, match=sentence):
        authority.check_request(request_der)


def test_a_changed_byte_never_gets_another_key_certified(authority: Authority) -> None:
    """All but the count of unused bits at the signature's end is refused."""
    _, whole = new_key_and_request()
    key, refused = authority.check_request(whole), 0
    chance = random.Random(3)
    for position in range(len(whole)):
        changed = bytearray(whole)
        changed[position] ^= 1 << chance.randrange(8)
        try:
            assert authority.check_request(bytes(changed)) == key
        except IdentityError:
            refused += 1
    assert refused >= len(whole) - 1


def test_a_coordinator_with_a_wrong_clock_issues_nothing(authority: Authority) -> None:
    _, request = new_key_and_request()
    for now in (NOW - timedelta(hours=1), NOW + timedelta(days=400)):
        with pytest.raises(IdentityError, match="set this computer's clock"):
            authority.issue_leaf(request, "site", "alpha", now)


def test_a_ca_is_never_overwritten(authority: Authority, tmp_path: Path) -> None:
    before = (authority.home / "authority" / "credentials.pem").read_bytes()
    with pytest.raises(ConfigurationError, match="never overwritten"):
        create_authority(
            authority.home,
            consortium="north",
            addresses=["localhost"],
            now=NOW,
            root_folder=tmp_path,
        )
    assert (authority.home / "authority" / "credentials.pem").read_bytes() == before
