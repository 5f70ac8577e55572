"""Models of three modalities and of one: server, client and page know them by their signatures alone."""

import base64
import io
import json
import wave

import numpy as np
import pytest
from PIL import Image

from kfusion.client import Client
from kfusion.transport import ModelInputs, read_inputs
from kfusion.validation import UserError
from tests.media import wav_bytes
from tests.page.visitor import THREE, Page
from tests.processes import fails, in_process
from tests.servers import serve
from tests.tiny_models import SHAPES, export_modalities, write_examples

HEARS = {"grid": [13, 2], "unit": "log-mel bands", "rate_hz": 16000, "seconds": 2.5}
VECTOR = [0.5, 2.0, 1.0]
VOTES = np.exp(VECTOR) / np.exp(VECTOR).sum()


def example() -> dict:
    """A black image, a silent sound, and a vector."""
    file = io.BytesIO()
    Image.new("L", (5, 6)).save(file, "PNG")
    image = base64.b64encode(file.getvalue()).decode()
    return {"class_name": "tür", "image": image, "audio": [0.0] * 26, "vector": VECTOR}


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    folder = tmp_path_factory.mktemp("three")
    version = export_modalities(folder / "made" / "1", ("image", "audio", "vector"), ("image", "audio"))
    write_examples(version, [example()])
    (version / "assets.extra" / "data.json").write_text(json.dumps({"hears": {"audio": HEARS}}))
    with serve(folder / "made", folder / "log.txt") as server:
        yield server


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    folder = tmp_path_factory.mktemp("one")
    export_modalities(folder / "made" / "1", ("vector",))
    with serve(folder / "made", folder / "log.txt") as server:
        yield server


@pytest.fixture(scope="module")
def wary(tmp_path_factory):
    """Of bright pictures. Its endpoint takes the sound first, by the alphabet; outputs tell of the picture first."""
    folder = tmp_path_factory.mktemp("wary")
    version = export_modalities(folder / "made" / "1", ("image", "audio"), ("image", "audio"), ("image",))
    write_examples(version, [{name: value for name, value in example().items() if name != "vector"}])
    (version / "assets.extra" / "data.json").write_text(json.dumps({"modalities": {"image": {}, "audio": {}}}))
    with serve(folder / "made", folder / "log.txt") as server:
        yield server


def test_the_page_is_told_each_modality_and_its_shape(three, one):
    info = three.get("/model.json")[1]
    shapes = {modality["name"]: modality["shape"] for modality in info["modalities"]}
    assert shapes == {name: list(shape) for name, shape in SHAPES.items()}
    assert [modality["takes_files"] for modality in info["modalities"]] == [True, True, False]
    assert {modality["name"]: modality["hears"] for modality in info["modalities"] if "hears" in modality} == {
        "audio": HEARS
    }
    assert info["image_shape"] == [6, 5, 1] and info["examples"] == [example()]
    info = one.get("/model.json")[1]
    assert info["modalities"] == [{"name": "vector", "shape": [3], "takes_files": False}]
    assert info["image_shape"] == [] and info["class_names"] == ["hut", "tür", "zaun"]


def test_the_client_sends_any_modality_and_reads_each_vote(three, one):
    for server in (three, one):
        with Client(server.url, "made") as client:
            found = client.predict(vector=VECTOR)
        np.testing.assert_allclose(found.probabilities, [VOTES], atol=1e-6)
        assert found.class_name == ["tür"] and found.votes["vector"].tolist() == [1]
    with Client(three.url, "made") as client:
        found = client.predict(np.zeros((6, 5)), np.eye(26)[0], vector=VECTOR)
        assert {name: int(vote[0]) for name, vote in found.votes.items()} == {"image": 0, "audio": 0, "vector": 1}
        assert list(found.votes) == ["image", "audio", "vector"]
        found = client.predict([bytes(30), None], vector=[[np.nan] * 3, VECTOR])
        assert found.outputs["present"].tolist() == [[True, False, False], [False, False, True]]
        np.testing.assert_allclose(found.probabilities[1], VOTES, atol=1e-6)
        assert client.predict(audio=bytes(26)).votes["vector"].tolist() == [-1]
        with pytest.raises(UserError, match=r"'vector' must be numbers\. Received: a file"):
            client.predict(vector=b"x")
        with pytest.raises(UserError, match=r"or of all of image, audio, vector\. Received: image and v"):
            client.predict(np.zeros((6, 5)), vector=VECTOR)
        with pytest.raises(UserError, match=r"must be one of image, audio, vector\. Received: smell"):
            client.predict(smell=VECTOR)
    with Client("grpc://localhost:1") as client, pytest.raises(UserError, match="'modalities' must name all"):
        client.predict(vector=VECTOR)


