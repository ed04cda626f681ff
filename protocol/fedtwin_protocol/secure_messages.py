"""The five steps of a secure sum as tasks and answers, and what their signatures cover.

| step | the coordinator sends | a site answers |
|---|---|---|
| keys | nothing | two fresh public keys, signed |
| shares | everybody's keys with signatures | for every other site a sealed pair of shares |
| masked | the shares sealed for this site, and the round's model | its masked part |
| confirm | whose parts came in | a signature over that set |
| unmask | the signatures over the set | a share of each site: see below |

In the last step a site gives of each one in the set a share of the seed of its own mask, and of
each one that vanished after the shares a share of its mask key; never both of the same site.

A task's kind is its purpose and its step (`sum_steps`), such as `train.keys`.
"""

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Final

from fedtwin_protocol.canonical import canonical_bytes
from fedtwin_protocol.errors import WireError
from fedtwin_protocol.payload import FieldValue, Payload, pack, unpack
from fedtwin_protocol.v1 import exchange_pb2 as pb

RECORD: Final = "secure-sum"
PART: Final = "masked-part"
KEYS_PURPOSE: Final = "application/vnd.fedtwin.round-keys"
SET_PURPOSE: Final = "application/vnd.fedtwin.survivors"
LARGEST_FIELD: Final = 256
Fields = Mapping[str, FieldValue]


def keys_body(label: str, site: str, mask: bytes, channel: bytes, commitment: bytes) -> bytes:
    """What a site signs of its fresh public keys and of the seed of its own mask."""
    keys = {"mask": mask.hex(), "channel": channel.hex(), "commitment": commitment.hex()}
    return canonical_bytes({"sum": label, "site": site, **keys})


def commitment_to(seed: bytes) -> bytes:
    """What shows later that a seed is the right one; 32 random bytes cannot be found from it."""
    return sha256(b"fedtwin seed of a mask" + seed).digest()


def set_body(label: str, survivors: Sequence[str]) -> bytes:
    """What a site signs of the set of sites whose parts came in."""
    return canonical_bytes({"sum": label, "survivors": sorted(survivors)})


def sealing(label: str, sender: str, receiver: str) -> str:
    """What shares are sealed for: one sum, one sender, one receiver."""
    return f"fedtwin shares {label} {sender} {receiver}"


def content_of(fields: Fields) -> pb.Content:
    """A small content with the fields of a step."""
    records, _ = pack(Payload(config={RECORD: fields}))
    return pb.Content(records=records)


def with_fields(content: pb.Content, fields: Fields) -> pb.Content:
    """A copy of a content with the fields of a step; its arrays stay where they are."""
    added = pb.Content()
    added.CopyFrom(content)
    added.records.extend(content_of(fields).records)
    return added


def fields_of(content: pb.Content) -> dict[str, FieldValue]:
    """The fields of a step.

    Raises:
        WireError: there are none.
    """
    records = [item for item in content.records if item.name == RECORD and not item.arrays]
    if len(records) != 1 or records[0].kind != pb.Record.CONFIG:
        raise WireError("the message belongs to no secure sum: its fields are missing")
    return dict(unpack(records, b"").config[RECORD])


def raw(fields: Fields, name: str, length: int) -> bytes:
    """A field of so many bytes.

    Raises:
        WireError: it is absent, or another thing.
    """
    value = fields.get(name)
    if not isinstance(value, bytes) or len(value) != length:
        raise WireError(f"expected {length} bytes as '{name}' of a secure sum")
    return value


def raws(fields: Fields, name: str, count: int) -> list[bytes]:
    """A field of so many byte strings.

    Raises:
        WireError: it is absent, or another thing.
    """
    value = fields.get(name)
    items = value if isinstance(value, list) else []
    found = [item for item in items if isinstance(item, bytes) and len(item) <= LARGEST_FIELD]
    if not isinstance(value, list) or len(found) != len(items) or len(found) != count:
        raise WireError(f"expected {count} byte strings as '{name}' of a secure sum")
    return found


def names(fields: Fields, name: str, known: Sequence[str], least: int) -> list[str]:
    """A field of different site names in order, each of them known.

    Raises:
        WireError: it is absent, or holds another name, one twice, or fewer than `least`.
    """
    value = fields.get(name)
    items = value if isinstance(value, list) else []
    found = [item for item in items if isinstance(item, str) and item in known]
    if len(found) != len(items) or found != sorted(set(found)):
        raise WireError(f"'{name}' of a secure sum names a site twice, or one not in the plan")
    if len(found) < least:
        raise WireError(f"'{name}' of a secure sum names {len(found)} sites; {least} are needed")
    return found
