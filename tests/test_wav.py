"""WAV files, read by TensorFlow ops: what is taken, and the sentence for what is not."""

import io
import struct

import numpy as np
import pytest
import soundfile
import tensorflow as tf

from kfusion.modalities.audio.decoding import MAX_CHUNKS, read_wav
from kfusion.modalities.audio.files import wav_file

VALUES = np.array([0, 1, -1, 1000, -32768, 32767, 77], np.int16)
read = tf.function(read_wav, input_signature=[tf.TensorSpec((), tf.string)])


def wav(values: np.ndarray, rate: int = 8000, channels: int = 1, width: int = 2) -> bytes:
    """A file as the standard library writes it."""
    return wav_file(values.tobytes(), width, channels, rate)


def chunk(name: bytes, body: bytes) -> bytes:
    return name + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)


def riff(*chunks: bytes) -> bytes:
    return chunk(b"RIFF", b"WAVE" + b"".join(chunks))


def described(tag: int = 1, channels: int = 1, rate: int = 8000, bits: int = 16, more: bytes = b"") -> bytes:
    block = channels * bits // 8
    return chunk(b"fmt ", struct.pack("<HHIIHH", tag, channels, rate, rate * block % 2**32, block, bits) + more)


DATA = chunk(b"data", VALUES.tobytes())


def test_sixteen_bits_become_samples_between_minus_one_and_one():
    samples, rate_hz, reason = read(wav(VALUES, 11025))
    np.testing.assert_array_equal(samples, VALUES / np.float32(32768))
    assert (samples.dtype, rate_hz.numpy(), reason.numpy()) == (tf.float32, 11025, b"")


def test_eight_bits_are_unsigned():
    samples, _, reason = read(wav(np.array([0, 64, 128, 255], np.uint8), width=1))
    assert samples.numpy().tolist() == [-1, -0.5, 0, 127 / 128]
    assert reason.numpy() == b""


def test_stereo_becomes_the_mean_of_both_sides():
    samples, _, _ = read(wav(np.array([[8192, 0], [-16384, -8192], [3, 5]], np.int16), channels=2))
    assert samples.numpy().tolist() == [0.125, -0.375, 4 / 32768]


@pytest.mark.parametrize(("left", "right", "taken"), [(1, -1, 0), (0.9, -1, 1), (0, 1, None), (1, 0.5, None)])
def test_stereo_in_opposite_phase_becomes_the_louder_side(left, right, taken):
    sides = np.outer(np.tile([1000, -3000, 2000], 5), [left, right]).astype(np.int16)
    samples, _, _ = read(wav(sides, channels=2))
    np.testing.assert_array_equal(samples * 32768, sides.mean(axis=1) if taken is None else sides[:, taken])


def test_other_chunks_may_stand_anywhere_and_be_of_odd_size():
    odd = chunk(b"LIST", b"abc")
    samples, rate_hz, reason = read(riff(odd, described(rate=16000), odd, DATA, odd))
    np.testing.assert_array_equal(samples, VALUES / np.float32(32768))
    assert (rate_hz.numpy(), reason.numpy()) == (16000, b"")


def test_extensible_format_with_pcm_in_it_is_read():
    pcm = struct.pack("<HHIH", 22, 16, 4, 1) + bytes.fromhex("000000001000800000aa00389b71")
    samples, _, reason = read(riff(described(0xFFFE, more=pcm), DATA))
    np.testing.assert_array_equal(samples, VALUES / np.float32(32768))
    assert reason.numpy() == b""


@pytest.mark.parametrize("more", [(), (chunk(b"JUNK", b""),)])
def test_a_chunk_of_odd_size_without_its_padding_does_not_hide_what_follows(more):
    odd = chunk(b"LIST", b"abc")[:-1]
    for content in (riff(described(), odd, *more, DATA), riff(odd, *more, described(), DATA)):
        samples, _, reason = read(content)
        assert (samples.numpy() * 32768).tolist() == VALUES.tolist() and reason.numpy() == b""


@pytest.mark.parametrize(("file_size", "data_size"), [(2**32 - 1, 2**32 - 1), (0, 0), (36, 0), (2**31 - 1, 2**31 - 37)])
def test_sound_that_was_streamed_without_its_size_reaches_to_the_end(file_size, data_size):
    content = bytearray(wav(VALUES))
    content[4:8], content[40:44] = struct.pack("<I", file_size), struct.pack("<I", data_size)
    samples, _, reason = read(bytes(content))
    assert (samples.numpy() * 32768).tolist() == VALUES.tolist() and reason.numpy() == b""


