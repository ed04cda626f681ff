"""Messages that nobody agreed on, drawn by hypothesis: well formed, odd, or with spoilt bytes."""

from collections.abc import Sequence
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from hypothesis import strategies as st

EDGES = (0, 1, 2, 255, 2**31 - 1, 2**32 - 1, 2**53, 2**63 - 1, 2**64 - 1)
NUMBERS = {
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
}


def messages(
    kind: type[Message], known: Sequence[str | bytes] = (), depth: int = 5
) -> st.SearchStrategy[Message]:
    """Messages of a kind, with any of its fields set to anything of the right type.

    Args:
        kind: the message's class.
        known: texts and bytes that mean something to the receiver, used often.
        depth: of messages in messages.
    """

    @st.composite
    def drawn(draw: Any) -> Message:
        made = kind()
        fields = [f for f in kind.DESCRIPTOR.fields if depth > 0 or f.message_type is None]
        for field in draw(st.lists(st.sampled_from(fields), max_size=6)) if fields else ():
            if field.is_repeated:
                target = getattr(made, field.name)
                values = draw(st.lists(value(field, known, depth), max_size=3))
                target.extend(values)
            elif field.message_type is not None:
                getattr(made, field.name).CopyFrom(draw(value(field, known, depth)))
            else:
                setattr(made, field.name, draw(value(field, known, depth)))
        return made

    return drawn()


def value(
    field: FieldDescriptor, known: Sequence[str | bytes], depth: int
) -> st.SearchStrategy[Any]:
    """Values of one field."""
    if field.message_type is not None:
        return messages(field.message_type._concrete_class, known, depth - 1)
    if field.cpp_type in NUMBERS:
        low, high = NUMBERS[field.cpp_type]
        edges = [number for number in EDGES if number <= high]
        return st.sampled_from(edges) | st.integers(low, high)
    said = [item for item in known if isinstance(item, bytes)] or [b""]
    told = [item for item in known if isinstance(item, str)] or [""]
    others: dict[int, st.SearchStrategy[Any]] = {
        FieldDescriptor.TYPE_ENUM: st.integers(0, 9),
        FieldDescriptor.TYPE_BOOL: st.booleans(),
        FieldDescriptor.TYPE_BYTES: st.sampled_from(said) | st.binary(max_size=80),
        FieldDescriptor.TYPE_STRING: st.sampled_from(told) | st.text(max_size=80),
    }
    return others.get(field.type, st.floats())


@st.composite
def spoilt(draw: Any, whole: st.SearchStrategy[Message]) -> bytes:
    """A message's bytes, some of them changed, taken out or put in."""
    data = bytearray(draw(whole).SerializeToString())
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, len(data)))
        match draw(st.sampled_from(["change", "cut", "insert"])):
            case "change" if place < len(data):
                data[place] ^= draw(st.integers(1, 255))
            case "cut":
                del data[place:]
            case "insert":
                data[place:place] = draw(st.binary(min_size=1, max_size=12))
    return bytes(data)
