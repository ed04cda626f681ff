"""DICOM images: series, times, patients, headers, the image store, what is put aside."""

import base64
import io
import json
import re
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.encaps import encapsulate
from pydicom.fileset import FileSet
from pydicom.sequence import Sequence as Items
from pydicom.uid import JPEG2000, JPEG2000Lossless, JPEGBaseline8Bit, RLELossless

from fedtwin_client.at_rest.boxes import fresh_key
from fedtwin_client.at_rest.keyring import Keyring
from fedtwin_client.records.images.burned_in import looks_like_text
from fedtwin_client.records.images.codestream_comments import without_words
from fedtwin_client.records.images.codestreams import claimed_size
from fedtwin_client.records.images.dicom_files import dicom_files
from fedtwin_client.records.images.dicom_headers import deidentified
from fedtwin_client.records.images.dicom_reading import read_dataset
from fedtwin_client.records.images.dicom_series import Whose
from fedtwin_client.records.images.store import ImageStore, remove_images
from fedtwin_client.records.images.volumes import open_series
from fedtwin_client.records.pseudonyms import Identity, Pseudonyms
from fedtwin_client.records.reading import UnusableError
from fedtwin_protocol.errors import ConfigurationError, RecordError

from .images import (
    SECRET,
    SHARED,
    SYSTEM,
    WHOSE,
    ct,
    desk,
    read,
    series_of,
    store_in,
    written,
)


def test_a_series_is_one_event_and_one_volume(tmp_path: Path) -> None:
    folder = written(tmp_path / "in", ct(2), ct(0), ct(1))
    events, tally = read(dicom_files([folder], store_in(tmp_path), WHOSE))
    (event,) = events
    assert (event.code, event.text_value, event.status) == ("DICOM//CT", "LIVER", None)
    assert event.subject_id == Pseudonyms(SECRET).of(Identity(SYSTEM, "4711"))
    assert event.time == datetime(2026, 3, 1, 7, 0, 0, tzinfo=UTC)
    assert event.available_time == datetime(2026, 3, 1, 7, 15, tzinfo=UTC)
    assert tally.read == {"file": 3}
    assert not tally.reasons
    volume = open_series(tmp_path, series_of(event))
    assert volume.values.shape == (3, 32, 32)
    assert volume.values[:, 10, 10].tolist() == [1000 - 1024, 1001 - 1024, 1002 - 1024]
    assert volume.spacing_mm == (2.0, 0.5, 0.25)
    assert (volume.affine @ [4, 2, 1, 1]).tolist() == [-9.0, -19.0, 2.0, 1.0]
    assert (volume.unit, volume.remarks) == ("[hnsf'U]", ())


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data are not here")
def test_a_public_series_without_uid_and_patient(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="name the patient with --patient"):
        read(dicom_files([SHARED / "dicom"], store_in(tmp_path), WHOSE))
    whose = Whose(system=SYSTEM, patient="4711")
    events, tally = read(dicom_files([SHARED / "dicom"], store_in(tmp_path), whose))
    (event,) = events
    assert tally.read == {"file": 6}
    assert not tally.reasons
    assert tally.notes["a series without UID: grouped by folder, time and geometry"] == 1
    assert event.time == datetime(2022, 12, 8, 14, 3, 52, 457000, tzinfo=UTC)
    volume = open_series(tmp_path, series_of(event))
    files = sorted((SHARED / "dicom").iterdir(), reverse=True)
    theirs = np.stack([pydicom.dcmread(path).pixel_array - 1024.0 for path in files])
    assert np.array_equal(volume.values, theirs)
    assert volume.spacing_mm == (2.0, 0.9765625, 0.9765625)
    assert not any(b"Petersgraben" in path.read_bytes() for path in tmp_path.rglob("*.dcm"))


