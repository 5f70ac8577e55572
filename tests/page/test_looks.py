"""How the page looks: on a phone, in light and dark, to somebody who cannot see it; and what it consists of."""

import re

import pytest

from kfusion.serving.app import PAGE
from tests.page.visitor import THREE, Page


def test_a_phone_shows_all_without_overflow_and_a_finger_draws(browser, server):
    with Page(browser, server.url, width=360) as page:
        assert page.overflow() == 0
        page.page.locator("#pad").scroll_into_view_if_needed()
        box = page.page.locator("#pad").bounding_box()
        touch = page.page.context.new_cdp_session(page.page)
        for step, (x, y) in enumerate(THREE):
            point = {"x": box["x"] + x * box["width"], "y": box["y"] + y * box["height"]}
            kind = "touchMove" if step else "touchStart"
            touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [point]})
        touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        page.wait_for("By the picture alone", "#verdict")
        assert page.label == "3"
        place = page.page.locator(".headline").bounding_box()
        assert place["y"] + place["height"] <= 800  # The answer is in sight while one draws.
        page.example("sound", "8")
        page.wait_for("They disagree", "#verdict")
        assert page.overflow() == 0
        assert page.peaceful()


@pytest.mark.parametrize(
    ("width", "scheme"),
    [
        (360, "light"),
        (1280, "dark"),
        pytest.param(360, "dark", marks=pytest.mark.slow),
        pytest.param(1280, "light", marks=pytest.mark.slow),
    ],
)
def test_axe_finds_nothing_in_any_state(browser, server, width, scheme):
    with Page(browser, server.url, width, scheme) as page:
        assert page.violations() == []
        page.example("picture", "3")
        page.example("sound", "8")
        page.wait_for("They disagree", "#verdict")
        page.drop("#sound", "notes.txt", "text/plain", b"x")
        page.wait_for("must be a sound", "#sound-problem")
        assert page.violations() == []


def test_the_page_is_small_and_names_no_other_site(server):
    files = [path for path in PAGE.iterdir() if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 70_000
    assert max(len(path.read_text().splitlines()) for path in files) <= 200
    outside = re.compile(r"https?://(?!www\.w3\.org/2000/svg)")
    assert [path.name for path in files if outside.search(path.read_text())] == []
    headers = server.ask("GET", "/")[2]
    assert "script-src 'self';" in headers["content-security-policy"] and "unsafe" not in str(headers)
    assert not re.search(r"<script>|\son\w+=|\sstyle=", (PAGE / "index.html").read_text())
