"""How an exam was acquired, read from the headers of every flavour; clocks with traps; what result.json keeps of it."""

from datetime import datetime
from pathlib import Path

import pytest
from pydicom import dcmread
from small_mr_exam import mapss_signal, write_mapss

from config.protocol_cards import load_cards
from dicom_io.acquisition import acquisition_entry, acquisition_of_entry
from dicom_io.headers import read_facts
from dicom_io.series import assemble_exam
from dicom_io.simulated_scanner import write_exam
from dicom_io.volume_reader import read_exam
from processing.phantom import PhantomExam, simulate_exam
from processing.visits import Acquisition

CLOCK = datetime(2026, 3, 14, 9, 26, 53)


def acquired(paths) -> Acquisition:
    facts = [one for path in paths for one in read_facts(path)]
    return read_exam(assemble_exam(facts, load_cards())).acquisition


def of_headers(folder: Path, **attributes: object) -> Acquisition:
    return acquired(write_mapss(folder, mapss_signal(), **attributes))


def test_what_a_header_tells_is_told(tmp_path):
    found = of_headers(
        tmp_path,
        ManufacturerModelName="DISCOVERY MR750w",
        DeviceSerialNumber="0000GEHC1",
        SoftwareVersions=["27", "LX", "MR Software release:DV26.0_R01"],
        ReceiveCoilName="8US TORSOPA",
        MagneticFieldStrength=3,
        RepetitionTime=5.2,
        PixelBandwidth=488.281,
        AcquisitionDate="20260314",
        AcquisitionTime="092653.589",
    )
    assert found == Acquisition(
        manufacturer="GE MEDICAL SYSTEMS",
        model="DISCOVERY MR750w",
        device_serial="0000GEHC1",
        software_versions="27 LX MR Software release:DV26.0_R01",
        receive_coil="8US TORSOPA",
        protocol="ge-mapss",
        field_strength_t=3.0,
        spin_lock_hz=300.0,
        t1rho_times_ms=(0.0, 10.0, 40.0, 80.0),
        t2_times_ms=(0.0, 12.8, 25.7, 51.4),
        repetition_time_ms=5.2,
        pixel_bandwidth_hz=488.281,
        matrix=(6, 5),
        pixel_spacing_mm=(0.8, 0.6),
        slice_thickness_mm=4.0,
        slice_spacing_mm=4.0,
        n_slices=4,
        slice_normal=(-1.0, 0.0, 0.0),
        acquired_at=CLOCK,
    )


def test_what_a_header_does_not_tell_is_not_known(tmp_path):
    found = of_headers(tmp_path)
    assert (found.device_serial, found.software_versions, found.receive_coil, found.model) == ("", "", "", "")
    assert found.acquired_at is found.field_strength_t is found.repetition_time_ms is found.pixel_bandwidth_hz is None


@pytest.mark.parametrize(
    ("description", "hz"),
    [
        ("MAPSS T1rho T2", 300.0),
        ("MAPSS T1rho FSL 500", 500.0),
        ("3DMAPPS SL 350Hz", 350.0),
        ("MAPSS 400 Hz", 400.0),
        ("MAPSS SL 0_10_40_80", 300.0),  # times, no frequency
    ],
)
def test_the_spin_lock_frequency_is_the_description_s_else_the_card_s(tmp_path, description, hz):
    assert of_headers(tmp_path, SeriesDescription=description).spin_lock_hz == hz


@pytest.mark.parametrize(
    ("attributes", "moment"),
    [
        ({"AcquisitionDateTime": "20260314092653.5"}, CLOCK),
        # by the scanner's clock, whatever zone it says it stands in
        ({"AcquisitionDateTime": "20260314092653+0100"}, CLOCK),
        # a TM is local time; the DT was rewritten to UTC
        (
            {
                "AcquisitionDateTime": "20260314082653+0000",
                "AcquisitionDate": "20260314",
                "AcquisitionTime": "092653",
            },
            CLOCK,
        ),
        # reconstructed again two days later
        (
            {
                "SeriesDate": "20260314",
                "SeriesTime": "092653",
                "ContentDate": "20260316",
                "ContentTime": "170000",
            },
            CLOCK,
        ),
        ({"ContentDate": "20260314", "ContentTime": "092653"}, CLOCK),
        # the study began hours before: no word about this scan
        ({"StudyDate": "20260314", "StudyTime": "060000"}, None),
        ({"StudyDate": "20260314", "AcquisitionTime": "092653"}, CLOCK),
        # past midnight, and no date of its own
        (
            {"StudyDate": "20260314", "StudyTime": "234000", "AcquisitionTime": "001500"},
            datetime(2026, 3, 15, 0, 15),
        ),
        ({"AcquisitionDate": "20260314", "AcquisitionTime": "0926"}, datetime(2026, 3, 14, 9, 26)),
        ({"AcquisitionDate": "20260314"}, None),
        ({"AcquisitionDate": "20261399", "AcquisitionTime": "092653"}, None),
        ({"AcquisitionDate": "20260314", "AcquisitionTime": "256199"}, None),
    ],
)
@pytest.mark.filterwarnings("ignore:Invalid value for VR")  # pydicom's, of what this test writes on purpose
def test_clocks(tmp_path, attributes, moment):
    assert of_headers(tmp_path, **attributes).acquired_at == moment