def test_files_of_some_modalities_leave_the_others_empty():
    model = ModelInputs(("image", "audio", "vector"), {"vector": (3,)})
    signature, inputs = read_inputs({"image": [b"png", b""]}, model)
    assert signature == "raw_bytes" and inputs["audio_bytes"].tolist() == [b"", b""]
    assert list(inputs) == ["image_bytes", "audio_bytes", "vector"]
    assert inputs["vector"].shape == (2, 3) and np.isnan(inputs["vector"]).all()
    with pytest.raises(
        UserError, match=r"'image' and 'audio' must both be files or both be arrays\. Received: one of e"
    ):
        read_inputs({"image": b"png", "audio": np.zeros(26), "vector": VECTOR}, model)
    with pytest.raises(UserError, match=r"'image' or 'audio' or 'vector' must be given\. Received: none"):
        read_inputs({}, model)
    four = ModelInputs(("image", "audio", "smell"))
    with pytest.raises(UserError, match="'image', 'audio' and 'smell' must all be files or all be arrays"):
        read_inputs({"image": b"png", "audio": b"wav", "smell": VECTOR}, four)


def test_the_command_line_takes_numbers_and_files_of_numbers(three, tmp_path):
    np.save(tmp_path / "row.npy", VECTOR)
    (tmp_path / "row.txt").write_text("0.5, 2\n1")
    flags = ("kfusion.client", "--url", three.url, "--model", "made", "--input")
    for value in ("vector=0.5,2,1", "vector=row.npy", "vector=row.txt"):
        assert in_process(*flags, value, cwd=tmp_path).stdout == f"tür  ({VOTES[1]:.1%} sure)\n"
    sounds = ",".join(["0"] * 26)
    np.save(tmp_path / "image.npy", np.zeros((6, 5)))
    done = in_process(
        *flags, "vector=0.5,2,1", "--input", f"audio={sounds}", "--input", "image=image.npy", cwd=tmp_path
    )
    assert done.stdout.splitlines()[1] == (
        "image alone: class 0 (33.3%), audio alone: class 0 (33.3%), vector alone: tür (62.9%); they disagree"
    )
    fails(in_process(*flags, "vector", cwd=tmp_path), "'input' must be NAME=NUMBERS or NAME=FILE. Received: 'vector'")
    fails(in_process(*flags, "vector=gone.txt", cwd=tmp_path), "gone.txt: the vector file must be readable. Found: No")
    (tmp_path / "row.txt").write_text("one")
    fails(in_process(*flags, "vector=row.txt", cwd=tmp_path), "row.txt: must hold numbers, separated by commas or spac")


def test_the_page_has_a_card_for_each_modality(browser, three):
    with Page(browser, three.url, named="made") as page:
        assert page.page.locator("#bars thead th").all_inner_texts() == ["Together", "Picture", "Sound", "vector"]
        page.wait_for("This model takes: picture, sound, vector. One of them is enough.", "#intro")
        text = page.page.get_by_label("3 numbers, separated by commas")
        row, outputs = page.asked("vector_only", lambda: text.fill("0.5, 2; 1"))
        assert row == {"vector": VECTOR} and outputs["class_name"] == "tür"
        page.wait_for("By the vector alone, 63 % sure.", "#verdict")
        assert page.bars("tür")[1:] == ["–", "–", "63"]
        page.example("picture", "tür")
        page.wait_for("answers to one such input or to all of them. Missing: audio.", "#answer-problem")
        row, _ = page.asked("serving_default", lambda: page.example("sound", "tür"))
        page.wait_for("They disagree: the picture says hut, the sound says hut, the vector says tür.", "#verdict")
        assert row["vector"] == VECTOR and np.shape(row["image"]) == (6, 5, 1) and len(row["audio"]) == 26
        assert page.violations() == []
        text.fill("1, 2")
        text.blur()
        page.wait_for("The vector must have 3 numbers. Found: 2", "#input-vector-problem")
        text.fill("2000 0 0")
        page.wait_for("The vector must be within -1000 and 1000", "#input-vector-problem")
        page.example("vector", "tür")
        page.wait_for("They disagree", "#verdict")
        assert text.input_value() == "0.5, 2, 1" and page.overflow() == 0
        assert [line for line in page.complaints if "400" not in line] == []


