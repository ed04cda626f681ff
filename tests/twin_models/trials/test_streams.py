"""Every patient has a stream of their own."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtwin_twins.trials.streams import Streams


@given(
    seed=st.integers(0, 2**40),
    first=st.integers(0, 50),
    count=st.integers(1, 40),
    draw=st.integers(0, 3),
)
def test_a_patient_does_not_depend_on_the_others(
    seed: int, first: int, count: int, draw: int
) -> None:
    whole = Streams(seed=seed, replicates=(3,), first=0, count=first + count + 7)
    part = Streams(seed=seed, replicates=(3,), first=first, count=count)
    expected = whole.uniforms("dose", draw)[first : first + count]
    assert (part.uniforms("dose", draw) == expected).all()


def test_seed_replicate_purpose_and_draw_all_matter() -> None:
    start = Streams(seed=1, replicates=(0,), first=0, count=5)
    others = [
        Streams(seed=2, replicates=(0,), first=0, count=5).uniforms("a"),
        Streams(seed=1, replicates=(1,), first=0, count=5).uniforms("a"),
        start.uniforms("b"),
        start.uniforms("a", 1),
    ]
    assert all((start.uniforms("a") != other).all() for other in others)


def test_numbers_are_uniform_and_normal() -> None:
    streams = Streams(seed=5, replicates=(0,), first=0, count=200_000)
    uniform, normal = streams.uniforms("a"), streams.many_normals("b", 2)
    assert 0 < uniform.min() < uniform.max() < 1
    assert np.histogram(uniform, 10, (0, 1))[0] == pytest.approx(20_000, rel=0.03)
    assert normal.mean(axis=0) == pytest.approx(0, abs=0.01)
    assert normal.std(axis=0) == pytest.approx(1, abs=0.01)
    assert np.corrcoef(normal.T)[0, 1] == pytest.approx(0, abs=0.01)


def test_choices_follow_their_shares() -> None:
    streams = Streams(seed=5, replicates=(0,), first=0, count=100_000)
    found = np.bincount(streams.choices("a", np.array([0.2, 0.0, 0.8])), minlength=3)
    assert found[1] == 0
    assert found[0] == pytest.approx(20_000, rel=0.03)


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(ValueError, match="expected seed of at least 0, found -1"):
        Streams(seed=-1, replicates=(0,), first=0, count=1)
