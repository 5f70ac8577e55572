"""The page as a person meets it: real Chromium, a real server, a trained model; drawn, spoken, dropped, by keyboard."""

import base64
import re

import numpy as np
import pytest
import tensorflow as tf
from scipy.signal import resample_poly

from tests.media import wav_bytes
from tests.page.visitor import RATE_HZ, THREE, Page, sent_samples, verdict


def test_a_drawn_3_is_a_3_and_the_page_shows_what_the_model_saw(page):
    row, said = page.asked("raw_bytes", lambda: page.draw(THREE))
    page.wait_for("By the picture alone", "#verdict")
    assert page.label == said["class_name"] == "3"
    assert row["audio_bytes"]["b64"] == "" and said["present"] == [True, False]
    picture, sound = page.bars("3")[1:]
    assert abs(float(picture) - 100 * said["image_probabilities"][3]) <= 0.5 and sound == "–"
    page.wait_for("28 × 28 pixels", "#seen-picture-text")
    pixels = page.page.evaluate("""() => [...document.getElementById("seen-picture").getContext("2d")
        .getImageData(0, 0, 28, 28).data].filter((_, at) => at % 4 == 0)""")
    pixels = np.array(pixels).reshape(28, 28)
    rows, columns = np.nonzero(pixels)
    assert max(np.ptp(rows), np.ptp(columns)) + 1 in range(18, 23)  # MNIST's box of 20
    assert abs((pixels * np.arange(28)[:, None]).sum() / pixels.sum() - 14) < 1
    assert re.fullmatch(r"Answered in \d+ ms, there and back\.", page.page.inner_text("#latency"))


def test_a_dropped_recording_of_seven_is_a_7_and_reaches_the_server_unchanged(page, seven):
    row, _ = page.asked("raw_bytes", lambda: page.drop("#sound", "seven.wav", "audio/wav", wav_bytes(seven)))
    page.wait_for("By the sound alone", "#verdict")
    assert page.label == "7" and page.bars("7")[1] == "–"
    sent = sent_samples(row)
    assert len(sent) == RATE_HZ
    np.testing.assert_array_equal(sent[: len(seven)], seven)
    assert not sent[len(seven) :].any()
    page.wait_for("39 frames", "#seen-sound-text")
    page.page.get_by_role("button", name="Play").click()
    page.page.get_by_role("button", name="Clear").nth(1).click()
    page.wait_for("Draw or say something", "#verdict")


def test_a_stereo_sound_at_another_rate_is_brought_to_8_khz_mono(page, seven):
    fine = resample_poly(seven.astype(float), 441, 80)
    stereo = np.stack([fine, fine * 0.5], axis=1).clip(-32768, 32767).astype(np.int16)
    row, _ = page.asked("raw_bytes", lambda: page.drop("body", "s.wav", "audio/wav", wav_bytes(stereo, 44_100)))
    sent = sent_samples(row)[: len(seven)].astype(float)
    page.wait_for("By the sound alone", "#verdict")
    assert page.label == "7"
    # The same wave at three quarters of its height; high frequencies suffer a little.
    assert np.corrcoef(sent, seven)[0, 1] > 0.98
    assert sent.std() == pytest.approx(0.75 * seven.std(), rel=0.1)


def test_both_together_disagree_and_the_page_says_so(page, seven):
    page.draw(THREE)
    page.wait_for("By the picture alone", "#verdict")
    page.drop("#sound", "seven.wav", "audio/wav", wav_bytes(seven))
    page.wait_for("They disagree: the picture says 3, the sound says 7. Together: ", "#verdict")
    assert page.page.get_attribute("#answer", "data-state") == "conflict"
    assert page.label in ("3", "7")
    assert page.page.locator("#bars .best").count() == 3