def test_the_scan_began_when_its_first_image_did(tmp_path):
    """Images of one scan may tell different times; a midnight between them is no matter."""
    paths = write_mapss(tmp_path, mapss_signal())
    for path in paths:
        dataset = dcmread(path)
        is_first = float(dataset.EchoTime) == 10
        dataset.AcquisitionDateTime = "20260314235500" if is_first else "20260315000500"
        dataset.save_as(path)
    assert acquired(paths).acquired_at == datetime(2026, 3, 14, 23, 55)


def test_a_number_of_the_wrong_form_is_not_known_and_refuses_nothing(tmp_path):
    paths = write_mapss(tmp_path, mapss_signal())
    for path in paths:
        dataset = dcmread(path)
        dataset.add_new("MagneticFieldStrength", "LO", "three")
        dataset.add_new("PixelBandwidth", "LO", "1\\2")
        dataset.RepetitionTime = "-1"
        dataset.save_as(path)
    found = acquired(paths)
    assert found.field_strength_t is found.pixel_bandwidth_hz is found.repetition_time_ms is None


@pytest.fixture(scope="module")
def exam() -> PhantomExam:
    return simulate_exam(3, n_slices=3, matrix=64)


@pytest.mark.parametrize(
    ("vendor", "enhanced", "maker", "protocol", "coil"),
    [
        ("ge", False, "ge", "ge-mapss", ""),
        ("siemens", False, "siemens", "siemens-mapss", ""),
        ("siemens", True, "siemens", "siemens-mapss", "SPINE"),
        ("philips", False, "philips", "philips-mapss-t1rho + philips-mapss-t2", ""),
        ("philips", True, "philips", "philips-mapss-t1rho + philips-mapss-t2", "SPINE"),
    ],
)
def test_every_flavour_tells_the_same_acquisition(exam, tmp_path, vendor, enhanced, maker, protocol, coil):
    found = acquired(write_exam(exam, tmp_path, vendor=vendor, enhanced=enhanced))
    assert found.manufacturer.casefold().startswith(maker)
    assert (found.protocol, found.receive_coil) == (protocol, coil)
    assert found.t1rho_times_ms == (0.0, 10.0, 40.0, 80.0)
    assert found.t2_times_ms == pytest.approx((0.0, 12.8, 25.7, 51.4), abs=0.05)
    assert (found.repetition_time_ms, found.pixel_bandwidth_hz, found.field_strength_t) == (5.2, 244.141, 3.0)
    assert found.spin_lock_hz is not None
    assert (found.matrix, found.n_slices, found.slice_thickness_mm) == ((64, 64), 3, 4.0)
    assert found.acquired_at is not None
    assert found.acquired_at.date() == datetime(2026, 1, 12).date()
    assert acquisition_of_entry(acquisition_entry(found)) == found


def test_what_result_json_keeps_comes_back_and_what_it_lacks_is_none():
    told = Acquisition(manufacturer="GE", t1rho_times_ms=(0.0, 10.0), matrix=(256, 192), acquired_at=CLOCK)
    entry = acquisition_entry(told)
    assert entry["acquired_at"] == "2026-03-14T09:26:53"
    assert entry["t1rho_times_ms"] == [0.0, 10.0]
    assert acquisition_of_entry(entry) == told
    assert acquisition_of_entry(acquisition_entry(Acquisition())) == Acquisition()
    assert acquisition_of_entry(None) is None


def test_nobody_s_name_is_in_the_acquisition(tmp_path):
    names: dict[str, object] = {"PatientName": "CANARY^A", "PatientID": "CANARY-B", "OperatorsName": "CANARY^C"}
    entry = acquisition_entry(of_headers(tmp_path, **names, StationName="CANARY-D"))
    assert "CANARY" not in str(entry)
