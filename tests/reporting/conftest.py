"""One browser for all tests here; they are left out, with the reason, where there is none."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # `browser` is importable from every test here

from browser import Browser, find


@pytest.fixture(scope="session")
def one_browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    program = find()
    if program is None:
        pytest.skip("needs Chromium (Debian: apt-get install chromium)")
    browser = Browser(program, tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture
def browser(one_browser: Browser) -> Iterator[Browser]:
    """Complains if the page does, or asks for any file but itself."""
    one_browser.complaints.clear()
    one_browser.requests.clear()
    yield one_browser
    assert one_browser.complaints == []
    assert [url for url in one_browser.requests if not url.endswith(".html")] == []