def test_the_page_sends_files_and_numbers_together_from_a_phone_too(browser, three):
    with Page(browser, three.url, width=360, named="made") as page:
        row, outputs = page.asked("raw_bytes", lambda: page.draw(THREE))
        assert np.isnan(row["vector"]).all() and outputs["present"] == [True, False, False]
        page.wait_for("By the picture alone", "#verdict")
        text = page.page.get_by_label("3 numbers, separated by commas")
        row, outputs = page.asked("raw_bytes", lambda: text.fill("0.5, 2, 1"))
        assert row["vector"] == VECTOR and outputs["present"] == [True, False, True]
        page.wait_for("agree", "#verdict")
        assert page.peaceful() and page.overflow() == 0


def test_the_page_sends_sounds_at_the_rate_at_which_the_model_hears_them(browser, three):
    samples = np.round(3000 * np.sin(np.arange(8000) / 3)).astype(np.int16)
    with Page(browser, three.url, named="made") as page:
        page.wait_for("2.5 seconds are kept", "#sound-hint")
        sound = wav_bytes(samples, 16_000)
        row, _ = page.asked("raw_bytes", lambda: page.drop("#sound", "engine.wav", "audio/wav", sound))
        with wave.open(io.BytesIO(base64.b64decode(row["audio_bytes"]["b64"]))) as sent:
            assert (sent.getframerate(), sent.getnframes()) == (16_000, 8000)
            np.testing.assert_array_equal(np.frombuffer(sent.readframes(8000), "<i2"), samples)
        page.wait_for("13 frames (left to right) of 2 log-mel bands", "#seen-sound-text")
        assert page.peaceful()


def test_the_page_hides_the_cards_of_modalities_that_the_model_lacks(browser, one):
    with Page(browser, one.url, named="made") as page:
        page.wait_for("Fill in one card or all", "#verdict")
        assert page.page.locator("#picture").is_hidden() and page.page.locator("#sound").is_hidden()
        assert page.page.locator("#notice").is_hidden()
        page.asked("serving_default", lambda: page.page.locator("textarea").fill("0.5 2 1"))
        page.wait_for("By the vector, 63 % sure.", "#verdict")
        assert page.page.locator("#bars thead th").all_inner_texts() == ["vector"] and page.bars("tür") == ["63"]
        assert page.violations() == [] and page.peaceful()


def test_the_page_and_the_client_name_what_is_unfamiliar_and_not_its_neighbour(browser, wary):
    assert [modality["name"] for modality in wary.get("/model.json")[1]["modalities"]] == ["image", "audio"]
    with Page(browser, wary.url, named="made") as page:
        page.draw(THREE)
        page.wait_for("I don’t know this picture. A guess: ", "#verdict")
        page.example("sound", "tür")
        page.wait_for("I don’t know this picture. By the sound alone, 33 % sure.", "#verdict")
        page.wait_for("With the promised coverage it is one of: hut, tür, zaun.", "#added")
        page.page.locator("#clear-picture").click()
        page.example("picture", "tür")
        page.wait_for("What each adds to the log-odds of hut: picture +0.3, sound +0.3.", "#added")
        assert page.violations() == [] and page.peaceful()
    with Client(wary.url, "made") as client:
        found = client.predict(np.ones((6, 5)), np.zeros(26))
    assert found.modalities == ("image", "audio") and found.outputs["used"].tolist() == [[False, True]]


def test_numbers_are_told_where_the_evidence_lies(browser, one):
    with Page(browser, one.url, named="made") as page:
        page.page.get_by_label("Show where it looks").check()
        page.page.locator("textarea").fill("0.5 2 1")
        page.wait_for("Most of the evidence, in this order: number 2, number 1.", "#input-vector .note")
        assert page.violations() == [] and page.peaceful()
