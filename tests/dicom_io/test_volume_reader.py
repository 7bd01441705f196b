"""Pixels end up at the slice, time and value that the header names."""

import os
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import UID, ExplicitVRBigEndian, JPEG2000Lossless, JPEGLSLossless, RLELossless
from small_mr_exam import MAPSS_TIMES_MS, mapss_signal, mr_dataset, scan_card, write_mapss

from config.protocol_cards import load_cards
from dicom_io.headers import read_facts
from dicom_io.series import ExamAssembly, assemble_exam
from dicom_io.simulated_scanner import write_exam
from dicom_io.volume_reader import ExamImages, find_dicom_files, read_exam
from processing.phantom import simulate_exam
from processing.refusal import ReasonCode, UnsuitableInput
from processing.results import Quantity

CARDS = load_cards()


def assemble(paths: list[Path]) -> ExamAssembly:
    return assemble_exam([one for path in paths for one in read_facts(path)], CARDS)


def read(paths: list[Path]) -> ExamImages:
    return read_exam(assemble(paths))


def test_stacks_hold_what_was_stored(tmp_path: Path) -> None:
    signal = mapss_signal()
    exam = read(write_mapss(tmp_path, signal))
    t1rho, t2 = exam.stacks
    assert (t1rho.role, t1rho.times_ms) == (Quantity.T1RHO, (0.0, 10.0, 40.0, 80.0))
    assert (t2.role, t2.times_ms) == (Quantity.T2, (0.0, 12.8, 25.7, 51.4))
    for stack in exam.stacks:
        for echo, time_ms in zip(stack.signal, stack.times_ms, strict=True):
            assert np.array_equal(echo, signal[MAPSS_TIMES_MS.index(time_ms)])
    assert t1rho.signal.dtype == np.float32
    assert np.array_equal(exam.background.array, signal[0])
    assert exam.times_ms == {Quantity.T1RHO: t1rho.times_ms, Quantity.T2: t2.times_ms}
    assert exam.protocols == ("ge-mapss",)
    assert np.allclose(exam.background.affine @ [2, 3, 1, 1], [12.0, -100 + 0.6, 100 - 3 * 0.8, 1])


def test_the_written_times_are_fitted_not_the_nominal_ones(tmp_path: Path) -> None:
    paths = write_mapss(tmp_path, mapss_signal())
    for path in paths:
        dataset = dcmread(path)
        dataset.EchoTime = {12.8: 12.847, 25.7: 25.695, 51.4: 51.39}.get(float(dataset.EchoTime), dataset.EchoTime)
        dataset.save_as(path)
    t1rho, t2 = read(paths).stacks
    assert t1rho.times_ms == (0.0, 10.0, 40.0, 80.0)
    assert t2.times_ms == (0.0, 12.847, 25.695, 51.39)


def test_other_pixels_under_the_same_uids_are_another_exam(tmp_path: Path) -> None:
    paths = write_mapss(tmp_path, mapss_signal())
    first = read(paths).source.pixels_sha256
    assert first == read(paths[::-1]).source.pixels_sha256
    dataset = dcmread(paths[3])
    dataset.PixelData = dataset.PixelData[::-1]
    dataset.save_as(paths[3])
    assert read(paths).source.pixels_sha256 != first


