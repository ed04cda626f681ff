"""NIfTI images and label maps, DICOM segmentations: volumes, places, what is put aside."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtwin_client.records.images.dicom_files import dicom_files
from fedtwin_client.records.images.label_maps import open_labels
from fedtwin_client.records.images.nifti import NiftiOptions, nifti_files
from fedtwin_client.records.images.nifti_reading import read_nifti
from fedtwin_client.records.images.structures import read_structures
from fedtwin_client.records.images.volumes import open_series
from fedtwin_client.records.people import one_person
from fedtwin_client.records.reading import UnusableError
from fedtwin_client.records.report import Tally
from fedtwin_protocol.errors import RecordError

from .images import (
    SHARED,
    SYSTEM,
    WHOSE,
    ct,
    desk,
    nifti,
    read,
    segment,
    segmentation,
    series_of,
    store_in,
    written,
)

ONE = one_person("4711", "2026-03-01", None, SYSTEM)
LIVER = "SNOMED//10200004/volume"
LEFT_KIDNEY = "SNOMED//64033007:272741003=7771000/volume"
# The grid of `ct` in NIfTI's axes, as a converter writes it: left and back point the other way.
CT_AFFINE = np.array([[-0.25, 0, 0, 10], [0, -0.5, 0, 20], [0, 0, 2, 0], [0, 0, 0, 1.0]])


def take(folder: Path, *paths: Path, **options: str) -> tuple[dict[str, float | None], Tally, str]:
    """Values by code, the account, and the name in the store of the last."""
    opening = nifti_files(paths, store_in(folder), ONE, NiftiOptions(**options))
    events, tally = read(opening, desk("nifti"))
    return {e.code: e.numeric_value for e in events}, tally, series_of(events[-1])


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data are not here")
def test_volumes_of_public_masks_are_those_that_their_makers_give(tmp_path: Path) -> None:
    paths = sorted((SHARED / "seg_fast").iterdir())
    found, tally, _ = take(tmp_path, *paths, labels="file-names")
    theirs = json.loads((SHARED / "statistics.json").read_text())
    names = {s.code: s.name for s in read_structures("totalsegmentator").values()}
    ours = {names[code.removesuffix("/volume")]: value for code, value in found.items()}
    assert len(ours) == 14
    assert ours == {name: theirs[name]["volume"] for name in ours}
    assert tally.read == {"file": 15, "structure": 15}
    assert tally.reasons == {"a structure with no voxel in the label map": 1}
    assert theirs["heart"]["volume"] == 0.0


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data are not here")
@pytest.mark.parametrize(("kind", "structures"), [("", 41), ("_mr", 23)])
def test_public_label_maps_of_public_images(tmp_path: Path, kind: str, structures: int) -> None:
    modality = "MR" if kind else "CT"
    image = SHARED / f"example_{modality.lower()}_sm.nii.gz"
    _, tally, series = take(tmp_path, image, modality=modality)
    assert not tally.reasons
    found, tally, name = take(tmp_path, SHARED / f"example_seg{kind}.nii.gz", segments=series)
    assert len(found) == structures
    assert structures + sum(tally.reasons.values()) == tally.read["structure"]
    volume, labels = open_series(tmp_path, series), open_labels(tmp_path, name)
    assert volume.values.shape == labels.labels.shape
    assert labels.segments == series
    liver = labels.labels == 5
    assert labels.structures[5] == LIVER.removesuffix("/volume")
    assert found[LIVER] == int(liver.sum()) * 27.0
    if not kind:
        theirs = json.loads((SHARED / "statistics.json").read_text())["liver"]
        assert float(volume.values[liver].mean()) == pytest.approx(theirs["intensity"], abs=3)
        assert found[LIVER] == pytest.approx(theirs["volume"], rel=0.03)
        other = SHARED / "example_seg_mr.nii.gz"
        with pytest.raises(RecordError, match="does not fit the series"):
            take(tmp_path, other, segments=series)


def test_a_label_map_is_turned_as_its_series_is(tmp_path: Path) -> None:
    folder = written(tmp_path / "in", *(ct(number) for number in range(3)))
    (event,), _ = read(dicom_files([folder], store_in(tmp_path), WHOSE))
    mask = np.zeros((32, 32, 3), dtype=np.uint8)
    mask[3, 5, 2] = 5
    flipped = CT_AFFINE @ np.array([[-1, 0, 0, 31], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    for number, (values, affine) in enumerate([(mask, CT_AFFINE), (mask[::-1], flipped)]):
        path = nifti(tmp_path / f"{number}.nii", values, affine)
        found, _, name = take(tmp_path, path, labels="totalsegmentator", segments=series_of(event))
        assert found == {LIVER: pytest.approx(0.25)}
        assert np.argwhere(open_labels(tmp_path, name).labels).tolist() == [[2, 5, 3]]
    moved = CT_AFFINE.copy()
    moved[2, 3] = 1.0
    for values, affine in [(mask, moved), (mask[:, :, :2], CT_AFFINE), (mask, CT_AFFINE * 1.1)]:
        with pytest.raises(RecordError, match="does not fit the series"):
            take(
                tmp_path,
                nifti(tmp_path / "x.nii", values, affine),
                labels="totalsegmentator",
                segments=series_of(event),
            )
    with pytest.raises(RecordError, match="is not here for this patient"):
        take(tmp_path, path, labels="totalsegmentator", segments="0" * 32)


def test_what_the_reader_says_of_a_damaged_header_goes_nowhere(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It would stand on standard error beside the report, which says it in words."""
    with pytest.raises(UnusableError, match="not readable as NIfTI"):
        read_nifti(bytes(400))
    assert not caplog.records