def test_undo_takes_back_a_stroke_and_clear_all(page):
    undo, clear = page.page.locator("#undo"), page.page.locator("#clear-picture")
    assert undo.is_disabled() and clear.is_disabled()
    first, _ = page.asked("raw_bytes", lambda: page.draw(THREE))
    second, _ = page.asked("raw_bytes", lambda: page.draw([(0.1, 0.1), (0.9, 0.9)]))
    assert first["image_bytes"] != second["image_bytes"]
    third, _ = page.asked("raw_bytes", undo.click)
    assert third["image_bytes"] == first["image_bytes"]
    clear.click()
    page.wait_for("Draw or say something", "#verdict")
    assert undo.is_disabled() and clear.is_disabled()
    assert page.page.get_attribute("#pad", "aria-label") == "Drawing area, empty"


def test_a_digit_is_drawn_by_keys_alone(page):
    keys = page.page.keyboard
    keys.press("Tab")
    assert page.page.evaluate("document.activeElement.id") == "pad"
    for key in [*["ArrowUp"] * 6, "Space", *["ArrowDown"] * 12]:
        keys.press(key)
    page.wait_for("Pen down", "#pad-state")
    row, _ = page.asked("raw_bytes", lambda: keys.press("Space"))
    page.wait_for("By the picture alone", "#verdict")
    assert page.label == "1"
    ink = tf.io.decode_png(base64.b64decode(row["image_bytes"]["b64"])).numpy()[..., 0] < 128
    rows, columns = np.nonzero(ink)
    assert np.ptp(rows) == pytest.approx(12 * 14 + 22, abs=3) and np.ptp(columns) == pytest.approx(22, abs=3)
    keys.press("Backspace")
    page.wait_for("Draw or say something", "#verdict")


def test_the_keyboard_alone_reaches_everything_and_gets_an_answer(page):
    reached = []
    for _ in range(30):
        page.page.keyboard.press("Tab")
        focused = page.page.evaluate("() => document.activeElement.id || document.activeElement.ariaLabel || ''")
        outline = page.page.evaluate(
            "() => getComputedStyle(document.activeElement.closest('.button') ?? document.activeElement).outlineStyle"
        )
        if focused:
            assert outline == "solid", focused
            reached.append(focused)
        if focused == "Example sound of 5":
            break
        if focused == "Example picture of 5":
            page.page.keyboard.press("Enter")
    assert {"pad", "picture-file", "record", "sound-file", "Example picture of 5", "Example sound of 5"} <= set(reached)
    _, said = page.asked("serving_default", lambda: page.page.keyboard.press("Space"))
    page.wait_for(verdict(said), "#verdict")
    assert page.label == said["class_name"]
    assert page.page.get_by_role("button", name="Example sound of 5").get_attribute("aria-pressed") == "true"


def test_a_second_of_speech_is_recorded_and_understood(hearing, seven, server):
    pause = np.zeros(6000)
    with Page(hearing(np.concatenate([pause, seven, pause])), server.url) as page:
        page.page.context.grant_permissions(["microphone"])
        row, _ = page.asked("raw_bytes", lambda: page.page.get_by_role("button", name="Record").click())
        page.wait_for("By the sound alone", "#verdict")
        assert page.label == "7"
        sent = sent_samples(row)
        assert len(sent) == RATE_HZ and np.abs(sent).max() > 3000
        assert page.page.get_attribute("#wave", "aria-label") == "Waveform, a recording"
        assert page.peaceful()


def test_a_large_photograph_is_shrunk_before_it_is_sent(page):
    """Grey ink on paper in uneven light, of a camera's size."""
    y, x = np.mgrid[0:300, 0:400] / 300
    middle = np.array(THREE) + np.array([0.17, 0])
    places = np.linspace(middle[:-1], middle[1:], 4).reshape(-1, 2)
    distance = np.min([np.hypot(x - place[0], y - place[1]) for place in places], axis=0)
    paper = np.kron(190 + 40 * x - np.where(distance < 0.035, 120, 0), np.ones((5, 5)))
    jpeg = tf.io.encode_jpeg(np.repeat(paper[..., None], 3, axis=2).astype(np.uint8)).numpy()
    row, _ = page.asked("raw_bytes", lambda: page.drop("#picture", "photo.jpg", "image/jpeg", jpeg))
    page.wait_for("By the picture alone", "#verdict")
    assert page.label == "3"
    sent = base64.b64decode(row["image_bytes"]["b64"])
    assert tf.io.decode_png(sent).shape == (768, 1024, 4)
