"""Long campaigns of faults and load, by ``make soak``; pytest does not collect them."""

import sys
from pathlib import Path

_TESTS = Path(__file__).resolve().parent.parent
for _folder in (_TESTS, _TESTS / "service", _TESTS / "dicom_io"):  # as pytest does
    if str(_folder) not in sys.path:
        sys.path.insert(0, str(_folder))