def test_what_a_nifti_file_may_be_wrong_in(tmp_path: Path) -> None:
    values = np.ones((4, 4, 4), dtype=np.uint8)
    eye = np.diag([1.0, 1.0, 1.0, 1.0])
    good = nifti(tmp_path / "good.nii", values, eye).read_bytes()
    packed = gzip.compress(good)
    huge = bytearray(good)
    huge[42:48] = np.array([32000, 32000, 32000], dtype="<i2").tobytes()
    cases = {
        "not readable as NIfTI": b"no volume",
        "fewer voxels than": good[:-10],
        "gzip does not unpack": packed[:-20],
        "more than 2 GiB": bytes(huge),
        "does not say where it lies": nifti(
            tmp_path / "a.nii", values, eye, qform_code=0, sform_code=0
        ).read_bytes(),
        "voxel sizes": nifti(
            tmp_path / "b.nii", values, eye, pixdim=[1, 3, 3, 3, 1, 1, 1, 1]
        ).read_bytes(),
        "volume over time": nifti(
            tmp_path / "c.nii", np.ones((4, 4, 4, 2), dtype=np.uint8), eye
        ).read_bytes(),
        "found an image": nifti(tmp_path / "d.nii", values * 0.5, eye).read_bytes(),
        "not finite": nifti(tmp_path / "e.nii", values * np.nan, eye).read_bytes(),
    }
    path = tmp_path / "wrong.nii"
    for reason, data in cases.items():
        path.write_bytes(data)
        with pytest.raises(RecordError) as caught:
            take(tmp_path, path, labels="totalsegmentator")
        assert reason in str(caught.value)
    with pytest.raises(RecordError, match="no table of labels in the file"):
        take(tmp_path, tmp_path / "good.nii")
    with pytest.raises(RecordError, match="its name is no structure"):
        take(tmp_path, tmp_path / "good.nii", labels="file-names")


def test_labels_that_no_table_names_and_tables_of_ones_own(tmp_path: Path) -> None:
    values = np.zeros((4, 4, 4), dtype=np.int16)
    values[0], values[1, 0] = 1, 200
    path = nifti(tmp_path / "map.nii", values, np.diag([1.0, 1.0, 2.0, 1.0]))
    table = tmp_path / "table.csv"
    table.write_text("label,name,code\n1,tumour,LOCAL//tumour\n7,other,LOCAL//other\n")
    found, tally, _ = take(tmp_path, path, labels=str(table))
    assert found == {"LOCAL//tumour/volume": 32.0}
    assert tally.reasons == {
        "a label that its table does not name": 1,
        "a structure with no voxel in the label map": 1,
    }
    for wrong in ("label,name\n1,x\n", "label,name,code\n0,x,LOCAL//x\n", "label,name,code\n"):
        table.write_text(wrong)
        with pytest.raises(RecordError, match="expected"):
            take(tmp_path, path, labels=str(table))
    with pytest.raises(RecordError, match="cannot read the table"):
        take(tmp_path, path, labels="totalsegmentor")
    with pytest.raises(RecordError, match="expected a modality"):
        take(tmp_path, path, modality="Xray")


