"""Where noise comes from: a cryptographic generator, keyed by the operating system.

Residual: Gaussian variates are made in floating point by the ziggurat method, so their set of
values has gaps that depend on the sum's magnitude (Mironov 2012). `noised` therefore rounds the
noised sum to a public grid of 2^-20 of the noise sd: what is released lies on the same grid
whatever the data. The grid is post-processing and costs no privacy.
"""

from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from fedtwin_client.training.skellam import skellam

Floats = NDArray[np.float64]
GRID: Final = 2.0**-20
KEY_BYTES: Final = 32


class NoiseSource(Protocol):
    """Random numbers for releases."""

    def gaussian(self, shape: tuple[int, ...]) -> Floats:
        """Standard normal variates."""

    def chosen(self, patients: int, rate: float) -> NDArray[np.bool_]:
        """An independent choice of each patient with chance `rate`, (patients,)."""

    def skellam(self, variance: float, size: int) -> NDArray[np.int64]:
        """Skellam variables of mean 0, (size,)."""


class _GeneratorNoise:
    def __init__(self, generator: np.random.Generator) -> None:
        self._generator = generator

    def gaussian(self, shape: tuple[int, ...]) -> Floats:
        """Standard normal variates."""
        return self._generator.standard_normal(shape)

    def chosen(self, patients: int, rate: float) -> NDArray[np.bool_]:
        """An independent choice of each patient with chance `rate`, (patients,)."""
        return self._generator.random(patients) < rate

    def skellam(self, variance: float, size: int) -> NDArray[np.int64]:
        """Skellam variables of mean 0, (size,)."""
        return skellam(self._generator, variance, size)


class CryptographicNoise(_GeneratorNoise):
    """AES in counter mode (randomgen's AESCounter, 128-bit key).

    Args:
        key: at least 16 bytes from `os.urandom`.

    Raises:
        ValueError: the key is too short.
    """

    def __init__(self, key: bytes) -> None:
        if len(key) < 16:
            raise ValueError(f"expected a key of at least 16 random bytes, got {len(key)}")
        from randomgen import AESCounter  # noqa: PLC0415 - only releases need it

        bit_generator: Any = AESCounter(key=int.from_bytes(key[:16], "little"))
        super().__init__(np.random.Generator(bit_generator))


class SeededNoise(_GeneratorNoise):
    """Repeatable and therefore worthless as protection: for simulations and tests."""

    def __init__(self, seed: int) -> None:
        super().__init__(np.random.Generator(np.random.PCG64(seed)))


def noised(exact: Floats, noise_sd: float, source: NoiseSource) -> Floats:
    """A sum with Gaussian noise, on the public grid; `noise_sd` 0 gives the sum itself."""
    if noise_sd == 0:
        return exact
    step = noise_sd * GRID
    released: Floats = np.round((exact + noise_sd * source.gaussian(exact.shape)) / step) * step
    return released
