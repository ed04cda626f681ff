"""Images at the command line: what comes in, keys and erasure, and wrong options in a sentence."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedtwin_client.node.home import NodeHome
from fedtwin_client.node.sealing import rotate
from fedtwin_client.records.images.volumes import open_series

from ..client.images.images import ct, nifti, written

MRN = "http://st-olav.example/mrn"


def test_images_come_in_outlive_new_keys_and_are_erased(
    node: Path, tmp_path: Path, type_in: Callable[..., Any]
) -> None:
    folder = written(tmp_path / "in", ct(0), ct(1))
    (folder / "note.txt").write_text("no image")
    said = type_in("client", "records", "dicom", folder, "--identifier-system", MRN, "--home", node)
    assert said.status == 0, said.err
    assert "read           3 file" in said.out
    assert "events         1" in said.out
    assert "1  not a DICOM file" in said.out
    said = type_in("client", "records", "quarantine", "--home", node)
    shown = type_in("client", "records", "quarantine", said.out.strip(), "--home", node)
    assert "note.txt" in shown.out
    who = ("--patient", "4711", "--date", "2026-03-01", "--home", node)
    mask = np.zeros((4, 4, 4), dtype=np.uint8)
    mask[1:3] = 1
    path = nifti(tmp_path / "liver.nii", mask, np.eye(4))
    said = type_in("client", "records", "nifti", path, "--labels", "file-names", *who)
    assert "events         1" in said.out, said.err
    (about,) = [
        path
        for path in (node / "records" / "images").glob("*/*/*.json")
        if list(path.parent.glob("*.dcm"))
    ]
    assert open_series(node / "records", about.stem).values.shape == (2, 32, 32)
    said = type_in("client", "keys", "seal", "--key-file", tmp_path / "n.key", "--home", node)
    assert said.status == 0, said.err
    assert about.read_bytes().startswith(b"fedtwin-sealed")
    before = about.read_bytes()
    rotate(NodeHome(folder=node))  # this process holds the node's lock since it sealed
    assert about.read_bytes() != before
    assert open_series(node / "records", about.stem).values.shape == (2, 32, 32)
    said = type_in("client", "records", "erase", "4711", "--home", node)
    assert "2 events, 5 image files" in said.out, said.out
    assert not any(path.is_file() for path in (node / "records" / "images").rglob("*"))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("dicom", "absent"), "No such file"),
        (("nifti", "x.nii", "--patient", "1", "--date", "soon"), "expected dates such as"),
        (("nifti", "x.nii", "--patient", "1", "--date", "2026-01-01"), "cannot be read"),
        (
            ("nifti", "x.nii", "--patient", "1", "--date", "2026-01-01", "--labels", "y.csv"),
            "cannot read the table of labels",
        ),
    ],
)
def test_wrong_options(
    node: Path, refused: Callable[..., Any], words: tuple[str, ...], says: str
) -> None:
    assert says in refused("client", "records", *words, "--home", node).err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("dicom", ".", "--issuer", "x"), "ISSUER=SYSTEM"),
    ],
)
def test_options_that_do_not_go_together(
    node: Path, type_in: Callable[..., Any], words: tuple[str, ...], says: str
) -> None:
    ended = type_in("client", "records", *words, "--home", node)
    assert ended.status == 2
    assert says in ended.err