def test_two_scans_are_two_decays_with_a_first_image_each(tmp_path: Path) -> None:
    signal = mapss_signal()
    for number, (name, rows) in enumerate((("two-t1rho", (0, 1, 4, 6)), ("two-t2", (0, 2, 3, 5))), start=1):
        (tmp_path / name).mkdir()
        for path in write_mapss(
            tmp_path / name, signal[:, :: 3 - 2 * number] + number, RescaleSlope=str(number), ImagesInAcquisition=16
        ):
            dataset = dcmread(path)
            dataset.SeriesDescription, dataset.SeriesInstanceUID = name, f"1.2.3.{number}"
            dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"{dataset.SOPInstanceUID}.{number}"
            dataset.save_as(path)
            if MAPSS_TIMES_MS.index(float(dataset.EchoTime)) not in rows:
                path.unlink()
    cards = [
        scan_card(name, other, **{key: [MAPSS_TIMES_MS[row] for row in rows]})
        for name, other, key, rows in (
            ("two-t1rho", "two-t2", "t1rho_ms", (0, 1, 4, 6)),
            ("two-t2", "two-t1rho", "t2_ms", (0, 2, 3, 5)),
        )
    ]
    exam = read_exam(assemble_exam([one for path in tmp_path.rglob("*-*-*") for one in read_facts(path)], cards))
    assert [stack.role for stack in exam.stacks] == [Quantity.T1RHO, Quantity.T2]
    assert exam.times_ms == {Quantity.T1RHO: (0, 10, 40, 80), Quantity.T2: (0, 12.8, 25.7, 51.4)}
    assert np.array_equal(exam.stacks[0].signal, signal[[0, 1, 4, 6]] + 1)
    assert np.array_equal(exam.stacks[1].signal, 2.0 * (signal[[0, 2, 3, 5], ::-1] + 2))  # each at its own scale
    assert np.array_equal(exam.background.array, signal[0] + 1)
    assert [(scan.protocol, scan.series_uids) for scan in exam.scans] == [
        ("two-t1rho", ("1.2.3.1",)),
        ("two-t2", ("1.2.3.2",)),
    ]
    assert len(exam.source.all_instances) == 32
    assert {one.SeriesInstanceUID for one in exam.source.grid_instances} == {"1.2.3.1"}


def test_slices_are_ordered_by_place_whatever_way_they_were_acquired(tmp_path: Path) -> None:
    signal = mapss_signal()
    forward, backward = tmp_path / "forward", tmp_path / "backward"
    forward.mkdir()
    backward.mkdir()
    write_mapss(backward, signal[:, ::-1])
    for path in backward.iterdir():  # the same volume, written from the right to the left
        dataset = dcmread(path)
        dataset.ImagePositionPatient[0] = 20 - 4 * (3 - int(path.name.rsplit("-", 1)[1]))
        dataset.save_as(path)
    one, other = read(write_mapss(forward, signal)), read(sorted(backward.iterdir()))
    assert np.array_equal(one.stacks[0].signal, other.stacks[0].signal)
    assert np.array_equal(one.background.affine, other.background.affine)


def test_source_headers_belong_to_the_grid(tmp_path: Path) -> None:
    exam = read(write_mapss(tmp_path, mapss_signal()))
    assert [one.ImagePositionPatient[0] for one in exam.source.grid_instances] == [20, 16, 12, 8]
    assert {one.EchoTime for one in exam.source.grid_instances} == {0}
    assert len(exam.source.all_instances) == 28
    assert len(exam.source.sop_instance_uids) == 28
    assert exam.source.grid_instances[0].PatientID == "P-17"
    assert not any("PixelData" in one for one in exam.source.all_instances)
    assert exam.source.affine is exam.background.affine


def test_rescale_is_applied(tmp_path: Path) -> None:
    signal = mapss_signal()
    exam = read(write_mapss(tmp_path, signal, RescaleSlope="0.5", RescaleIntercept="-7"))
    assert np.array_equal(exam.background.array, signal[0] * 0.5 - 7)


def test_signed_pixels_keep_their_sign(tmp_path: Path) -> None:
    signal = mapss_signal().astype(np.int16) - 2_000
    assert signal.min() < 0 < signal.max()
    assert np.array_equal(read(write_mapss(tmp_path, signal)).background.array, signal[0])


def test_unused_high_bits_are_not_signal(tmp_path: Path) -> None:
    signal = mapss_signal() % 4096
    overlaid = signal | 0x5000  # old overlays live in the bits above BitsStored
    exam = read(write_mapss(tmp_path, overlaid, BitsStored=12, HighBit=11))
    assert np.array_equal(exam.background.array, signal[0])


def test_big_endian_pixels(tmp_path: Path) -> None:
    signal = mapss_signal()
    exam = read(write_mapss(tmp_path, signal, transfer_syntax=ExplicitVRBigEndian))
    assert np.array_equal(exam.background.array, signal[0])


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, JPEGLSLossless])
def test_compressed_pixels_are_decoded(tmp_path: Path, syntax: UID) -> None:
    signal = mapss_signal(rows=64, columns=48)
    paths = write_mapss(tmp_path, signal)
    for path in paths:
        dataset = dcmread(path)
        if syntax == JPEG2000Lossless:  # pydicom has no encoder of its own for it
            frame = BytesIO()
            Image.fromarray(dataset.pixel_array).save(frame, "JPEG2000", irreversible=False, no_jp2=True)
            dataset.PixelData = encapsulate([frame.getvalue()])
            dataset["PixelData"].is_undefined_length = True
            dataset.file_meta.TransferSyntaxUID = syntax
        else:
            dataset.compress(syntax, generate_instance_uid=False)
        dataset.save_as(path)
    assert np.array_equal(read(paths).stacks[1].signal[3], signal[MAPSS_TIMES_MS.index(51.4)])


