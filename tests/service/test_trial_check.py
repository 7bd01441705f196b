"""What ``discnode trial check`` says of a plan before a trial begins."""

from pathlib import Path

import pytest
import yaml

from service.cli import main


def plan_with(folder: Path, **primary: str) -> tuple[str, ...]:
    plan = {
        "protocol_id": "EXAMPLE-01",
        "sites": [{"id": "01", "time_zone": "Europe/Paris"}],
        "visits": [{"name": "BL", "day": 0, "baseline": True}, {"name": "M12", "day": 365}],
        "protocol": "ge-mapss",
        "treated_levels": "treated.csv",
        "primary": [{"level": "treated", "visits": ["M12"], **primary}],
        "change": {"precision": "borrowed-disc-t2"},
    }
    (folder / "plan.yaml").write_text(yaml.safe_dump(plan))
    (folder / "node.yaml").write_text(yaml.safe_dump({"storage_dir": str(folder / "storage")}))
    return "trial", "check", str(folder / "plan.yaml"), "--config", str(folder / "node.yaml")


def test_a_primary_cell_without_a_precision_is_told_before_the_trial(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*plan_with(tmp_path, quantity="T1rho", region="nucleus")]) != 0
    assert "could never be judged: the precision borrowed-disc-t2" in capsys.readouterr().err
    assert main([*plan_with(tmp_path, quantity="T2", region="nucleus")]) == 0
    assert "no limits after a change of scanner" in capsys.readouterr().out
