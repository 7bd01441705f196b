"""An exam of a series per time in which T1rho and T2 each have an image without preparation."""

import random
from dataclasses import replace

import pytest
from small_mr_exam import image_facts

from config.protocol_cards import load_cards
from dicom_io.headers import ImageFacts
from dicom_io.series import AssemblyState, assemble_exam

CARDS = load_cards()
T1RHO_MS, T2_MS = (0.0, 10.0, 40.0, 80.0), (0.0, 12.8, 25.7, 51.4)


def series(name: str, number: int, *, n_slices: int = 4, **changes: object) -> list[ImageFacts]:
    return [
        image_facts(
            **{
                "manufacturer": "Siemens Healthineers",
                "series_description": name,
                "series_uid": f"1.2.3.{number}",
                "series_number": number,
                "sop_instance_uid": f"1.2.3.{number}.{k}",
                "pixel_sha256": f"{number:032d}{k:032d}",
                "position": (20.0 - 4 * k, -100.0, 100.0),
                "echo_time_ms": 2.1,
                "images_in_acquisition": n_slices,
                **changes,
            }
        )
        for k in range(n_slices)
    ]


def exam() -> dict[str, list[ImageFacts]]:
    names = [f"MAPSS TSL {time:g}" for time in T1RHO_MS] + [f"MAPSS T2prep TE {time:g}" for time in T2_MS]
    return {name: series(name, number) for number, name in enumerate(names, start=3)}


def all_of(parts: dict[str, list[ImageFacts]]) -> list[ImageFacts]:
    facts = [one for images in parts.values() for one in images]
    random.Random(1).shuffle(facts)
    return facts


def test_each_decay_has_its_own_first_image() -> None:
    assembly = assemble_exam(all_of(exam()), CARDS)
    assert assembly.state is AssemblyState.COMPLETE
    assert assembly.protocols == ("siemens-mapss",)
    t1rho, t2 = assembly.relaxometry
    assert (t1rho.times_ms, t2.times_ms) == (T1RHO_MS, T2_MS)
    assert {one.series_description for one in t1rho.grid[0]} == {"MAPSS TSL 0"}
    assert {one.series_description for one in t2.grid[0]} == {"MAPSS T2prep TE 0"}
    assert assembly.set_aside == ()


@pytest.mark.parametrize("lost", ["MAPSS TSL 40", "MAPSS T2prep TE 12.8"])
def test_what_is_missing_of_either_is_named(lost: str) -> None:
    parts = exam()
    del parts[lost]
    assembly = assemble_exam(all_of(parts), CARDS)
    assert assembly.state is AssemblyState.INCOMPLETE
    time = lost.replace("MAPSS ", "").replace("T2prep ", "")
    assert f"12/16 images: missing {time} ms at all 4 slices" in assembly.missing_text


def test_one_first_image_is_shared() -> None:
    parts = exam()
    del parts["MAPSS T2prep TE 0"]
    (scan,) = assemble_exam(all_of(parts), CARDS).relaxometry
    assert scan.times_ms == (0.0, 10.0, 12.8, 25.7, 40.0, 51.4, 80.0)


def test_scans_that_do_not_lie_on_one_grid_are_refused() -> None:
    parts = exam()
    for number, name in enumerate(parts):
        if "TE" in name:
            moved = [(20.0 - 4 * k, -97.0, 100.0) for k in range(4)]
            parts[name] = [image for k in range(4) for image in series(name, number + 3, position=moved[k])[k : k + 1]]
    assembly = assemble_exam(all_of(parts), CARDS)
    assert [reason.code.value for reason in assembly.reasons] == ["GEOMETRY_INCONSISTENT"]
    assert assembly.reasons[0].detail.startswith("T1rho and T2 of siemens-mapss do not lie on one grid")


def test_the_first_image_of_t2_was_taken_for_a_lost_one_of_t1rho() -> None:
    parts = exam()
    del parts["MAPSS TSL 0"]
    assembly = assemble_exam(all_of(parts), CARDS)
    assert assembly.state is AssemblyState.INCOMPLETE
    assert "12/16 images: missing TSL 0 ms at all 4 slices" in assembly.missing_text


def ge_series(number: int, times_ms: tuple[float, ...]) -> list[ImageFacts]:
    """A scan of GE, its times in EchoTime."""
    changes = {"manufacturer": "GE MEDICAL SYSTEMS", "images_in_acquisition": 4 * len(times_ms)}
    return [
        one
        for time in times_ms
        for one in (
            replace(
                facts,
                echo_time_ms=time,
                sop_instance_uid=f"{facts.sop_instance_uid}.{time:g}",
                pixel_sha256=f"{time:08.1f}{facts.pixel_sha256}",
            )
            for facts in series("3D MAPSS", number, **changes)
        )
    ]


def test_two_series_of_ge_with_a_first_image_each_were_fragments_of_one_scan() -> None:
    facts = ge_series(5, T1RHO_MS) + ge_series(6, T2_MS)
    random.Random(1).shuffle(facts)
    assembly = assemble_exam(facts, CARDS)
    assert assembly.state is AssemblyState.COMPLETE
    assert [scan.times_ms for scan in assembly.relaxometry] == [T1RHO_MS, T2_MS]
    assert [scan.series_uids for scan in assembly.relaxometry] == [("1.2.3.5",), ("1.2.3.6",)]


def test_two_series_of_ge_that_share_the_first_image_are_one_scan() -> None:
    (scan,) = assemble_exam(ge_series(5, T1RHO_MS) + ge_series(6, T2_MS[1:]), CARDS).relaxometry
    assert scan.times_ms == (0.0, 10.0, 12.8, 25.7, 40.0, 51.4, 80.0)