def test_an_empty_data_chunk_before_others_holds_no_sample():
    _, _, reason = read(riff(described(), chunk(b"data", b""), chunk(b"LIST", b"abcd")))
    assert reason.numpy() == b"must hold at least one sample. Found: none"


@pytest.mark.parametrize(
    ("start", "kind"),
    [
        (b"ID3\4\0\0\0\0", "an MP3 file"),
        (b"\xff\xfb\x90\x64", "an MP3 file"),
        (b"\xff\xf1\x50\x80", "an AAC file"),
        (b"fLaC\0\0\0\x22", "a FLAC file"),
        (b"OggS\0\2", "an Ogg file"),
        (b"\0\0\0\x1cftypM4A \0", "an M4A file"),
        (b"\0\0\0\x20ftypisom", "an MP4 file"),
        (b"\0\0\0\x20ftypheic", "a HEIC picture"),
        (b"\x1a\x45\xdf\xa3\x9f", "a WebM or Matroska file"),
        (b"FORM\0\0\0\0AIFF", "an AIFF file"),
        (b"RIFF\0\0\0\0WEBP", "a WebP picture"),
        (b"\x89PNG\r\n\x1a\n", "a PNG picture"),
        (b"\xff\xd8\xff\xe0", "a JPEG picture"),
    ],
    ids=lambda value: value if isinstance(value, str) else "start",
)
def test_a_file_of_another_kind_is_called_by_its_name(start, kind):
    _, _, reason = read(start + bytes(50))
    assert reason.numpy().decode() == f"must be a WAV file. Found: {kind}"


@pytest.mark.parametrize("name", [b"RF64", b"BW64"])
def test_sizes_of_64_bits_stand_in_a_chunk_of_their_own(name):
    sizes = chunk(b"ds64", struct.pack("<QQQI", 0, VALUES.nbytes, len(VALUES), 0))
    data = b"data\xff\xff\xff\xff" + VALUES.tobytes()
    samples, _, reason = read(name + b"\xff\xff\xff\xffWAVE" + sizes + described() + data + chunk(b"LIST", b"abcd"))
    assert (samples.numpy() * 32768).tolist() == VALUES.tolist() and reason.numpy() == b""


SUBTYPES = ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ALAW", "ULAW"]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("subtype", SUBTYPES)
def test_every_coding_gives_the_samples_that_libsndfile_reads(subtype, channels):
    values = np.random.default_rng(0).uniform(-1, 1, (2000, channels)).astype(np.float32)
    written = io.BytesIO()
    soundfile.write(written, values, 11025, subtype, format="WAV")
    samples, rate_hz, reason = read(written.getvalue())
    written.seek(0)
    expected = soundfile.read(written, dtype="float32", always_2d=True)[0].mean(axis=1)
    np.testing.assert_allclose(samples, expected, atol=1e-6)
    assert (rate_hz.numpy(), reason.numpy()) == (11025, b"")


def test_every_byte_of_a_and_mu_law_is_a_sample():
    for tag, subtype in ((6, "ALAW"), (7, "ULAW")):
        data = bytes(range(256))
        samples, _, _ = read(riff(described(tag, bits=8), chunk(b"data", data)))
        raw = {"samplerate": 8000, "channels": 1, "format": "RAW", "subtype": subtype}
        np.testing.assert_array_equal(samples, soundfile.read(io.BytesIO(data), dtype="float32", **raw)[0])


def test_a_sound_of_many_channels_of_which_one_is_heard_is_that_one():
    values = np.zeros((500, 6), np.int16)
    values[:, 2] = np.random.default_rng(0).integers(-9000, 9000, 500)
    np.testing.assert_array_equal(read(wav(values, channels=6))[0] * 32768, values[:, 2])


@pytest.mark.parametrize(("seconds", "used"), [(0.1, True), (0.09, False)])
def test_a_sound_whose_last_bytes_are_missing_is_used_as_far_as_it_goes(seconds, used):
    num = int(8000 * seconds)
    samples, _, reason = read(wav(np.ones(8000, np.int16))[: 44 + 2 * num])
    assert len(samples) == (num if used else 0)
    announced = b"" if used else b"must hold all the data that it announces. Found: 1440 of 16000 bytes"
    assert reason.numpy() == announced


def test_half_a_sample_at_the_end_is_left_out():
    samples, _, reason = read(riff(described(), chunk(b"data", VALUES.tobytes() + b"x")))
    assert (len(samples), reason.numpy()) == (len(VALUES), b"")


