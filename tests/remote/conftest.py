"""`ssh_server` and `remote_models` are importable from these tests; one server serves all of them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from remote_models import SMALL, saved
from ssh_server import ABSENT, REASON, Server


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if ABSENT:
        pytest.skip(REASON)
    server = Server(tmp_path_factory.mktemp("sshd"))
    yield server
    server.stop()


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """The folder on the other side in which the runner makes its own."""
    folder = tmp_path / "over there"
    folder.mkdir()
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return saved(SMALL, tmp_path / "small.onnx")
