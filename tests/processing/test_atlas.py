"""The stored atlas: the one the code builds, levelled, centred, with regions that make sense."""

import numpy as np
import pytest

from processing.atlas import SPACING_MM, build_atlas, load_atlas, write_atlas
from processing.results import LUMBAR_LEVELS


@pytest.fixture(scope="module")
def built():
    return {dimension: build_atlas(dimension) for dimension in (2, 3)}


@pytest.mark.parametrize("dimension", [2, 3])
def test_stored_atlas_is_the_one_the_code_builds(dimension, built):
    stored, built = load_atlas(dimension), built[dimension]
    assert list(stored) == list(built) == list(LUMBAR_LEVELS)
    for level in LUMBAR_LEVELS:
        # another processor may round a border voxel to the other side: rebuild with `python -m processing.atlas`
        assert stored[level].regions.shape == built[level].regions.shape
        assert (stored[level].regions != built[level].regions).mean() < 0.002
        np.testing.assert_allclose(stored[level].affine, built[level].affine, atol=0.05)


def test_writing_and_loading_keeps_every_bit(tmp_path, built):
    write_atlas(tmp_path / "atlas" / "one.npz")
    with np.load(tmp_path / "atlas" / "one.npz") as again:
        for level, disc in built[3].items():
            assert (again[f"{level.name}_3d_regions"] == disc.regions).all()
            assert (again[f"{level.name}_3d_affine"] == disc.affine).all()


@pytest.mark.parametrize("dimension", [2, 3])
@pytest.mark.parametrize("level", LUMBAR_LEVELS)
def test_a_disc_is_centred_level_and_right_way_round(dimension, level):
    disc = load_atlas(dimension)[level]
    index = np.argwhere(disc.mask)
    points_mm = index @ disc.affine[:3, :3].T + disc.affine[:3, 3]
    np.testing.assert_allclose(points_mm.mean(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(np.linalg.norm(disc.affine[:3, :3], axis=0), SPACING_MM)
    slices, rows, columns = (disc.affine[:3, :3] / SPACING_MM).T
    np.testing.assert_allclose([slices, rows, columns], [[-1, 0, 0], [0, 0, -1], [0, 1, 0]])
    np.testing.assert_allclose(np.cross(columns, rows), slices)  # as on a native grid
    _, posterior_mm, superior_mm = points_mm.T
    slope = np.polyfit(posterior_mm, superior_mm, 1)[0]
    assert abs(np.degrees(np.arctan(slope))) < 2
    assert disc.level is level
    assert 25 < np.ptp(posterior_mm) < 40
    assert 5 < np.ptp(superior_mm) < 14
    # lumbar discs are wedges: higher in front
    front, back = disc.mask[:, :, disc.mask.shape[2] // 4], disc.mask[:, :, -disc.mask.shape[2] // 4]
    assert front.sum() > back.sum()


@pytest.mark.parametrize("dimension", [2, 3])
@pytest.mark.parametrize("level", LUMBAR_LEVELS)
def test_regions_share_the_disc(dimension, level):
    disc = load_atlas(dimension)[level]
    assert ((disc.regions > 0) == (disc.mask > 0)).all()
    middle = disc.regions[disc.regions.shape[0] // 2]
    nucleus, anterior, posterior = ((middle == label) for label in (1, 2, 3))
    assert 0.4 < nucleus.sum() / (middle > 0).sum() < 0.55
    assert np.argwhere(anterior)[:, 1].max() < np.argwhere(posterior)[:, 1].min()
    assert np.argwhere(anterior)[:, 1].min() < np.argwhere(nucleus)[:, 1].min()
    assert np.argwhere(posterior)[:, 1].max() > np.argwhere(nucleus)[:, 1].max()


@pytest.mark.parametrize("dimension", [2, 3])
def test_there_is_background_on_every_side(dimension):
    for disc in load_atlas(dimension).values():
        inside = disc.mask if dimension == 3 else disc.mask[0]
        for axis in range(inside.ndim):
            assert not inside.take(0, axis).any()
            assert not inside.take(-1, axis).any()
    assert all((disc.mask.shape[0] == 1) == (dimension == 2) for disc in load_atlas(dimension).values())


def test_another_dimension_is_refused():
    with pytest.raises(ValueError, match="2 or 3"):
        load_atlas(4)
