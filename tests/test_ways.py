"""One picture and one sound written in each of some 60 ways: the same features by every way in, and one-line refusals.

Ways that keep every sample give the same features to the last bit (16 bits of grey are cut to 8). Lossy ways stay
within `PICTURE` grey levels and `SOUND` units of the coefficients (their deviation over time is about 20) on average.
"""

import builtins
import io

import numpy as np
import pytest
import soundfile
import tensorflow as tf
from PIL import Image

from kfusion.modalities import modality
from kfusion.modalities.audio.files import fault as sound_fault
from kfusion.modalities.audio.files import standard_sound
from kfusion.modalities.front_ends import file_reader
from kfusion.modalities.image.files import MAX_SIDE, standard_picture
from kfusion.modalities.image.files import fault as picture_fault
from kfusion.spec import ModalitySpec, audio_spec, image_spec
from kfusion.validation import UserError
from tests.media import encoded
from tests.ways import EXACT, Way, picture_ways, saved, sound_ways

PICTURE, SOUND = 7.0, 30.0
DOZEN = (
    *("PNG P", "PNG 16 bit", "JPEG CMYK", "WEBP turned 90", "GIF animated", "GIF transparent", "BMP 1", "BMP 4 bit"),
    *("BMP from the top", "WebP", "TIFF 16 bit", "TIFF float", "JPEG 2000", "HEIC", "PGM 16 bit"),
    *("WAV PCM_24", "WAVEX FLOAT", "WAV ALAW", "WAV 3 channels", "RF64", "WAV without its last bytes", "RIFX"),
    *("WAV IMA_ADPCM", "FLAC PCM_24", "AIFF PCM_16", "CAF ALAC_24", "MP3 MPEG_LAYER_III", "ipod alac", "webm libopus"),
)


def picture() -> np.ndarray:
    """A 3 drawn of two arcs, dark on a bright ground: uint8 (128, 160)."""
    y, x = np.mgrid[:128, :160].astype(np.float32)
    arcs = ((34, 20), (84, 28))
    rings = [np.abs(np.hypot(y - row, x - 76) - size) + 50 * (x < 70) * (np.abs(y - row) < 13) for row, size in arcs]
    return np.clip(255 - 255 / (1 + np.exp(np.min(rings, axis=0) - 6)), 0, 255).astype(np.uint8)


def sound() -> np.ndarray:
    """A gliding note in faint noise, 16 kHz, on the steps of 16 bits: float32."""
    rng, time = np.random.default_rng(0), np.arange(16000) / 16000
    tone = sum(np.sin(2 * np.pi * (150 + 60 * time) * k * time) / k for k in range(1, 12))
    values = 0.3 * tone * np.clip(np.sin(np.pi * (time - 0.2) / 0.6), 0, 1) ** 0.5 + rng.normal(0, 0.004, len(time))
    return (np.round(values * 32768) / 32768).astype(np.float32)


def features(contents: dict[str, bytes], spec: ModalitySpec, raw: bool) -> dict[str, np.ndarray]:
    values, reasons = file_reader(spec, raw=raw)(tf.constant(list(contents.values())))
    refused = {name: reason for name, reason in zip(contents, reasons.numpy(), strict=True) if reason}
    assert not refused
    return dict(zip(contents, values.numpy(), strict=True))


def check(ways: list[Way], spec: ModalitySpec, plain: str, tolerance: float, raw: bool = True) -> None:
    """`raw`: by the exported graph's reader, which reads standard files as well; else by the other one."""
    contents = {name: content for name, _, content, _ in ways}
    standard = {name: modality(spec).standard_file(content) for name, content in contents.items()}
    given = features(standard, spec, raw)
    by_graph = features({name: content for name, _, content, in_graph in ways if in_graph}, spec, True)
    for name, row in by_graph.items():
        np.testing.assert_array_equal(row, given[name], f"{name}: by the graph alone")
    expected = given[plain]
    for name, level, _, _ in ways:
        if level == EXACT:
            np.testing.assert_array_equal(given[name], expected, name)
        assert np.abs(given[name] - expected).mean() <= tolerance, name


def some(ways: list[Way], plain: str) -> list[Way]:
    return [way for way in ways if way[0] in (*DOZEN, plain)]


def test_a_picture_gives_the_same_pixels_in_a_dozen_formats():
    check(some(list(picture_ways(picture())), "PNG L"), image_spec((28, 28, 1)), "PNG L", PICTURE)


def test_a_sound_gives_the_same_features_in_a_dozen_formats():
    check(some(list(sound_ways(sound(), 16000)), "WAV PCM_16"), audio_spec(), "WAV PCM_16", SOUND)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(28, 28, 1), (32, 40, 3)])
def test_a_picture_gives_the_same_pixels_in_every_format(shape):
    ways = list(picture_ways(picture()))
    assert len(ways) >= 55
    check(ways, image_spec(shape), "PNG L", PICTURE, raw=False)


@pytest.mark.slow
def test_a_sound_gives_the_same_features_in_every_format():
    ways = list(sound_ways(sound(), 16000))
    assert len(ways) >= 50
    check(ways, audio_spec(), "WAV PCM_16", SOUND)