def test_no_word_of_a_patient_is_kept(tmp_path: Path) -> None:
    secrets = ct(0, AccessionNumber="PETRA1", ProtocolName="PETRA2", PatientComments="PETRA3")
    secrets.add_new(0x00091001, "LO", "PETRA4")
    secrets.add_new(0x00090010, "LO", "PETRA5")
    secrets.RequestAttributesSequence = Items([pydicom.Dataset()])
    secrets.RequestAttributesSequence[0].RequestedProcedureID = "PETRA6"
    secrets.add_new(0x60003000, "OW", b"PETRA7PETRA7")
    secrets.add_new(0x00189999, "LO", "PETRA8")
    secrets.OtherPatientIDs = "PETRA9"
    secrets.ConvolutionKernel = "Br38f"
    secrets.SequenceName = "PETRA10"  # which the profile does not list
    read(dicom_files([written(tmp_path / "in", secrets)], store_in(tmp_path), WHOSE))
    (path,) = (tmp_path / "images").rglob("*.dcm")
    data = path.read_bytes()
    assert not re.search(rb"PETRA|Petra|Muster|19500101|1\.2\.3\.", data)
    kept = pydicom.dcmread(io.BytesIO(data))
    assert kept.PatientIdentityRemoved == "YES"
    assert kept.ConvolutionKernel == "Br38f"
    assert kept.AcquisitionDate == "20260301"
    assert [item.CodeValue for item in kept.DeidentificationMethodCodeSequence] == [
        "113100",
        "113106",
    ]
    assert kept.SeriesInstanceUID.startswith("2.25.")
    about = json.loads(next((tmp_path / "images").rglob("*.json")).read_text())
    assert "4711" not in json.dumps(about)


@pytest.mark.filterwarnings("ignore:Unknown encoding")
def test_a_name_where_no_words_belong(tmp_path: Path) -> None:
    """Codes and numbers that repeat a name, bytes of anything but pixels, nulls after the end."""
    image = ct(
        BodyPartExamined="MUSTER KNEE",
        ImageType=["ORIGINAL", "PRIMARY", "AXIAL", "P-MUSTER"],
        ConvolutionKernel="4711 SOFT",
        AdmissionID="998877",
        ViewPosition="998877",
        PatientOrientation=["L", "P"],
        OverrideDateTime="Muster",
        SpecificCharacterSet="MUSTER",
    )
    image.add_new(0x0008041B, "OB", b"MUSTER")  # Record Key
    image.DerivationCodeSequence = Items([pydicom.Dataset()])
    image.DerivationCodeSequence[0].ContextIdentifier = "MUSTER"
    folder = written(tmp_path / "in", image)
    (path,) = folder.iterdir()
    path.write_bytes(path.read_bytes() + bytes(512))
    events, _ = read(dicom_files([folder], store_in(tmp_path), WHOSE))
    (kept,) = tmp_path.glob("images/*/*/*.dcm")
    assert not re.search(rb"(?i)muster|petra|4711|998877", kept.read_bytes())
    header = pydicom.dcmread(kept)
    assert header.BodyPartExamined == header.ViewPosition == header.ConvolutionKernel == "REMOVED"
    assert list(header.ImageType) == ["ORIGINAL", "PRIMARY", "AXIAL", "REMOVED"]
    assert list(header.PatientOrientation) == ["L", "P"]
    assert "SpecificCharacterSet" not in header
    assert open_series(tmp_path, series_of(events[0])).values.shape == (1, 32, 32)


# A slope of 8 x 8 grey pixels, in JPEG and in JPEG 2000.
SLOPE_JPEG = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDABsSFBcUERsXFhceHBsgKEIrKCUlKFE6PTBCYFVlZF9VXVtqeJmBanGQc1td"
    "hbWGkJ6jq62rZ4C8ybqmx5moq6T/wAALCAAIAAgBAREA/8QAFAABAAAAAAAAAAAAAAAAAAAABP/EABcQAAMBAAAAAAAA"
    "AAAAAAAAAAACBWL/2gAIAQEAAD8AKknJ/9k="
)
SLOPE_2000 = base64.b64decode(
    "/0//UQApAAAAAAAIAAAACAAAAAAAAAAAAAAACAAAAAgAAAAAAAAAAAABBwEB/1IADAAAAAEAAAQEAAH/XAAEQED/ZAAl"
    "AAFDcmVhdGVkIGJ5IE9wZW5KUEVHIHZlcnNpb24gMi41LjT/kAAKAAAAAABIAAH/k9+BuBIrBRS5cz6yCrJ5wm7xcD/R"
    "f+HG0ovAiRJSpQTqWwserG5HbnZJL3OuE63xpSaSAX5eXl5bEAz/2Q=="
)


