"""The atlases: those the code builds, levelled, centred, with parts and midline that make sense; bad files refused."""

import hashlib

import numpy as np
import pytest

from processing.atlas import (
    ATLAS_FOLDER,
    SPACING_MM,
    AtlasError,
    load_atlas,
    read_atlas,
    shipped_atlases,
    write_atlas,
)
from processing.atlas_anatomy import build_discs, build_healthy
from processing.results import LUMBAR_LEVELS, Level

SHIPPED = ("healthy", "degenerated", "healthy-2")
every_disc = pytest.mark.parametrize(
    ("name", "dimension", "level"), [(name, d, level) for name in SHIPPED for d in (2, 3) for level in LUMBAR_LEVELS]
)


@pytest.fixture(scope="module")
def built():
    return {dimension: build_discs(dimension) for dimension in (2, 3)}


def test_three_are_shipped_and_say_where_they_come_from():
    assert shipped_atlases() == SHIPPED
    for name in SHIPPED:
        atlas = read_atlas(name)
        assert atlas.name == name
        assert atlas.sha256 == hashlib.sha256((ATLAS_FOLDER / f"{name}.npz").read_bytes()).hexdigest()
        if "SPIDER" in atlas.source:
            assert atlas.licence == "CC BY 4.0"
            assert "doi:10.1038/s41597-024-03090-w" in atlas.attribution
            assert "Changed" in atlas.attribution
    assert sum("SPIDER" in read_atlas(name).source for name in SHIPPED) == 2


@pytest.mark.parametrize("dimension", [2, 3])
def test_stored_atlas_is_the_one_the_code_builds(dimension, built):
    stored, built = load_atlas(dimension), built[dimension]
    assert list(stored) == list(built) == list(LUMBAR_LEVELS)
    for level in LUMBAR_LEVELS:
        # another processor may round a border voxel to the other side: `python -m processing.atlas_anatomy` rebuilds
        assert stored[level].regions.shape == built[level].regions.shape
        assert (stored[level].regions != built[level].regions).mean() < 0.002
        np.testing.assert_allclose(stored[level].affine, built[level].affine, atol=0.05)
        assert stored[level].midline_mm == pytest.approx(built[level].midline_mm, abs=0.05)


def test_writing_and_loading_keeps_every_bit(tmp_path):
    healthy = build_healthy()
    for name in ("one", "two"):
        write_atlas(healthy, tmp_path / "atlas" / f"{name}.npz")
    one, two = (read_atlas(str(tmp_path / "atlas" / f"{name}.npz")) for name in ("one", "two"))
    assert one.sha256 == two.sha256
    assert (one.name, one.source, one.licence) == (healthy.name, healthy.source, healthy.licence)
    for level, disc in healthy.discs[3].items():
        assert (one.discs[3][level].regions == disc.regions).all()
        assert (one.discs[3][level].affine == disc.affine).all()
        assert one.discs[3][level].midline_mm == disc.midline_mm