def test_what_the_graph_reads_passes_through_unchanged():
    for content in (encoded(picture()), encoded(picture(), "JPEG"), encoded(picture(), "PNG")[:99], b"\xff\xd8\xffx"):
        assert standard_picture(content) is content
    written = io.BytesIO()
    soundfile.write(written, sound(), 16000, "PCM_24", format="WAV")
    for content in (written.getvalue(), written.getvalue()[:-7], written.getvalue()[:3000]):
        assert standard_sound(content) is content


def test_a_picture_larger_than_the_graph_decodes_is_made_smaller():
    large = Image.new("L", (MAX_SIDE + 100, 40), 200)
    for kind in ("PNG", "BMP", "WEBP", "TIFF"):
        with Image.open(io.BytesIO(standard_picture(saved(large, kind)))) as made:
            assert (made.format, made.size) == ("PNG", (MAX_SIDE // 2 + 50, 20))


REFUSED = {
    b"": ("a picture. Found: an empty file", "a sound. Found: an empty file"),
    b"This is a text file.\n" * 20: ("a picture. Found: a text", "a sound. Found: a text"),
    np.random.default_rng(0).bytes(5000): ("a picture. Found: another", "a sound. Found: another"),
    b"Salted__" + np.random.default_rng(1).bytes(500): ("a picture. Found: another", "a sound. Found: another"),
    b"%PDF-1.7" + bytes(99): ("a picture. Found: a PDF", "a sound. Found: a PDF"),
    b"PK\3\4" + bytes(99): ("a picture. Found: a ZIP", "a sound. Found: a ZIP"),
    b"II*\0" + bytes(99): ("an undamaged picture. Found: a TIFF", "a sound. Found: another"),
    b"fLaC\0\0\0\x22" + bytes(99): ("a picture. Found: a FLAC", "an undamaged sound. Found: a FLAC"),
    b"\0\0\0\x20ftypM4A " + bytes(99): ("a picture. Found: a video", "an undamaged sound. Found: an M4A"),
    b"\0\0\0\x18ftypheic" + bytes(99): ("an undamaged picture. Found: a HEIC", "a sound. Found: a HEIC"),
}


@pytest.mark.parametrize("content", REFUSED, ids=lambda content: repr(content[:9]))
def test_what_cannot_be_understood_is_refused_in_one_line(content):
    for standard, rule in zip((standard_picture, standard_sound), REFUSED[content], strict=True):
        with pytest.raises(UserError) as error:
            standard(content)
        assert f"must be {rule}" in str(error.value)
        assert "\n" not in str(error.value)


def test_of_sounds_longer_than_the_longest_that_is_read_the_middle_is_decoded(monkeypatch):
    monkeypatch.setattr("kfusion.modalities.audio.files.MOST_READ_S", 61)
    written = io.BytesIO()
    soundfile.write(written, np.repeat(np.arange(101) / 128, 8000), 8000, format="FLAC")
    samples, rate_hz = soundfile.read(io.BytesIO(standard_sound(written.getvalue())))
    np.testing.assert_allclose(samples.reshape(61, rate_hz)[:, 0], np.arange(20, 81) / 128, atol=1e-4)


@pytest.mark.parametrize(
    ("package", "content", "extra"),
    [("pillow_heif", b"\0\0\0\x18ftypheic" + bytes(99), "heif"), ("av", b"\0\0\0\x20ftypM4A " + bytes(99), "media")],
)
def test_a_missing_extra_is_one_line_that_names_the_command(monkeypatch, package, content, extra):
    original = builtins.__import__

    def missing(name, *args, **kwargs):
        if name == package:
            raise ImportError(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(UserError, match=rf"pip install 'kfusion\[{extra}\]'.*Found: no package"):
        (standard_picture if extra == "heif" else standard_sound)(content)


def test_first_and_last_bytes_tell_what_is_broken():
    png, jpeg = encoded(picture()), encoded(picture(), "JPEG")
    flipped = bytearray(png)
    flipped[len(png) // 2] ^= 1

    def of_picture(content: bytes) -> str:
        return picture_fault(content, content[-64:], len(content))

    assert of_picture(png) == of_picture(jpeg) == of_picture(encoded(picture(), "TIFF")) == ""
    assert "its checksum is wrong" in of_picture(bytes(flipped))
    assert "ends before" in of_picture(png[:-9]) and "ends before" in of_picture(jpeg[:-9])
    assert "a text" in of_picture(b"hello") and "an empty file" in of_picture(b"")
    written = io.BytesIO()
    soundfile.write(written, sound(), 16000, format="WAV")
    wav = written.getvalue()
    assert sound_fault(wav, len(wav)) == sound_fault(wav[:1000], len(wav)) == sound_fault(b"fLaC" + wav, 9) == ""
    assert "no format chunk" in sound_fault(wav[:12], 12)
    assert "a text" in sound_fault(b"hello", 5) and "a PNG" in sound_fault(png, len(png))
