"""Debian's chromium, headless, driven by Playwright; without it these tests are skipped and say so."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser.looking import Looked, Scheme

OPTIONS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
Look = Callable[..., Looked]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("no chromium is installed: `apt-get install chromium`")
    playwright = pytest.importorskip("playwright.sync_api", reason="the extra `dev` is not installed")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=path, args=OPTIONS)
        yield started
        started.close()


@pytest.fixture
def look(browser: Any) -> Iterator[Look]:
    """Return a function that opens a file in a window of its own."""
    contexts = []

    def opened(file: Path, width: int = 1280, scheme: Scheme = "light") -> Looked:
        contexts.append(browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme))
        looked = Looked(contexts[-1].new_page())
        looked.listen()
        looked.page.goto(file.as_uri())
        return looked

    yield opened
    for context in contexts:
        context.close()
