"""A look at pixels for text that was written into them: a hint for a person, no proof.

Text that a machine writes is as bright as pixels can be, has edges of one pixel, and stands near
the border. Anatomy is none of the three at once.
"""

from typing import Any, Final

import numpy as np

_BORDER: Final = 0.2
_FEWEST_EDGES: Final = 60
_DARK: Final = 0.15


def looks_like_text(pixels: Any) -> bool:
    """Whether there may be text near the border of an image.

    Args:
        pixels: (rows, columns), or with frames first or colours last; the first frame is looked at.
    """
    grey = np.asarray(pixels)
    if grey.ndim >= 3 and grey.shape[-1] in {3, 4}:
        grey = grey[..., :3].max(axis=-1)
    while grey.ndim > 2:
        grey = grey[0]
    if grey.ndim < 2 or min(grey.shape) < 32:
        return False
    values = grey.astype(np.float64)
    low, high = float(values.min()), float(values.max())
    if high <= low:
        return False
    bright = values >= high - 0.01 * (high - low)
    dark = values <= low + _DARK * (high - low)
    edges = np.zeros(values.shape, dtype=bool)
    edges[:, 1:] |= bright[:, 1:] & dark[:, :-1]
    edges[:, :-1] |= bright[:, :-1] & dark[:, 1:]
    rows, columns = (max(1, round(_BORDER * size)) for size in values.shape)
    edges[rows:-rows, columns:-columns] = False
    return int(edges.sum()) >= _FEWEST_EDGES
