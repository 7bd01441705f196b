import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from models.inference import OnnxModel
from models.registry import load_model
from service.train_command import main


@pytest.mark.slow
def test_training_on_phantoms_alone_makes_weights_the_node_can_open(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--out", str(tmp_path), "--steps", "2", "--phantoms", "3", "--processes", "1"]
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert "phantoms alone" in said
    assert "step 2/2" in said
    record = load_model("cfcm-lumbar", tmp_path)
    assert record.training_data == "simulated lumbar slices"
    logits = OnnxModel(record, device="cpu").predict(np.zeros((1, 64, 64), np.float32))
    assert logits.shape == (1, 5, 64, 64)
    assert json.loads((tmp_path / "metrics.json").read_text())["phantoms"] == 3
