"""MLLP without a socket: frames, acknowledgements and their modes."""

from typing import Any

import hl7
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtwin_client.records.hl7.mllp_acks import acknowledgements, received_of
from fedtwin_client.records.hl7.mllp_frames import Frame, FrameCutter

from .hl7_parts import NOW
from .mllp_site import END, START, codes, framed, numbered


@pytest.mark.parametrize(
    ("accept", "application", "outcome", "sent"),
    [
        ("", "", "stored", ["AA"]),
        ("", "", "aside", ["AE"]),
        ("", "", "again", ["AR"]),
        ("AL", "NE", "stored", ["CA"]),
        ("AL", "NE", "aside", ["CA"]),
        ("AL", "NE", "again", ["CR"]),
        ("AL", "AL", "stored", ["CA", "AA"]),
        ("AL", "AL", "aside", ["CA", "AE"]),
        ("AL", "AL", "again", ["CR"]),
        ("NE", "AL", "stored", ["AA"]),
        ("NE", "AL", "again", ["AR"]),
        ("", "ER", "stored", []),
        ("", "ER", "aside", ["AE"]),
        ("ER", "NE", "stored", []),
        ("ER", "NE", "again", ["CR"]),
        ("SU", "SU", "stored", ["CA", "AA"]),
        ("SU", "SU", "again", []),
        ("NE", "NE", "again", []),
    ],
)
def test_enhanced_mode_is_honoured(
    accept: str, application: str, outcome: Any, sent: list[str]
) -> None:
    received = received_of(numbered(7, f15=accept, f16=application).encode())
    made = acknowledgements(received, outcome, "a|b^c", now=NOW, number="n")
    assert codes([hl7.parse(one.decode()) for one in made]) == [(code, "M7") for code in sent]
    assert len({str(hl7.parse(one.decode())["MSH"][0][10]) for one in made}) == len(made)


def test_delimiters_of_the_sender_are_used_and_reasons_hold_none() -> None:
    text = numbered(7).translate(str.maketrans("|^", "#!"))
    (made,) = acknowledgements(received_of(text.encode()), "aside", "a#b!c", now=NOW, number="n")
    assert hl7.parse(made.decode())["MSA"][0][3][0] == "a b c"


_PIECES = st.lists(
    st.sampled_from([START, END, b"\x1c", b"\r", b"MSH|^~\\&|", b"x", framed("hello")]), max_size=12
)


@settings(max_examples=200, deadline=None)
@given(_PIECES, st.data())
def test_frames_do_not_depend_on_packets(pieces: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(pieces)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=5)))
    parts = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]

    def cut(packets: list[bytes]) -> list[Frame]:
        cutter = FrameCutter(40)
        return [frame for packet in packets for frame in cutter.feed(packet)] + cutter.finish()

    assert cut(parts) == cut([whole])
    held = b"".join(frame.data for frame in cut([whole]) if frame.kind == "message")
    assert held.count(b"hello") <= whole.count(b"hello")
