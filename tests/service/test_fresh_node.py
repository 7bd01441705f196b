"""What an administrator meets on the first day: a taken port, a folder that cannot be used, a broken database."""

import json
import socket
from pathlib import Path

import pytest
from node_process import Node
from peers import wait_until

from service.cli import main


def test_a_taken_port_of_the_web_is_told_and_nobody_else_may_read_the_folder(tmp_path: Path) -> None:
    """The node ran on without its API and said that all is well; its record could be read by every account."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        node = Node(tmp_path, web={"port": other.getsockname()[1]})
        with node:
            wait_until(lambda: "the HTTP server does not run" in node.log, "word of the port", 20)
    folder = node.settings.storage_dir
    made = [folder, *folder.iterdir()]
    assert {"discnode.sqlite", "inbox", "audit"} <= {path.name for path in made}
    assert [path.name for path in made if path.stat().st_mode & 0o007] == []


def config_in(tmp_path: Path, storage_dir: Path) -> list[str]:
    (tmp_path / "node.yaml").write_text(json.dumps({"storage_dir": str(storage_dir)}))
    return ["--config", str(tmp_path / "node.yaml")]


@pytest.mark.parametrize("command", [["jobs", "list"], ["reconcile"], ["retention", "--dry-run"]])
def test_a_broken_database_is_told_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    (tmp_path / "discnode.sqlite").write_text("not a database " * 100)
    if command == ["reconcile"]:
        destination = {"name": "a", "ae_title": "A", "host": "127.0.0.1", "port": 1}
        (tmp_path / "node.yaml").write_text(json.dumps({"storage_dir": str(tmp_path), "destinations": [destination]}))
        config = ["--config", str(tmp_path / "node.yaml")]
    else:
        config = config_in(tmp_path, tmp_path)
    assert main([*command, *config]) == 1
    assert capsys.readouterr().err == f"the database cannot be used now (DatabaseError): {tmp_path}\n"


def test_a_storage_folder_that_cannot_be_is_told_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main(["exams", "list", *config_in(tmp_path, tmp_path / "file" / "node")]) == 2
    assert capsys.readouterr().err == f"{tmp_path}/file/node: cannot be used: Not a directory\n"
