"""Registration that ends after a few iterations, for tests in which it only has to run."""

import re
from pathlib import Path

import config
from config.settings import RegistrationSettings

ELASTIX = Path(config.__file__).parent / "elastix"


def shortened(folder: Path) -> RegistrationSettings:
    """Settings of one process whose parameters, written to ``folder``, end early; any fit will do."""
    for path in ELASTIX.glob("*fast_3d.txt"):
        text = path.read_text(encoding="utf-8")
        short = re.sub(r"\(MaximumNumberOfIterations \d+\)", "(MaximumNumberOfIterations 3)", text)
        assert short != text
        (folder / path.name).write_text(short, encoding="utf-8")
    return RegistrationSettings(parameters_dir=folder, processes=1, min_dice=0.01)
