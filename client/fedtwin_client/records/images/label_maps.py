"""Opening label maps that the image store keeps, with the structures that they outline."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedtwin_client.records.images.dicom_segmentation import labels_of
from fedtwin_client.records.images.geometry import Grid
from fedtwin_client.records.images.nifti_reading import labels_from, on_grid, read_nifti
from fedtwin_client.records.images.volumes import datasets_of, grid_of_series, images_of
from fedtwin_client.records.reading import UnusableError
from fedtwin_protocol.errors import RecordError


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelMap:
    """Structures that somebody or something outlined in a series.

    Attributes:
        labels: (slices, rows, columns), whole numbers; 0 is nothing.
        grid: where they lie in the patient.
        structures: codes by label.
        segments: the series that was outlined, by its name in the store; none if not said.
    """

    labels: np.ndarray
    grid: Grid
    structures: Mapping[int, str]
    segments: str | None


def open_labels(store: Path, label_map: str) -> LabelMap:
    """Open a label map, on the grid of the series that was outlined if that is here and it fits.

    Args:
        store: the folder of the node's records.
        label_map: its name, which stands in its events' source.

    Raises:
        RecordError: there is none, or it cannot be used.
        ConfigurationError: the site key is not at hand.
    """
    images = images_of(store)
    subject = images.whose(label_map)
    about = images.about(subject, label_map)
    assert about is not None
    structures = {int(label): code for label, code in about.get("structures", {}).items()}
    try:
        if about["kind"] == "nifti labels":
            nifti = read_nifti(images.read(subject, label_map, f"{label_map}.nii"))
            labels, grid = labels_from(nifti), nifti.grid
        elif about["kind"] == "segmentation":
            (dataset,) = datasets_of(images, subject, label_map)
            labels, grid = labels_of(dataset)
        else:
            raise UnusableError("it holds images")
        segments = about["of"]
        series = grid_of_series(images, subject, segments) if segments else None
        if series is not None:
            turned = on_grid(labels, grid, series)
            labels, grid = (labels, grid) if turned is None else (turned, series)
    except UnusableError as error:
        raise RecordError(f"{label_map} is no label map: {error.reason}") from error
    return LabelMap(labels=labels, grid=grid, structures=structures, segments=segments)