@every_disc
def test_a_disc_is_centred_level_and_right_way_round(name, dimension, level):
    disc = load_atlas(dimension, name)[level]
    index = np.argwhere(disc.mask)
    points_mm = index @ disc.affine[:3, :3].T + disc.affine[:3, 3]
    np.testing.assert_allclose(points_mm.mean(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(np.linalg.norm(disc.affine[:3, :3], axis=0), SPACING_MM)
    slices, rows, columns = (disc.affine[:3, :3] / SPACING_MM).T
    np.testing.assert_allclose([slices, rows, columns], [[-1, 0, 0], [0, 0, -1], [0, 1, 0]])
    np.testing.assert_allclose(np.cross(columns, rows), slices)  # as on a native grid
    _, posterior_mm, superior_mm = points_mm.T
    slope = np.polyfit(posterior_mm, superior_mm, 1)[0]
    assert abs(np.degrees(np.arctan(slope))) < 5
    assert disc.level is level
    assert 25 < np.ptp(posterior_mm) < 46
    assert 4 < np.ptp(superior_mm) < 17
    if name == "healthy":  # lumbar discs are wedges: higher in front
        front, back = disc.mask[:, :, disc.mask.shape[2] // 4], disc.mask[:, :, -disc.mask.shape[2] // 4]
        assert front.sum() > back.sum()


@every_disc
def test_regions_share_the_disc(name, dimension, level):
    disc = load_atlas(dimension, name)[level]
    assert ((disc.regions > 0) == (disc.mask > 0)).all()
    middle = disc.regions[disc.regions.shape[0] // 2]
    nucleus, anterior, posterior = ((middle == label) for label in (1, 2, 3))
    assert 0.4 < nucleus.sum() / (middle > 0).sum() < 0.55
    assert np.argwhere(anterior)[:, 1].max() < np.argwhere(posterior)[:, 1].min()
    assert np.argwhere(anterior)[:, 1].min() < np.argwhere(nucleus)[:, 1].min()
    assert np.argwhere(posterior)[:, 1].max() > np.argwhere(nucleus)[:, 1].max()


@every_disc
def test_the_midline_halves_the_depth_and_parts_the_annulus(name, dimension, level):
    disc = load_atlas(dimension, name)[level]
    posterior_mm = np.arange(disc.mask.shape[2]) * SPACING_MM[2] + disc.affine[1, 3]
    middle = posterior_mm[disc.mask[disc.mask.shape[0] // 2].any(axis=0)]
    assert disc.midline_mm == pytest.approx((middle[0] + middle[-1]) / 2, abs=1.5 * SPACING_MM[2])
    places = np.broadcast_to(posterior_mm, disc.mask.shape)
    assert places[disc.regions == 2].max() < disc.midline_mm + 1e-6
    assert places[disc.regions == 3].min() > disc.midline_mm - 1e-6


@pytest.mark.parametrize("name", SHIPPED)
def test_there_is_background_on_every_side_and_the_disc_is_one_piece(name):
    from scipy import ndimage

    for dimension in (2, 3):
        for disc in load_atlas(dimension, name).values():
            inside = disc.mask if dimension == 3 else disc.mask[0]
            for axis in range(inside.ndim):
                assert not inside.take(0, axis).any()
                assert not inside.take(-1, axis).any()
            assert (disc.mask.shape[0] == 1) == (dimension == 2)
            assert ndimage.label(disc.mask, np.ones((3, 3, 3)))[1] == 1


def test_the_degenerated_atlas_is_lower_than_the_healthy_ones():
    def height_mm(name, level):
        mask = load_atlas(2, name)[level].mask
        return mask.sum() * SPACING_MM[1] / mask.any(axis=(0, 1)).sum()

    for level in LUMBAR_LEVELS:
        assert height_mm("degenerated", level) < height_mm("healthy", level)
        assert height_mm("degenerated", level) < height_mm("healthy-2", level)


def test_another_dimension_is_refused():
    with pytest.raises(ValueError, match="2 or 3"):
        load_atlas(4)


def broken(tmp_path, **changes):
    """The path of a copy of the healthy atlas with some arrays changed; None leaves one out."""
    with np.load(ATLAS_FOLDER / "healthy.npz") as stored:
        arrays = dict(stored) | changes
    path = tmp_path / "broken.npz"
    np.savez_compressed(path, **{key: value for key, value in arrays.items() if value is not None})
    return str(path)


REGIONS = load_atlas(3)[Level.L3L4].regions
EYE = np.eye(4)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"format": np.array("other/1")}, "is no atlas of the format"),
        ({"format": None}, "is no atlas of the format"),
        ({"licence": None}, "lacks licence"),
        ({"L3L4_3d_regions": None, "L3L4_2d_midline_mm": None}, "lacks L3L4_2d_midline_mm, L3L4_3d_regions"),
        ({"L3L4_3d_regions": REGIONS.astype(np.int64)}, "L3L4_3d: regions must be uint8"),
        ({"L3L4_3d_regions": REGIONS[3]}, "regions must be uint8"),
        ({"L3L4_3d_regions": np.minimum(REGIONS, 2)}, "must all be there"),
        ({"L3L4_3d_regions": REGIONS * np.uint8(3)}, "labels must be 0 to 3"),
        ({"L3L4_3d_regions": REGIONS[:, 4:]}, "touches the edge"),
        ({"L3L4_3d_regions": REGIONS[3:4]}, "one slice"),
        ({"L3L4_3d_regions": REGIONS[:, ::3]}, "8 rows and 16 columns at least"),
        ({"L3L4_3d_regions": np.zeros((0, 4, 4), np.uint8)}, "L3L4_3d"),
        ({"L3L4_3d_affine": np.zeros((4, 4))}, "regular"),
        ({"L3L4_3d_affine": EYE[:3]}, "regular"),
        ({"L3L4_3d_affine": EYE * np.nan}, "regular"),
        ({"L3L4_3d_affine": np.array("text")}, "floating-point"),
        ({"L3L4_3d_midline_mm": np.array([1.0, 2.0])}, "one number"),
        ({"L3L4_3d_midline_mm": np.float64("nan")}, "one number"),
        ({"name": np.array([{"a": 1}], dtype=object)}, "cannot be read"),
    ],
)
def test_a_faulty_atlas_is_refused_with_its_name_and_what_is_wrong(tmp_path, changes, said):
    path = broken(tmp_path, **changes)
    with pytest.raises(AtlasError, match=said) as caught:
        read_atlas(path)
    assert "broken.npz" in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 nonsense", b"\x93NUMPY\x01\x00v\x00{}", b"text"])
def test_a_file_that_is_no_archive_is_refused(tmp_path, content):
    path = tmp_path / "other.npz"
    path.write_bytes(content)
    with pytest.raises(AtlasError, match=r"other\.npz"):
        read_atlas(str(path))


def test_an_array_is_no_atlas(tmp_path):
    with (tmp_path / "array.npz").open("wb") as stream:
        np.save(stream, np.zeros(3))
    with pytest.raises(AtlasError, match=r"array\.npz"):
        read_atlas(str(tmp_path / "array.npz"))


def test_names_that_do_not_exist_are_refused_with_those_that_do(tmp_path):
    with pytest.raises(AtlasError, match="shipped: healthy, degenerated, healthy-2"):
        read_atlas("nobody")
    with pytest.raises(AtlasError, match="no such atlas file"):
        read_atlas(str(tmp_path / "none.npz"))
