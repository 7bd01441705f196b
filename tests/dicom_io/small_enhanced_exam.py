"""A small MAPSS exam in one Enhanced MR object, 28 frames, with known content for the tests of reading."""

import numpy as np
from enhanced_object import enhanced_mr
from pydicom.dataset import Dataset, FileDataset
from small_mr_exam import MAPSS_TIMES_MS, mapss_signal, mr_dataset

OBJECT_UID = "1.2.3.1.77"
SIGNAL = mapss_signal()  # (7 times, 4 slices, 6, 5)
N_SLICES = SIGNAL.shape[1]


def classic_headers(**changes: object) -> list[Dataset]:
    """A MAPSS exam's classic headers, slice by slice, fastest by time."""
    return [
        mr_dataset(
            SIGNAL[echo, slice_index],
            **{
                "EchoTime": time_ms,
                "ImagePositionPatient": [20 - 4 * slice_index, -100, 100],
                "BitsStored": 16,
                **changes,
            },
        )
        for slice_index in range(N_SLICES)
        for echo, time_ms in enumerate(MAPSS_TIMES_MS)
    ]


def frame_pixels() -> np.ndarray:
    return SIGNAL.transpose(1, 0, 2, 3).reshape(-1, *SIGNAL.shape[2:])


def mapss_object(**changes: object) -> FileDataset:
    return enhanced_mr(classic_headers(**changes), frame_pixels(), OBJECT_UID)
