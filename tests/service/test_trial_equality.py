"""How a visit was acquired against the baseline, from the blocks of their results."""

from config.trial_plans import Acceptance
from dicom_io.acquisition import acquisition_entry
from processing.visits import Acquisition
from service.trials.equality import differences

RULES = Acceptance()


def block(**changes):
    return acquisition_entry(Acquisition(device_serial="A1", n_slices=12, **changes))


def test_a_result_that_does_not_tell_is_not_taken_for_equal():
    for before, now, whose in ((None, block(), "baseline"), (block(), None, "visit")):
        (found,) = differences(before, now, RULES)
        assert (found.hard, found.widens) == (False, True)
        assert found.text.startswith(f"How the {whose} was acquired does not stand in its result")
    assert differences(None, None, RULES) == ()


def test_blocks_are_compared_as_the_plan_says():
    found = differences(block(slice_thickness_mm=4.0), block(slice_thickness_mm=4.3), RULES)
    assert "slice_thickness_mm" in {one.what for one in found}
    lenient = Acceptance(geometry_share=0.2)
    found = differences(block(slice_thickness_mm=4.0), block(slice_thickness_mm=4.3), lenient)
    assert "slice_thickness_mm" not in {one.what for one in found}