@pytest.mark.parametrize(
    ("frame", "words", "at", "syntax"),
    [
        (SLOPE_JPEG, b"\xff\xfe\x00\x08MUSTER", 2, JPEGBaseline8Bit),
        (SLOPE_JPEG, b"\xff\xff\xe1\x00\x0eExif\0\0MUSTER", 20, JPEGBaseline8Bit),
        (SLOPE_2000, b"\xff\x64\x00\x0a\x00\x01MUSTER", 45, JPEG2000),
    ],
    ids=["comment", "exif", "jpeg 2000"],
)
def test_words_beside_compressed_pixels(
    tmp_path: Path, frame: bytes, words: bytes, at: int, syntax: str
) -> None:
    """A camera's EXIF says who and where, a comment whatever it likes; the picture stays."""
    image = ct(NumberOfFrames=2, Rows=8, Columns=8, BitsAllocated=8, BitsStored=8, HighBit=7)
    image.PixelData = encapsulate([frame[:at] + words + frame[at:], frame])
    image["PixelData"].VR = "OB"
    image.file_meta.TransferSyntaxUID = syntax
    before = image.pixel_array
    assert before.shape == (2, 8, 8)
    read(dicom_files([written(tmp_path / "in", image)], store_in(tmp_path), WHOSE))
    (kept,) = tmp_path.glob("images/*/*/*.dcm")
    assert b"MUSTER" not in kept.read_bytes()
    assert np.array_equal(pydicom.dcmread(kept).pixel_array, before)


@given(cut=st.integers(0, 180), frame=st.sampled_from([SLOPE_JPEG, SLOPE_2000]))
def test_a_frame_that_was_cut_off_stays(cut: int, frame: bytes) -> None:
    assert without_words(without_words(frame[:cut])) == without_words(frame[:cut])


def test_the_profile_is_followed_to_the_letter() -> None:
    """The attributes that PS3.15 Table E.1-1 lists are gone, emptied or replaced."""
    lines = (
        Path(deidentified.__code__.co_filename).parent / "imaging_tables" / "confidentiality.tsv"
    ).read_text()
    listed = [line.split("\t") for line in lines.splitlines() if not line.startswith("#")]
    assert len(listed) == 620
    data = ct(0)
    words = {"LO", "SH", "PN", "ST", "LT", "UT", "CS", "AE", "UC"}
    asked = []
    for tag, *action in listed:
        if "x" in tag or action[0].startswith("U") or action[-1] == "K":
            continue
        number = int(tag, 16)
        if pydicom.datadict.dictionary_has_tag(number) and number >> 16 != 2:
            representation = pydicom.datadict.dictionary_VR(number)
            if representation in words:
                data.add_new(number, representation, "SECRETWORD")
                asked.append(number)
    assert len(asked) > 250
    clean = deidentified(data, "0", lambda uid: uid)
    assert not [hex(tag) for tag in asked if str(clean.get(tag, "")).find("SECRETWORD") >= 0]


def test_sent_again_in_pieces_and_as_something_else(tmp_path: Path) -> None:
    images = store_in(tmp_path)
    first, _ = read(dicom_files([written(tmp_path / "a", ct(1))], images, WHOSE))
    both, tally = read(dicom_files([written(tmp_path / "b", ct(0), ct(1))], images, WHOSE))
    assert tally.reasons == {"an image that is here already": 1}
    assert both[0].source == first[0].source
    assert both[0].time < first[0].time
    assert open_series(tmp_path, series_of(both[0])).values.shape[0] == 2
    again, tally = read(dicom_files([tmp_path / "b"], images, WHOSE))
    assert again == both
    packed = ct(1)
    packed.compress(RLELossless, encoding_plugin="pydicom")
    packed.SOPInstanceUID = ct(1).SOPInstanceUID
    once, tally = read(dicom_files([written(tmp_path / "rle", packed)], images, WHOSE))
    assert tally.reasons == {"an image that is here already": 1}
    assert once == both
    other = ct(1, RescaleIntercept=-1000)
    with pytest.raises(RecordError, match="other content"):
        read(dicom_files([written(tmp_path / "c", other)], images, WHOSE))
    stranger = ct(2, PatientID="4712")
    with pytest.raises(RecordError, match="as another patient's"):
        read(dicom_files([written(tmp_path / "d", stranger)], images, WHOSE))


