"""Templates of QC phantoms: what cannot tell its vials apart is refused before any scan."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from config.phantom_templates import PhantomTemplate, load_templates
from config.sections import SettingsError


def template(*places: tuple[float, float]) -> PhantomTemplate:
    vials = [
        {"name": f"V{at}", "down_mm": down, "across_mm": across, "diameter_mm": 10}
        for at, (down, across) in enumerate(places)
    ]
    return PhantomTemplate.model_validate({"name": "mine", "vials": vials})


@pytest.mark.parametrize(
    ("places", "word"),
    [
        (((0, 0), (0, 30), (30, 0), (30, 30)), "turned"),
        (((0, 0), (0, 60), (30, 20), (-20, 45), (10, 100), (-10, -40)), None),
        (((0, 0), (40, 0), (20, 15)), "mirrored"),
        (((0, 0), (20, 0), (60, 0), (30, 30)), None),
    ],
    ids=["a square", "uneven", "an even triangle", "a line and one beside it"],
)
def test_a_phantom_must_not_look_the_same_turned_or_mirrored(
    places: tuple[tuple[float, float], ...], word: str | None
) -> None:
    if word is None:
        assert len(template(*places).vials) == len(places)
    else:
        with pytest.raises(ValidationError, match=f"looks the same {word}"):
            template(*places)


def test_vials_neither_overlap_nor_share_a_name() -> None:
    with pytest.raises(ValidationError, match="overlap"):
        template((0, 0), (5, 0), (50, 10))
    vial = {"name": "A", "down_mm": 0, "across_mm": 0, "diameter_mm": 10}
    vials = [vial, vial | {"down_mm": 40}, vial | {"across_mm": 70, "name": "B"}]
    with pytest.raises(ValidationError, match="same name"):
        PhantomTemplate.model_validate({"name": "mine", "vials": vials})


def test_a_sites_template_stands_beside_the_built_in_one(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(template((0, 0), (20, 0), (60, 0), (30, 30)).model_dump_json())
    assert [one.name for one in load_templates(tmp_path)] == ["reference-6", "mine"]
    (tmp_path / "mine.yaml").write_text("name: mine\nvials: []\nshape: round\n")
    load_templates.cache_clear()
    with pytest.raises(SettingsError, match=r"mine\.yaml: shape: unknown key"):
        load_templates(tmp_path)
