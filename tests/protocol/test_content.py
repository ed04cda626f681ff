"""Contents, inline and in blobs: read back, measured and averaged as numpy would."""

from pathlib import Path

import numpy as np
import pytest

from fedtwin_protocol.blobs import BlobStore
from fedtwin_protocol.content import PIECE, make_content, measure, read_content, weighted_mean
from fedtwin_protocol.errors import WireError
from fedtwin_protocol.payload import INLINE_LIMIT, Payload

SMALL = {"weights": (13,), "intercept": (1,), "table": (3, 4)}
LARGE = {"first": (PIECE // 4 + 5,), "second": (7,), "third": (300, 1000), "scalar": ()}


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "blobs")


def arrays(shapes: dict[str, tuple[int, ...]], dtype: str, seed: int) -> dict[str, np.ndarray]:
    chance = np.random.default_rng(seed)
    return {name: chance.normal(size=shape).astype(dtype) for name, shape in shapes.items()}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shapes", [SMALL, LARGE], ids=["inline", "blob"])
@pytest.mark.parametrize("weights", [(1.0,), (1.0, 3.0), (2.0, 5.0, 0.5, 1.0)])
def test_the_weighted_mean_is_numpys(
    blobs: BlobStore, shapes: dict, dtype: str, weights: tuple[float, ...]
) -> None:
    """Of every array, though all pass through the same room."""
    given = [arrays(shapes, dtype, seed) for seed in range(len(weights))]
    contents = [make_content(Payload(arrays={"arrays": each}), blobs) for each in given]
    found = read_content(weighted_mean(contents, weights, blobs), blobs).arrays["arrays"]
    assert list(found) == list(shapes)
    for name, shape in shapes.items():
        expected = np.average([each[name] for each in given], axis=0, weights=weights)
        assert (found[name].shape, found[name].dtype) == (shape, np.dtype(dtype))
        np.testing.assert_allclose(found[name], expected, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("shapes", [SMALL, LARGE], ids=["inline", "blob"])
@pytest.mark.parametrize("scale", [1.0, 1e3, 1e-3])
def test_the_norm_is_that_of_all_numbers(
    blobs: BlobStore, shapes: dict, dtype: str, scale: float
) -> None:
    given = {
        name: (array * scale).astype(dtype) for name, array in arrays(shapes, "float64", 3).items()
    }
    flat = np.concatenate([np.ravel(array) for array in given.values()]).astype(float)
    found = measure(make_content(Payload(arrays={"arrays": given}), blobs), blobs)
    assert found == pytest.approx(float(np.linalg.norm(flat)), rel=1e-4)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, PIECE // 4 + 3, -1])
def test_one_number_that_is_none_makes_the_norm_infinite(
    blobs: BlobStore, value: float, place: int
) -> None:
    numbers = np.ones(PIECE // 2, np.float32)
    numbers[place] = value
    content = make_content(Payload(arrays={"arrays": {"numbers": numbers}}), blobs)
    assert measure(content, blobs) == float("inf")


def test_numbers_beyond_single_precision_s_square_are_measured(blobs: BlobStore) -> None:
    numbers = np.full(100_000, 1e30, np.float32)
    content = make_content(Payload(arrays={"arrays": {"numbers": numbers}}), blobs)
    assert measure(content, blobs) == pytest.approx(1e30 * 100_000**0.5, rel=1e-6)


def test_a_blob_is_read_where_it_lies(blobs: BlobStore) -> None:
    given = arrays(LARGE, "float32", 1)
    assert sum(array.nbytes for array in given.values()) > INLINE_LIMIT
    found = read_content(make_content(Payload(arrays={"arrays": given}), blobs), blobs)
    for name, array in given.items():
        np.testing.assert_array_equal(found.arrays["arrays"][name], array)
        assert not found.arrays["arrays"][name].flags.writeable


def test_different_tables_are_not_averaged(blobs: BlobStore) -> None:
    contents = [
        make_content(Payload(arrays={"arrays": arrays({"x": (size,)}, "float32", 0)}), blobs)
        for size in (3, 4)
    ]
    with pytest.raises(WireError, match="different array tables"):
        weighted_mean(contents, [1.0, 1.0], blobs)
