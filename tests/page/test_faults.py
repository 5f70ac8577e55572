"""What the page says when something is wrong, and that it goes on."""

import base64
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from tests.media import wav_bytes
from tests.page.visitor import RATE_HZ, THREE, Page, verdict
from tests.processes import wait_for
from tests.servers import serve

GONE = "The server does not answer. Is kfusion.serve still running?"


@pytest.mark.parametrize(
    ("kind", "name", "type", "content", "sentence"),
    [
        ("picture", "notes.txt", "text/plain", b"not a picture", "notes.txt: must be a picture, such as PNG or JPEG"),
        ("picture", "empty.png", "image/png", b"", "Found: an empty file"),
        ("sound", "notes.txt", "text/plain", b"not a sound", "notes.txt: must be a sound, such as WAV"),
        ("sound", "long.wav", "audio/wav", wav_bytes(np.zeros(61 * RATE_HZ, np.uint8)), "up to 60 seconds. Found: 61"),
    ],
)
def test_a_wrong_file_is_told_and_the_page_goes_on(page, kind, name, type, content, sentence):
    page.drop(f"#{kind}", name, type, content)
    page.wait_for(sentence, f"#{kind}-problem")
    _, said = page.asked("image_only", lambda: page.example("picture", "0"))
    page.wait_for("By the picture alone", "#verdict")
    assert page.label == said["class_name"]
    assert page.page.locator("#picture-problem").is_hidden()


def test_what_the_server_refuses_is_told_beside_the_picture(browser, server):
    with Page(browser, server.url) as page:
        blank = base64.b64decode(
            page.page.evaluate("""() => {
            const canvas = document.createElement("canvas");
            canvas.getContext("2d").fillRect(0, 0, 300, 150);
            return canvas.toDataURL("image/png").split(",")[1];
        }""")
        )
        page.drop("#picture", "blank.png", "image/png", blank)
        page.wait_for("The picture must show a sign. Found: nothing that stands out", "#picture-problem")
        assert [text for text in page.complaints if "400" not in text] == []


def test_a_refused_microphone_is_told(hearing, server):
    with Page(hearing(np.zeros(RATE_HZ)), server.url) as page:
        page.page.get_by_role("button", name="Record").click()
        page.wait_for("The microphone was refused. Allow it in the browser, or open a sound file.", "#sound-problem")
        assert page.page.get_by_role("button", name="Record").is_enabled()
        assert page.peaceful()


def test_silence_is_told_and_a_recording_may_be_cancelled(hearing, server):
    with Page(hearing(np.zeros(RATE_HZ)), server.url) as page:
        page.page.context.grant_permissions(["microphone"])
        page.page.get_by_role("button", name="Record").click()
        page.wait_for("Listening. Say it now.", "#sound-state")
        page.page.get_by_role("button", name="Cancel").click()
        page.page.get_by_role("button", name="Record").click()
        page.wait_for("Nothing was heard in 6 seconds.", "#sound-problem")
        assert page.page.get_by_role("button", name="Play").is_disabled()
        assert page.peaceful()


def test_no_microphone_is_told(page):
    page.page.context.grant_permissions(["microphone"])
    page.page.get_by_role("button", name="Record").click()
    page.wait_for("There is no microphone. Open a sound file instead.", "#sound-problem")


@pytest.mark.slow
def test_a_version_that_was_replaced_and_a_server_that_is_gone_are_told(browser, served_model, tmp_path):
    folder = tmp_path / "kfusion"
    shutil.copytree(served_model, folder)
    with serve(folder, tmp_path / "log.txt", "--poll-s", "0.2") as mortal, Page(browser, mortal.url) as page:
        shutil.copytree(folder / "1", tmp_path / "new")
        (tmp_path / "new").rename(folder / "2")
        wait_for(lambda: "AVAILABLE" not in str(mortal.get("/v1/models/kfusion/versions/1")))
        page.draw(THREE)
        page.wait_for("This version of the model is no longer served.", "#answer-problem")
        page.page.get_by_role("button", name="Try again").click()
        page.wait_for("By the picture alone", "#verdict")
        page.wait_for("Model kfusion, version 2", "#about")
        assert page.label == "3"
        assert mortal.terminate() == 0
        page.draw([(0.1, 0.1), (0.2, 0.1)])
        page.wait_for(GONE, "#answer-problem")
        assert page.page.get_by_role("button", name="Try again").is_enabled()


def test_of_a_model_that_takes_no_files_the_examples_still_work(browser, served_model, tmp_path):
    folder = tmp_path / "kfusion"
    shutil.copytree(served_model, folder)
    take_away_files(folder / "1")
    with serve(folder, tmp_path / "log.txt") as server, Page(browser, server.url) as page:
        page.wait_for("This model takes no files, so there is nothing to draw or record. The examples work.", "#notice")
        assert page.page.get_by_role("button", name="Record").is_disabled()
        page.draw(THREE)
        page.drop("#picture", "notes.txt", "text/plain", b"not a picture")
        inputs, said = page.asked("image_only", lambda: page.example("picture", "3"))
        page.wait_for("By the picture alone", "#verdict")
        kept = server.get("/model.json")[1]["examples"][3]["image"]
        np.testing.assert_allclose(inputs["image"], tf.io.decode_png(base64.b64decode(kept)).numpy() / 255)
        assert page.label == said["class_name"]
        _, said = page.asked("serving_default", lambda: page.example("sound", "3"))
        page.wait_for(verdict(said), "#verdict")
        assert page.violations() == []
        assert page.page.locator("#picture-problem").is_hidden() and page.peaceful()


def take_away_files(version: Path) -> None:
    """As an export from data whose files nobody knows: without `raw_bytes` and `read_bytes`."""
    path = version / "saved_model.pb"
    saved = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    for graph in saved.meta_graphs:
        for name in ("raw_bytes", "read_bytes"):
            del graph.signature_def[name]
    path.write_bytes(saved.SerializeToString())
    (version / "assets.extra" / "tf_serving_warmup_requests").unlink()


def test_what_failed_is_asked_again_without_being_drawn_again(browser, server):
    with Page(browser, server.url) as page:
        page.page.context.set_offline(True)
        page.draw(THREE)
        page.wait_for(GONE, "#answer-problem")
        page.page.context.set_offline(False)
        page.page.get_by_role("button", name="Try again").click()
        page.wait_for("By the picture alone", "#verdict")
        assert page.label == "3"
        assert page.page.locator("#answer-problem").is_hidden()