CASES = {
    "no Patient ID": {"PatientID": None},
    "another than --patient": {"PatientID": "1"},
    "Modality is absent": {"Modality": "PETRA"},
    "no time": {"AcquisitionDate": None, "ContentDate": None},
    "a time that cannot be read": {"AcquisitionDate": "20261399"},
    "lies in the future": {"AcquisitionDate": "20991231"},
    "fewer pixels than": {"PixelData": b"\0" * 100},
    "more than 2 GiB": {"Rows": 65535, "Columns": 65535},
    "impossible Rows": {"Rows": 0},
    "SeriesInstanceUID is not a UID": {"SeriesInstanceUID": "Petra Muster"},
    "no Pixel Data": {"PixelData": None},
    "an image without Rows": {"Rows": None},
    "not an image": {"Rows": None, "SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.11"},
}


@pytest.mark.parametrize("reason", CASES)
def test_what_is_put_aside(tmp_path: Path, reason: str) -> None:
    bad = ct(0, **{"SOPInstanceUID": "1.2.3.77", **CASES[reason]})
    good = ct(1, SeriesInstanceUID="1.2.3.4.6")
    at = desk(quarantine=tmp_path / "aside.ndjson")
    whose = Whose(system=SYSTEM, patient="4711") if "another" in reason else WHOSE
    folder = written(tmp_path / "in", bad, good)
    events, tally = read(dicom_files([folder], store_in(tmp_path), whose), at)
    assert len(events) == 1
    (said,) = tally.reasons
    assert reason in said
    tally.close()
    if not reason.startswith("not an image"):
        assert json.loads((tmp_path / "aside.ndjson").read_text())["file"] == "0.dcm"


def test_damaged_files_and_mixed_patients(tmp_path: Path) -> None:
    folder = written(tmp_path / "in", ct(0), ct(1, PatientID="4712"))
    with pytest.raises(RecordError) as caught:
        read(dicom_files([folder], store_in(tmp_path), WHOSE))
    assert "images of several patients (2)" in str(caught.value)
    (folder / "1.dcm").unlink()
    (folder / "0.dcm").write_bytes((folder / "0.dcm").read_bytes()[:-100])
    (folder / "text.dcm").write_text("no image")
    with pytest.raises(RecordError) as caught:
        read(dicom_files([folder], store_in(tmp_path), WHOSE))
    assert "cut off: fewer pixels" in str(caught.value)
    assert "not a DICOM file" in str(caught.value)
    coded = ct(0)
    coded.file_meta.TransferSyntaxUID = "1.2.3"
    with pytest.raises(RecordError, match=r"transfer syntax 1\.2\.3 is not known"):
        read(dicom_files([written(tmp_path / "syntax", coded)], store_in(tmp_path), WHOSE))
    wrong = ct(0, PixelData=pydicom.encaps.encapsulate([b"\xff\xd8 no JPEG 2000 "]))
    wrong.file_meta.TransferSyntaxUID = JPEG2000Lossless
    wrong["PixelData"].is_undefined_length = True
    with pytest.raises(RecordError, match="coded otherwise than the transfer syntax says"):
        read(dicom_files([written(tmp_path / "jpeg", wrong)], store_in(tmp_path), WHOSE))


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data are not here")
def test_a_codestream_that_claims_to_be_huge_is_not_unpacked(tmp_path: Path) -> None:
    data = bytearray(min((SHARED / "dicom").iterdir()).read_bytes())
    place = data.index(b"\xff\x4f\xff\x51") + 8
    assert claimed_size(bytes(data[place - 8 :])) == (512, 512)
    data[place : place + 8] = (60_000).to_bytes(4, "big") * 2
    (tmp_path / "huge.dcm").write_bytes(data)
    whose = Whose(system=SYSTEM, patient="4711")
    with pytest.raises(RecordError, match="another size than Rows x Columns"):
        read(dicom_files([tmp_path / "huge.dcm"], store_in(tmp_path), whose))


