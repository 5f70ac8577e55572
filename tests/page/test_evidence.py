"""Where the model looks, shown on the page: what kfusion.explain finds, at the same places."""

import math
from pathlib import Path

import numpy as np

from kfusion.prediction.explanation import occlusion, windows_of
from kfusion.prediction.inputs import Arrays
from kfusion.prediction.models import load_model
from kfusion.spec import ModalitySpec
from tests.page.visitor import Page

COLOURED = """(id) => {
    const canvas = document.getElementById(id);
    const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d", { willReadFrequently: true });
    copy.drawImage(canvas, 0, 0);
    const { data } = copy.getImageData(0, 0, canvas.width, canvas.height);
    return [canvas.width * canvas.height, data.filter((red, at) => at % 4 == 0 && red > data[at + 2] + 20).length];
}"""


def coloured(page, name: str) -> float:
    """The share of a canvas that is covered with the evidence's colour."""
    places, red = page.page.evaluate(COLOURED, f"seen-{name}")
    return red / places


def test_the_page_colours_what_speaks_for_the_answer_and_takes_it_away_again(page):
    page.example("picture", "3")
    _, said = page.asked("serving_default", lambda: page.example("sound", "8"))
    page.wait_for(f"What each adds to the log-odds of {said['class_name']}: picture ", "#added")
    assert coloured(page, "picture") == coloured(page, "sound") == 0
    page.page.get_by_label("Show where it looks").check()
    page.wait_for(f"where the evidence for {said['class_name']} lies", "#why-text")
    shown = {name: coloured(page, name) for name in ("picture", "sound")}
    assert max(shown.values()) > 0.02 and all(share < 0.9 for share in shown.values())
    page.page.locator("#clear-sound").click()
    page.wait_for("By the picture alone", "#verdict")
    page.wait_for("where the evidence for", "#why-text")
    assert coloured(page, "picture") > 0.02 and coloured(page, "sound") == 0
    page.page.get_by_label("Show where it looks").uncheck()
    page.page.wait_for_function("() => !document.getElementById('why-text').textContent")
    assert coloured(page, "picture") == 0


def test_an_answer_stays_where_it_cannot_be_looked_into(browser, server):
    def refuse_many(route):
        rows = route.request.post_data_json["instances"]
        route.fulfill(status=400, json={"error": "too many rows"}) if len(rows) > 1 else route.continue_()

    with Page(browser, server.url) as page:
        page.page.route("**/*:predict", refuse_many)
        page.page.get_by_label("Show where it looks").check()
        _, said = page.asked("image_only", lambda: page.example("picture", "3"))
        page.wait_for("It cannot be looked into: too many rows", "#why-text")
        assert page.label == said["class_name"] and page.page.locator("#answer-problem").is_hidden()


def test_its_evidence_is_that_of_the_command(page, server, served_model: Path):
    told = server.get("/model.json")[1]
    example = told["examples"][3]
    audio = np.array(example["audio"], np.float32)
    image = np.random.default_rng(0).random((28, 28, 1)).astype(np.float32)
    inputs = {"image": image.tolist(), "audio": audio.tolist()}
    script = """async ([model, inputs, grids, label]) =>
        (await import("./evidence.js")).occlusion(model, inputs, grids, label)"""
    found = page.page.evaluate(script, [told, inputs, {"image": [28, 28, 1], "audio": [39, 13]}, 3])
    rows = Arrays({"image": image[None], "audio": audio[None]}, np.ones((1, 2), bool), [""])
    model = load_model(served_model / "1", all_views=True)
    for name in ("image", "audio"):
        wanted = occlusion(model, rows, name, 3).ravel()
        np.testing.assert_allclose(found[name], wanted, atol=2e-3 * np.abs(wanted).max())


def test_its_windows_are_those_of_the_command(page):
    for grid in ((28, 28, 1), (7, 4, 3), (39, 13), (2, 1), (6,)):
        kind, shape = ("image", grid) if len(grid) == 3 else ("audio", (math.prod(grid),))
        windows = windows_of(ModalitySpec(kind, shape, grid))
        found = page.page.evaluate("async (grid) => (await import('./evidence.js')).windowsOf(grid)", list(grid))
        assert found == [np.flatnonzero(window).tolist() for window in windows]