def test_a_segmentation_measures_what_it_outlines(tmp_path: Path) -> None:
    mask = np.zeros((32, 32), dtype=bool)
    mask[5:9, 3:13] = True
    other = ~mask
    made = segmentation(
        [(1, 0, mask), (1, 1, mask), (2, 1, other)],
        [segment(1, "10200004"), segment(2, "64033007", modifier="7771000")],
    )
    folder = written(tmp_path / "in", made, ct(0), ct(1))
    events, tally = read(dicom_files([folder], store_in(tmp_path), WHOSE))
    found = {event.code: event.numeric_value for event in events}
    voxel = 0.5 * 0.25 * 2.0
    assert found == {"DICOM//CT": None, LIVER: 80 * voxel, LEFT_KIDNEY: 984 * voxel}
    assert {event.unit for event in events[1:]} == {"mm3"}
    assert not tally.reasons
    labels = open_labels(tmp_path, series_of(events[1]))
    assert labels.segments == series_of(events[0])
    assert labels.labels.shape == (2, 32, 32)
    assert (labels.labels[1] == np.where(mask, 1, 2)).all()
    assert labels.structures[2] == LEFT_KIDNEY.removesuffix("/volume")
    kept = b"".join(path.read_bytes() for path in (tmp_path / "images").rglob("*.dcm"))
    assert b"Petra" not in kept


@pytest.mark.parametrize(
    ("reason", "changes"),
    [
        ("not BINARY", {"SegmentationType": "FRACTIONAL"}),
        ("does not fit the series", {"Rows": 16, "Columns": 64}),
        ("of which segment they are", {"PerFrameFunctionalGroupsSequence": []}),
        ("two segments of one number", {"SegmentSequence": [segment(1, "1"), segment(1, "2")]}),
    ],
)
def test_segmentations_that_are_put_aside(
    tmp_path: Path, reason: str, changes: dict[str, object]
) -> None:
    mask = np.ones((32, 32), dtype=bool)
    made = segmentation([(1, 0, mask)], [segment(1, "10200004")], **changes)
    folder = written(tmp_path / "in", made, ct(0), ct(1))
    events, tally = read(dicom_files([folder], store_in(tmp_path), WHOSE))
    assert [event.code for event in events] == ["DICOM//CT"]
    (said,) = tally.reasons
    assert reason in said or ((reason.startswith("of which") and "lie" in said) or "Image" in said)


def test_a_segmentation_without_its_series_and_codes(tmp_path: Path) -> None:
    mask = np.ones((32, 32), dtype=bool)
    made = segmentation(
        [(1, 0, mask), (2, 0, mask)], [segment(1, "T-1", scheme="99LOCAL"), segment(2, "")]
    )
    folder = written(tmp_path / "in", made)
    events, tally = read(dicom_files([folder], store_in(tmp_path), WHOSE))
    assert [event.code for event in events] == ["99LOCAL//T-1/volume"]
    assert tally.reasons == {"a segment without a code": 1}
    assert "a segmentation whose series is not here: not checked against it" in tally.notes
    with pytest.raises(RecordError, match="segments overlap"):
        open_labels(tmp_path, series_of(events[0]))


def test_codes_by_an_older_name_of_snomed_are_the_same_structures(tmp_path: Path) -> None:
    masks = [(number, 0, np.eye(32, k=number, dtype=bool)) for number in (1, 2, 3)]
    old = [
        segment(1, "T-62000", scheme="SRT"),
        segment(2, "T-71000", scheme="SNM3", modifier="G-A101"),
        segment(3, "T-00000", scheme="SRT"),
    ]
    folder = written(tmp_path / "in", segmentation(masks, old))
    events, tally = read(dicom_files([folder], store_in(tmp_path), WHOSE))
    assert [event.code for event in events] == [
        "SNOMED//10200004/volume",
        "SNOMED//64033007:272741003=7771000/volume",
        "SRT//T-00000/volume",
    ]
    assert not tally.reasons


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_bytes_are_refused_in_words(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "x.nii"
    whole = bytearray(nifti(path, np.ones((3, 3, 3), dtype=np.uint8), np.eye(4)).read_bytes())
    for _ in range(data.draw(st.integers(0, 6))):
        whole[data.draw(st.integers(0, 351))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(whole)))
    said = "read"
    try:
        read_nifti(bytes(whole[:cut]) + data.draw(st.binary(max_size=40))).values()
    except UnusableError as error:
        said = error.reason
    assert said
