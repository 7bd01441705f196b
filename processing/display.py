"""How results look wherever a person sees them: names, colours and colour ranges, the same in every output."""

from processing.results import Level, Quantity, Region

RESEARCH_USE_ONLY = "Research use only"

LEVEL_NAMES: dict[Level, str] = {
    Level.L5S1: "L5/S1",
    Level.L4L5: "L4/L5",
    Level.L3L4: "L3/L4",
    Level.L2L3: "L2/L3",
    Level.L1L2: "L1/L2",
    Level.T12L1: "T12/L1",
}

#: sRGB 0..255, told apart with every common colour blindness (Okabe and Ito 2008, lightened for a dark background).
LEVEL_COLOURS: dict[Level, tuple[int, int, int]] = {
    Level.L5S1: (230, 159, 0),
    Level.L4L5: (86, 180, 233),
    Level.L3L4: (0, 190, 140),
    Level.L2L3: (240, 228, 66),
    Level.L1L2: (240, 110, 50),
    Level.T12L1: (224, 141, 187),
}

QUANTITY_NAMES: dict[Quantity, str] = {Quantity.T1RHO: "T1ρ", Quantity.T2: "T2"}

REGION_NAMES: dict[Region, str] = {
    Region.WHOLE_DISC: "whole disc",
    Region.NUCLEUS: "nucleus",
    Region.ANTERIOR_ANNULUS: "anterior annulus",
    Region.POSTERIOR_ANNULUS: "posterior annulus",
}

#: Fixed ranges in ms, so that exams can be compared by eye. Degenerated discs lie near 40 ms, healthy nuclei over 120.
DISPLAY_RANGES_MS: dict[Quantity, tuple[float, float]] = {Quantity.T1RHO: (20.0, 160.0), Quantity.T2: (20.0, 160.0)}
