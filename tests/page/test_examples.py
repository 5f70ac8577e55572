"""The examples that travel with a model, and what a click on them does."""

import json

import numpy as np

from kfusion.exporting.saved_model import EXAMPLES_FILE, write_examples
from kfusion.prepared_data import load_own
from kfusion.run_dir import open_run
from tests.page.visitor import THREE, verdict


def test_examples_are_one_click_away_and_go_with_a_drawing(page):
    page.example("picture", "3")
    page.wait_for("By the picture alone", "#verdict")
    inputs, said = page.asked("serving_default", lambda: page.example("sound", "3"))
    page.wait_for(verdict(said), "#verdict")
    assert page.label == said["class_name"] and said["present"] == [True, True]
    assert np.shape(inputs["image"]) == (28, 28, 1) and len(inputs["audio"]) == 507
    assert page.page.get_by_role("button", name="Play").is_disabled()
    drawn, said = page.asked("serving_default", lambda: page.draw(THREE))
    page.wait_for(verdict(said), "#verdict")
    assert drawn["audio"] == inputs["audio"] and drawn["image"] != inputs["image"]
    _, said = page.asked("audio_only", page.page.locator("#clear-picture").click)
    page.wait_for("By the sound alone", "#verdict")
    assert page.label == said["class_name"]


def test_the_examples_are_pairs_of_the_test_part_one_of_each_class(served_model, trained_run, server):
    status, told = server.get("/model.json")
    assert status == 200 and told["class_names"] == [str(digit) for digit in range(10)]
    assert [each["class_name"] for each in told["examples"]] == told["class_names"]
    assert "CC BY-SA" in told["licence"]
    test = load_own(open_run(trained_run))[1].test
    audio = test.read(np.arange(len(test)))["audio"]
    for each in told["examples"]:
        rows = np.flatnonzero(np.abs(audio - np.array(each["audio"])).max(axis=1) < 1e-3)
        assert each["class_name"] in test.label[rows].astype(str)
    assert json.loads((served_model / "1" / EXAMPLES_FILE).read_text())["examples"] == told["examples"]


def test_data_of_unknown_licence_are_not_passed_on(trained_run, tmp_path):
    pairs = load_own(open_run(trained_run))[1].test
    write_examples(tmp_path, None, pairs)
    assert not (tmp_path / EXAMPLES_FILE).exists()
    (tmp_path / EXAMPLES_FILE).parent.mkdir()
    write_examples(tmp_path, "public domain", pairs)
    assert (tmp_path / EXAMPLES_FILE).exists()