def test_sizes_that_jpeg_frames_claim() -> None:
    head = b"\xff\xd8\xff\xe0\x00\x04ab\xff"
    for marker in (b"\xc0", b"\xc3", b"\xf7"):
        assert claimed_size(head + marker + b"\x00\x0b\x08\x02\x00\x01\x00") == (512, 256)
    assert claimed_size(head) is None
    assert claimed_size(b"\0" * 20) is None


def test_nesting_and_nothing_at_all(tmp_path: Path) -> None:
    nested = pydicom.Dataset()
    inner = nested
    for _ in range(40):
        inner.AnatomicRegionSequence = Items([pydicom.Dataset()])
        inner = inner.AnatomicRegionSequence[0]
    with pytest.raises(UnusableError, match="nested deeper"):
        deidentified(nested, "0", lambda uid: uid)
    with pytest.raises(RecordError, match="No such file"):
        dicom_files([tmp_path / "absent"], store_in(tmp_path), WHOSE)
    (tmp_path / "empty").mkdir()
    with pytest.raises(RecordError, match="found no file"):
        dicom_files([tmp_path / "empty"], store_in(tmp_path), WHOSE)


def test_a_dicomdir_stands_for_its_files(tmp_path: Path) -> None:
    made = FileSet()
    for number in range(2):
        image = ct(number, StudyID="1", StudyDate="20260301", StudyTime="080000", SeriesNumber=1)
        made.add(image)
    made.write(tmp_path / "disc")
    made._stage["t"].cleanup()
    images = [path for path in (tmp_path / "disc").rglob("*") if path.is_file()]
    images.remove(tmp_path / "disc" / "DICOMDIR")
    images[0].unlink()
    opening = dicom_files([tmp_path / "disc" / "DICOMDIR"], store_in(tmp_path), WHOSE)
    events, tally = read(opening)
    assert len(events) == 1
    assert tally.reasons == {"named in a DICOMDIR and not there": 1}
    _, tally = read(dicom_files([tmp_path / "disc"], store_in(tmp_path / "x"), WHOSE))
    assert tally.reasons == {"a DICOMDIR, which only lists files": 1}


@pytest.mark.parametrize(
    ("issuer", "system"),
    [("", SYSTEM), ("2.16.756.5", "urn:oid:2.16.756.5"), ("RIS", "dicom:RIS"), ("PACS", "urn:p")],
)
def test_whose_number_it_is(issuer: str, system: str) -> None:
    image = ct(0, IssuerOfPatientID=issuer)
    found = Whose(system=SYSTEM, issuers={"PACS": "urn:p"}).identity(image)
    assert found == Identity(system, "4711")
    with pytest.raises(UnusableError, match="no Issuer of Patient ID"):
        Whose(system=None).identity(ct(0))


def test_names_in_pixels_are_never_passed_on_silently(tmp_path: Path) -> None:
    for number, change in enumerate(
        [{"BurnedInAnnotation": "YES"}, {"Modality": "US"}, {"ConversionType": "WSD"}]
    ):
        place = tmp_path / str(number)
        place.mkdir()
        folder = written(place / "in", ct(0, **change))
        (event,), tally = read(dicom_files([folder], store_in(place), WHOSE))
        assert event.status
        assert any(note.startswith("names may stand in the pixels") for note in tally.notes)
        with pytest.raises(RecordError, match="names may stand in the pixels"):
            open_series(place, series_of(event))
        assert open_series(place, series_of(event), with_names=True).values.shape[0] == 1


def test_text_near_the_border_is_seen() -> None:
    drawn = np.zeros((128, 128))
    drawn[40:90, 40:90] = np.random.default_rng(1).normal(120, 20, (50, 50))
    assert not looks_like_text(drawn)
    for column in range(4, 100, 4):
        drawn[4:12, column] = 255
    assert looks_like_text(drawn)