LONG = b"data\xff\xff\xff\x7e1234"
CODINGS = "must be PCM of 8 to 32 bits, float of 32 or 64, A-law or µ-law of 8"
NAN = struct.pack("<2f", 1, np.nan)
FLOAT = struct.pack("<HHIH", 22, 32, 4, 3) + bytes(14)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "must be a WAV file. Found: no RIFF/WAVE header"),
        (b"R", "must be a WAV file. Found: no RIFF/WAVE header"),
        (b"hello, I am a text file\n", "must be a WAV file. Found: no RIFF/WAVE header"),
        (b"RIFX" + wav(VALUES)[4:], "must be a WAV file. Found: a RIFX file, whose numbers stand the other way round"),
        (wav(VALUES)[:12], "must describe its format before its data. Found: no format chunk"),
        (riff(DATA, described()), "must describe its format before its data. Found: no format chunk"),
        (riff(chunk(b"fmt ", b"\1\0\1\0"), DATA), "must describe its format before its data. Found: no format chunk"),
        (riff(described(bits=40), DATA), f"{CODINGS}. Found: 40 bit"),
        (riff(described(3, bits=16), DATA), f"{CODINGS}. Found: 16 bit float"),
        (riff(described(0xFFFE, bits=16, more=FLOAT), DATA), f"{CODINGS}. Found: 16 bit float"),
        (riff(described(17, bits=4), DATA), f"{CODINGS}. Found: 4 bit of coding 17"),
        (riff(described(channels=0), DATA), "must have a channel. Found: none"),
        (riff(described(rate=3999), DATA), "must have a rate of 4000 to 192000 Hz. Found: 3999 Hz"),
        (riff(described(rate=4_000_000_000), DATA), "must have a rate of 4000 to 192000 Hz. Found: 4000000000 Hz"),
        (riff(described(3, bits=32), chunk(b"data", NAN)), "must hold finite numbers. Found: NaN or infinity"),
        (riff(described()), "must hold a data chunk. Found: none"),
        (riff(described(), *[chunk(b"junk", b"")] * MAX_CHUNKS, DATA), "must hold a data chunk. Found: none"),
        (riff(described(), DATA)[:-3], "must hold all the data that it announces. Found: 11 of 14 bytes"),
        (riff(described(), LONG), "must hold all the data that it announces. Found: 4 of 2130706431 bytes"),
        (riff(described(), chunk(b"data", b"")), "must hold at least one sample. Found: none"),
        (riff(described(), chunk(b"data", b"x")), "must hold at least one sample. Found: none"),
        (wav(np.zeros(8000 * 600, np.uint8), width=1), "must last up to 60 seconds. Found: 600 seconds"),
        (wav(np.zeros(8000 * 60 + 1, np.int16)), "must last up to 60 seconds. Found: 61 seconds"),
    ],
    ids=lambda value: value if isinstance(value, str) else "file",
)
def test_what_cannot_be_read_gets_a_reason_and_no_samples(content, reason):
    samples, rate_hz, found = read(content)
    assert found.numpy().decode() == reason
    assert (len(samples), rate_hz.numpy()) == (0, 4000)


@pytest.mark.parametrize(("channels", "width"), [(1, 1), (2, 2)])
def test_of_longer_sounds_the_middle_minute_is_heard(channels, width):
    rising = np.repeat(np.arange(100), 8000).astype(np.uint8 if width == 1 else np.int16)
    content = wav(np.repeat(rising, channels), channels=channels, width=width)
    samples, _, reason = read_wav(content, middle=True)
    assert (len(samples), reason.numpy()) == (480_000, b"")
    seconds = samples.numpy() * 128 + 128 if width == 1 else samples.numpy() * 32768
    np.testing.assert_array_equal(seconds.reshape(60, 8000).mean(axis=1).round(), np.arange(20, 80))


def test_a_minute_is_not_too_long():
    samples, _, reason = read(wav(np.ones(8000 * 60, np.int16)))
    assert (len(samples), reason.numpy()) == (480_000, b"")


def test_no_damage_makes_an_error():
    rng = np.random.default_rng(0)
    whole = np.frombuffer(riff(chunk(b"LIST", b"abc"), described(channels=2), DATA), np.uint8)
    for _ in range(300):
        damaged = whole.copy()
        damaged[rng.integers(0, 58, 3)] = rng.integers(0, 256, 3)
        samples, rate_hz, reason = read(damaged[: rng.integers(0, len(whole) + 1)].tobytes())
        assert (len(samples) == 0) == (reason.numpy() != b"")
        assert 4000 <= rate_hz.numpy() <= 192_000
