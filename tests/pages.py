"""Pages as tests read them: as HTML, and in a headless Chromium, driven by playwright, with axe's rules.

The fixture `browser` is every test's, through conftest.py. Where Chromium or playwright is missing, the tests that use
it are skipped with the command that installs it.
"""

import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
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


class Page(HTMLParser):
    """The page's elements, its text, and its tables as lists of rows."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.rows and self.rows[-1] and self.lasttag in ("td", "th"):
            self.rows[-1][-1] += data.strip()

    def row(self, name: str, columns: int) -> list[str]:
        return next(row for row in self.rows if len(row) == columns and row[0] == name)

    def having(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for each, attributes in self.elements if each == tag]
