"""The worker is killed in the middle of the analysis; the long version is ``python -m tests.soak.kill_worker``."""

from pathlib import Path

import pytest
from peers import need

from tests.soak import kill_worker
from tests.soak.campaign import Options


@pytest.mark.peers
def test_a_killed_worker_s_job_resumes_and_one_result_set_arrives(tmp_path: Path) -> None:
    need("storescp", "storescu")
    checks = kill_worker.run(Options(tmp_path, points=5, seed=3))
    assert [(one.what, one.found, one.limit) for one in checks if one.ok is False] == []
    assert sum(one.ok is True for one in checks) >= 7
