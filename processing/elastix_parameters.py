"""The parameter files in ``config/elastix``: read, and every name checked.

elastix ignores a name it does not know without a word, so a misspelt parameter would silently change a result.
"""

import re
from pathlib import Path

import config
from config.settings import SettingsError

ELASTIX_FOLDER = Path(config.__file__).parent / "elastix"

#: Names used here and checked against elastix 5.2's documentation of the components we use.
KNOWN_NAMES = frozenset(
    {
        "ASGDParameterEstimationMethod",
        "AutomaticParameterEstimation",
        "AutomaticScalesEstimation",
        "AutomaticTransformInitialization",
        "BSplineTransformSplineOrder",
        "DefaultPixelValue",
        "ErodeMask",
        "FinalBSplineInterpolationOrder",
        "FinalGridSpacingInVoxels",
        "FixedImageDimension",
        "FixedImagePyramid",
        "FixedInternalImagePixelType",
        "GridSpacingSchedule",
        "HowToCombineTransforms",
        "ImagePyramidSchedule",
        "ImageSampler",
        "Interpolator",
        "MaximumNumberOfIterations",
        "Metric",
        "Metric0Weight",
        "Metric1Weight",
        "MovingImageDimension",
        "MovingImagePyramid",
        "MovingInternalImagePixelType",
        "NewSamplesEveryIteration",
        "NumberOfHistogramBins",
        "NumberOfResolutions",
        "Optimizer",
        "RandomSeed",
        "Registration",
        "RequiredRatioOfValidSamples",
        "ResampleInterpolator",
        "Resampler",
        "Transform",
        "UseDirectionCosines",
        "WriteResultImage",
    }
)

_LINE = re.compile(r"""\((?P<name>\w+)(?P<values>(?:\s+(?:"[^"]*"|[^\s"()]+))+)\s*\)\s*(?://.*)?""")
_VALUE = re.compile(r'"([^"]*)"|(\S+)')

ParameterMap = dict[str, tuple[str, ...]]


def read_parameters(path: Path) -> ParameterMap:
    """Read an elastix parameter file: ``(Name value ...)`` lines and ``//`` comments.

    Raises:
        SettingsError: unreadable, a line of another form, an unknown name or a name given twice.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from error
    parameters: ParameterMap = {}
    for number, line in enumerate((line.strip() for line in lines), start=1):
        if not line or line.startswith("//"):
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise SettingsError(f"{path}:{number}: must read '(Name value ...)', found {line!r}")
        name = match["name"]
        if name not in KNOWN_NAMES:
            raise SettingsError(
                f"{path}:{number}: unknown elastix parameter {name}; allowed: {', '.join(sorted(KNOWN_NAMES))}"
            )
        if name in parameters:
            raise SettingsError(f"{path}:{number}: {name} is given twice")
        parameters[name] = tuple(quoted or bare for quoted, bare in _VALUE.findall(match["values"]))
    return parameters


def registration_parameters(dimension: int, preset: str, seed: int) -> tuple[ParameterMap, ParameterMap]:
    """The affine and the B-spline parameters of a preset (``fast`` or ``paper``) in 2-D or 3-D."""
    stages = (f"affine_{dimension}d.txt", f"bspline_{preset}_{dimension}d.txt")
    affine, bspline = (read_parameters(ELASTIX_FOLDER / name) | {"RandomSeed": (str(seed),)} for name in stages)
    return affine, bspline
