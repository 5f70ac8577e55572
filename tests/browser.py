"""A headless Chromium for tests of pages: the system's own, driven by playwright, its rules of accessibility by axe.

The fixture `browser` is every test's, through conftest.py. Where Chromium or playwright is missing, the tests that use
it are skipped with the command that installs it.
"""

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
RULES = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice")


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A playwright browser; `browser.new_page(...)` opens pages."""
    found = next((path for name in CHROMIUM if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install '.[test]'")
    with playwright.sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=found, args=list(FLAGS))
        yield running
        running.close()


class Visit:
    """A page, opened and watched: what it asked for, and what it complained about.

    Args:
        browser: the fixture.
        address: of the page.
        width: of the window, in CSS pixels.
        scheme: "light" or "dark".
    """

    def __init__(self, browser: Any, address: str, width: int = 1280, scheme: str = "light") -> None:
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(address, wait_until="load")

    def __enter__(self) -> "Visit":
        return self

    def __exit__(self, *_: object) -> None:
        self.page.close()

    def overflow(self) -> int:
        """CSS pixels by which the page is wider than its window."""
        return self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")

    def violations(self) -> list[str]:
        """What axe finds, a line for each: rule, then the elements."""
        axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="no axe: pip install '.[test]'").Axe()
        found = axe.run(self.page, options={"runOnly": {"type": "tag", "values": list(RULES)}}).response["violations"]
        return [f"{each['id']}: {', '.join(str(node['target']) for node in each['nodes'][:5])}" for each in found]