def test_transfer_syntax_without_a_decoder_is_named(tmp_path: Path) -> None:
    paths = write_mapss(tmp_path, mapss_signal())
    for path in paths:
        dataset = dcmread(path)
        dataset.compress(RLELossless, generate_instance_uid=False)
        dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.100"  # a film
        dataset.save_as(path)
    with pytest.raises(UnsuitableInput, match="MPEG2") as caught:
        read(paths)
    assert caught.value.reason.code is ReasonCode.UNSUPPORTED_OBJECT


def test_corrupt_compressed_pixels_are_unreadable(tmp_path: Path) -> None:
    paths = write_mapss(tmp_path, mapss_signal())
    for path in paths:
        dataset = dcmread(path)
        dataset.compress(RLELossless, generate_instance_uid=False)
        dataset.file_meta.TransferSyntaxUID = JPEGLSLossless
        dataset.save_as(path)
    with pytest.raises(UnsuitableInput, match="JPEG-LS Lossless") as caught:
        read(paths)
    assert caught.value.reason.code is ReasonCode.UNREADABLE


def test_file_that_changed_after_its_header_was_read_is_refused(tmp_path: Path) -> None:
    paths = write_mapss(tmp_path, mapss_signal())
    assembly = assemble(paths)
    dataset = dcmread(paths[5])
    dataset.PixelData = bytes(len(dataset.PixelData))
    dataset.save_as(paths[5])
    with pytest.raises(UnsuitableInput, match="has changed since"):
        read_exam(assembly)


def test_anatomy_alone_has_a_background_and_no_stacks(tmp_path: Path) -> None:
    signal = mapss_signal()
    paths = write_mapss(tmp_path, signal, SeriesDescription="SAG T2 FSE", ImagesInAcquisition=None)
    exam = read(paths[:4])
    assert exam.stacks == ()
    assert exam.times_ms == {}
    assert np.array_equal(exam.background.array, signal[0])
    assert exam.protocols == ("t2-fse",)


def test_incomplete_exam_is_not_read(tmp_path: Path) -> None:
    assembly = assemble(write_mapss(tmp_path, mapss_signal())[:-1])
    with pytest.raises(ValueError, match="incomplete"):
        read_exam(assembly)


def test_find_dicom_files_tries_every_regular_file_once(tmp_path: Path) -> None:
    (tmp_path / "b" / "deep").mkdir(parents=True)
    for name in ("b/deep/2", "b/1.dcm", "a.txt", "DICOMDIR", "b/dicomdir"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "broken").symlink_to(tmp_path / "nowhere")
    (tmp_path / "b" / "loop").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    expected = [tmp_path / "a.txt", tmp_path / "b/1.dcm", tmp_path / "b/deep/2"]
    assert find_dicom_files([tmp_path]) == expected
    assert find_dicom_files([tmp_path / "b", tmp_path / "a.txt", tmp_path]) == expected
    assert find_dicom_files([]) == []


def test_one_small_image_is_what_the_builder_says() -> None:
    pixels = mapss_signal()[0, 0]
    assert np.array_equal(mr_dataset(pixels).pixel_array, pixels)


def test_a_simulated_exam_is_read_as_it_was_made(tmp_path: Path) -> None:
    made = simulate_exam(3, n_slices=1, protocol="t1rho-fse")
    exam = read(write_exam(made, tmp_path))
    (stack,) = exam.stacks
    assert (stack.role, stack.times_ms) == (Quantity.T1RHO, (0.0, 40.0, 80.0, 120.0))
    assert np.allclose(stack.affine, made.affine, atol=1e-3)
    scale = stack.signal.max() / made.signal.max()
    assert np.abs(stack.signal / scale - made.signal).max() < 1.01 / scale  # rounded to whole numbers when written
    assert exam.protocols == ("ge-t1rho-fse",)
