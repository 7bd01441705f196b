"""The parameter files in ``config/elastix``: read, and every name checked.

elastix ignores a name it does not know without a word, so a misspelt parameter would silently change a result.
"""

import hashlib
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
        "LinearityConditionWeight",
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
        "OrthonormalityConditionWeight",
        "PropernessConditionWeight",
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

_NUMBER = re.compile(r"[-+]?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?")

ParameterMap = dict[str, tuple[str, ...]]
Stages = tuple[ParameterMap, ParameterMap]  # affine, B-spline


def read_parameters(path: Path) -> ParameterMap:
    """Read an elastix parameter file: ``(Name value ...)`` lines and ``//`` comments.

    Raises:
        SettingsError: unreadable, a line of another form, an unknown name or a name given twice.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path}: is not text in UTF-8") from error
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


def parameter_files(dimension: int, preset: str, folder: Path | None = None) -> tuple[Path, Path]:
    """The affine and the B-spline file of a preset (``fast`` or ``paper``) in 2-D or 3-D.

    A file in ``folder``, of the same name, takes the place of the one that is shipped.
    """
    names = (f"affine_{dimension}d.txt", f"bspline_{preset}_{dimension}d.txt")
    own = [None if folder is None else folder / name for name in names]
    affine, bspline = (
        site if site is not None and site.is_file() else ELASTIX_FOLDER / name
        for site, name in zip(own, names, strict=True)
    )
    return affine, bspline


def registration_parameters(dimension: int, preset: str, seed: int, folder: Path | None = None) -> Stages:
    """The affine and the B-spline parameters of a preset (``fast`` or ``paper``) in 2-D or 3-D.

    Raises:
        SettingsError: a file is faulty, see :func:`read_parameters`; ``folder`` holds no parameter file; a schedule has
            not a number for each level and axis, in place of which elastix would silently take its own.
    """
    if folder is not None and not any((folder / one.name).is_file() for one in ELASTIX_FOLDER.glob("*.txt")):
        names = ", ".join(sorted(one.name for one in ELASTIX_FOLDER.glob("*.txt")))
        raise SettingsError(f"{folder}: holds none of elastix' parameter files; they are called {names}")
    stages = []
    for path in parameter_files(dimension, preset, folder):
        parameters = read_parameters(path)
        _check_schedules(path, parameters, dimension)
        stages.append(parameters | {"RandomSeed": (str(seed),)})
    affine, bspline = stages
    return affine, bspline


def _check_schedules(path: Path, parameters: ParameterMap, dimension: int) -> None:
    if parameters.get("FixedImageDimension") != (str(dimension),):
        raise SettingsError(f"{path}: FixedImageDimension must be {dimension}")
    levels = int(parameters.get("NumberOfResolutions", ("0",))[0])
    for name in ("ImagePyramidSchedule", "GridSpacingSchedule"):
        given = len(parameters.get(name, ()))
        needed = name == "ImagePyramidSchedule" or given
        if needed and given != levels * dimension:
            raise SettingsError(
                f"{path}: {name} has {given} numbers; {levels} resolutions in {dimension}-D need {levels * dimension}"
            )


def parameters_digest(dimension: int, preset: str, folder: Path | None = None) -> str:
    """Sixteen hex digits over the parameters of a preset; comments and order do not count."""
    stages = registration_parameters(dimension, preset, 0, folder)
    return hashlib.sha256(repr([sorted(one.items()) for one in stages]).encode()).hexdigest()[:16]


def write_parameters(path: Path, parameters: ParameterMap, comment: str) -> None:
    """Write a parameter file that :func:`read_parameters` reads back, below the lines of ``comment``."""
    lines = [f"// {line}" for line in comment.splitlines()]
    lines += [f"({name} {' '.join(map(_quoted, values))})" for name, values in sorted(parameters.items())]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _quoted(value: str) -> str:
    return value if _NUMBER.fullmatch(value) else f'"{value}"'
