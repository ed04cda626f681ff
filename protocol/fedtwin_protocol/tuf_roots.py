"""The chain of TUF roots: from the signers that were pinned to those who count today.

Root metadata (TUF specification 1.0.31, section 5.3) names the keys of every role. In ours the
roles `root` and `targets` have the same keys, the consortium's signers, and the same threshold;
`snapshot` and `timestamp` have one key, the coordinator's online key, which also signs the log's
heads. A root N+1 is believed when the threshold of root N's signers and that of its own have
signed it, so that a signer's key can be replaced by the others and by nobody else.

A key's id is the SHA-256 of its 32 public bytes, so that one key cannot count twice.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from securesystemslib.signer import Key, SSlibKey
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Role, Root
from tuf.api.serialization import DeserializationError

from fedtwin_protocol.errors import ReleaseError, SignatureError
from fedtwin_protocol.signing import SigningKey, TrustRoot

HOLDER: Final = "x-fedtwin-holder"
CONSORTIUM: Final = "x-fedtwin-consortium"
SIGNED_BY_SIGNERS: Final = ("root", "targets")
SIGNED_ONLINE: Final = ("snapshot", "timestamp")
LARGEST_ROOT_BYTES: Final = 512_000


@dataclass(frozen=True, kw_only=True, slots=True)
class TrustedRoot:
    """A root that was believed.

    Attributes:
        version: its number.
        data: its bytes.
        trust: the signers that it names.
        online: the coordinator's online key.
    """

    version: int
    data: bytes
    trust: TrustRoot
    online: SigningKey


def tuf_key(key: SigningKey) -> Key:
    """A key as TUF metadata spells it."""
    public = base64.b64decode(key.public).hex()
    return SSlibKey(key.key_id, "ed25519", "ed25519", {"public": public}, {HOLDER: key.holder})


def make_root(trust: TrustRoot, online: SigningKey) -> Root:
    """Root metadata without version and expiry, for these signers."""
    signers = [key.key_id for key in trust.keys]
    roles = {name: Role(signers, trust.threshold) for name in SIGNED_BY_SIGNERS}
    roles |= {name: Role([online.key_id], 1) for name in SIGNED_ONLINE}
    keys = {key.key_id: tuf_key(key) for key in (*trust.keys, online)}
    return Root(
        keys=keys,
        roles=roles,
        consistent_snapshot=True,
        unrecognized_fields={CONSORTIUM: trust.consortium},
    )


def read_root(data: bytes) -> tuple[TrustedRoot, Metadata[Root]]:
    """Read root metadata of our form; its signatures are not looked at.

    Raises:
        ReleaseError: it is none.
    """
    if len(data) > LARGEST_ROOT_BYTES:
        raise ReleaseError(f"the TUF root has {len(data)} bytes; at most {LARGEST_ROOT_BYTES}")
    try:
        metadata: Metadata[Root] = Metadata.from_bytes(data)
        root = metadata.signed
        if not isinstance(root, Root):
            raise ReleaseError("what was sent as the TUF root is other metadata")
        signers, online = root.roles["root"], root.roles["timestamp"]
        for name, expected in (("targets", signers), ("snapshot", online)):
            if root.roles[name] != expected:
                raise ReleaseError(f"the TUF root gives the role {name} keys of its own")
        (online_id,) = online.keyids
        trust = TrustRoot(
            consortium=str(root.unrecognized_fields[CONSORTIUM]),
            keys=tuple(_signing_key(root, key_id) for key_id in signers.keyids),
            threshold=signers.threshold,
        )
        found = TrustedRoot(
            version=root.version, data=data, trust=trust, online=_signing_key(root, online_id)
        )
    except (DeserializationError, RepositoryError, KeyError, ValueError) as error:
        raise ReleaseError(f"the TUF root cannot be read: {error}") from error
    return found, metadata


def follow_roots(pinned: TrustRoot, roots: Sequence[bytes]) -> list[TrustedRoot]:
    """Believe a chain of roots, from the first one that names the pinned signers on.

    Args:
        pinned: the signers that an invitation named, or an older root.
        roots: oldest first.

    Returns:
        The roots from that one on; the last one's signers count today.

    Raises:
        ReleaseError: no root names the pinned signers, or one is no root.
        SignatureError: a root lacks signatures of those before it, or of its own signers.
    """
    chain: list[TrustedRoot] = []
    before: Root | None = None
    for data in roots:
        found, metadata = read_root(data)
        if before is None and not _same(found.trust, pinned):
            continue
        try:
            result = metadata.signed.get_root_verification_result(
                before, metadata.signed_bytes, metadata.signatures
            )
        except ValueError as error:
            raise ReleaseError(f"the TUF roots do not follow one another: {error}") from error
        if not result:
            named = len(result.signed)
            raise SignatureError(
                f"TUF root {found.version} of {pinned.consortium} bears {named} signatures that "
                "count, and lacks the threshold of the signers before it or of its own"
            )
        if chain and found.trust.consortium != pinned.consortium:
            raise ReleaseError(f"TUF root {found.version} is one of {found.trust.consortium}")
        chain.append(found)
        before = metadata.signed
    if not chain:
        raise ReleaseError(
            f"none of the {len(roots)} TUF roots shown names the signers that are pinned for "
            f"{pinned.consortium}: it is another consortium's, or forged"
        )
    return chain


def _same(one: TrustRoot, other: TrustRoot) -> bool:
    """The same consortium, public keys and threshold; holders' names are for people."""
    keys = ({key.public for key in trust.keys} for trust in (one, other))
    return (
        one.consortium == other.consortium
        and one.threshold == other.threshold
        and next(keys) == next(keys)
    )


def _signing_key(root: Root, key_id: str) -> SigningKey:
    key = root.keys[key_id]
    if (key.keytype, key.scheme) != ("ed25519", "ed25519"):
        raise ReleaseError(f"the TUF root holds a key of kind {key.keytype}; expected Ed25519")
    public = base64.b64encode(bytes.fromhex(key.keyval["public"])).decode("ascii")
    found = SigningKey(holder=str(key.unrecognized_fields.get(HOLDER, "?")), public=public)
    if found.key_id != key_id:
        raise ReleaseError("the TUF root names a key by an id that is not its own")
    return found