def test_uneven_gaps_and_localizers_are_said(tmp_path: Path) -> None:
    scout = ct(9, ImageOrientationPatient=[1, 0, 0, 0, 0, -1])
    folder = written(tmp_path / "in", ct(0), ct(1), ct(2), ct(4), scout)
    (event,), _ = read(dicom_files([folder], store_in(tmp_path), WHOSE))
    volume = open_series(tmp_path, series_of(event))
    assert volume.values.shape[0] == 4
    assert not volume.grid.even
    assert "1 images of another size or direction are left out" in volume.remarks
    assert any("gaps" in remark for remark in volume.remarks)


def test_two_images_in_one_place_are_no_volume(tmp_path: Path) -> None:
    twice = ct(1, SOPInstanceUID="1.2.3.55")
    folder = written(tmp_path / "in", ct(0), ct(1), twice)
    (event,), _ = read(dicom_files([folder], store_in(tmp_path), WHOSE))
    with pytest.raises(RecordError, match="several images in one place"):
        open_series(tmp_path, series_of(event))
    with pytest.raises(RecordError, match="there is no series"):
        open_series(tmp_path, "../../etc")


def test_images_left_in_their_place(tmp_path: Path) -> None:
    folder = written(tmp_path / "in", ct(0), ct(1))
    (event,), _ = read(dicom_files([folder], store_in(tmp_path), WHOSE, link=True))
    assert not list((tmp_path / "images").rglob("*.dcm"))
    assert open_series(tmp_path, series_of(event)).values.shape[0] == 2
    written(folder, ct(5))
    with pytest.raises(RecordError, match="is another than when it was imported"):
        open_series(tmp_path, series_of(event))
    (folder / "0.dcm").unlink()
    with pytest.raises(RecordError, match="cannot be read"):
        open_series(tmp_path, series_of(event))


def test_encrypted_and_erased(tmp_path: Path) -> None:
    keyring = Keyring(keys={"k1": fresh_key()})
    erased: set[int] = set()
    images = ImageStore(
        folder=tmp_path / "images", keyring=keyring, erased=lambda: frozenset(erased)
    )
    folder = written(tmp_path / "in", ct(0))
    (event,), _ = read(dicom_files([folder], images, WHOSE))
    files = [path for path in (tmp_path / "images").rglob("*") if path.is_file()]
    assert all(path.read_bytes().startswith(b"fedtwin-sealed") for path in files)
    series = series_of(event)
    (name,) = images.names(event.subject_id, series)
    assert read_dataset(images.read(event.subject_id, series, name)).Modality == "CT"
    (images.place(event.subject_id, series) / name).write_bytes(b"plain")
    with pytest.raises(ConfigurationError, match="is not encrypted"):
        images.read(event.subject_id, series, name)
    assert remove_images(tmp_path, event.subject_id) == 2
    assert not any(path.is_file() for path in (tmp_path / "images").rglob("*"))
    erased.add(event.subject_id)
    with pytest.raises(RecordError, match="patients who are erased here"):
        read(dicom_files([folder], images, WHOSE))
    assert not any(path.is_file() for path in (tmp_path / "images").rglob("*"))


def test_a_full_disk_is_an_error_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    folder = written(tmp_path / "in", ct(0))
    monkeypatch.setattr("fedtwin_client.records.images.store.os.fsync", full)
    with pytest.raises(RecordError, match="No space left on device"):
        read(dicom_files([folder], store_in(tmp_path), WHOSE))


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_bytes_are_refused_in_words(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    place = tmp_path_factory.mktemp("fuzz")
    written(place / "in", ct(0))
    whole = bytearray((place / "in" / "0.dcm").read_bytes())
    for _ in range(data.draw(st.integers(0, 6))):
        whole[data.draw(st.integers(128, 1300))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(whole)))
    tail = data.draw(st.binary(max_size=40))
    (place / "in" / "0.dcm").write_bytes(bytes(whole[:cut]) + tail)
    at = desk()
    try:
        events, _ = read(dicom_files([place / "in"], store_in(place), WHOSE), at)
    except RecordError:
        events = []
    assert len(events) + sum(at.reading.tally.reasons.values()) == 1
