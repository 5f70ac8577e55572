"""WAV files, read by TensorFlow ops: what is taken, and the sentence for what is not."""

import struct

import numpy as np
import pytest
import tensorflow as tf

from kfusion.data.wav import MAX_CHUNKS, read_wav
from kfusion.exporting.files import wav_file

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
    samples, _, _ = read(wav(np.array([[8192, 0], [-16384, 16384], [3, 5]], np.int16), channels=2))
    assert samples.numpy().tolist() == [0.125, 0, 4 / 32768]


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


def test_half_a_sample_at_the_end_is_left_out():
    samples, _, reason = read(riff(described(), chunk(b"data", VALUES.tobytes() + b"x")))
    assert (len(samples), reason.numpy()) == (len(VALUES), b"")


ENDLESS = b"data\xff\xff\xff\xff1234"
FLOAT = struct.pack("<HHIH", 22, 32, 4, 3) + bytes(14)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "must be a WAV file. Found: no RIFF/WAVE header"),
        (b"R", "must be a WAV file. Found: no RIFF/WAVE header"),
        (b"hello, I am a text file\n", "must be a WAV file. Found: no RIFF/WAVE header"),
        (b"RIFX" + wav(VALUES)[4:], "must be a WAV file. Found: no RIFF/WAVE header"),
        (wav(VALUES)[:12], "must describe its format before its data. Found: no format chunk"),
        (riff(DATA, described()), "must describe its format before its data. Found: no format chunk"),
        (riff(chunk(b"fmt ", b"\1\0\1\0"), DATA), "must describe its format before its data. Found: no format chunk"),
        (riff(described(bits=24), DATA), "must be 8 or 16 bit PCM. Found: 24 bit"),
        (riff(described(3, bits=32), DATA), "must be 8 or 16 bit PCM. Found: 32 bit float"),
        (riff(described(0xFFFE, bits=32, more=FLOAT), DATA), "must be 8 or 16 bit PCM. Found: 32 bit float"),
        (riff(described(7, bits=8), DATA), "must be 8 or 16 bit PCM. Found: 8 bit of coding 7"),
        (riff(described(channels=6), DATA), "must be mono or stereo. Found: 6 channels"),
        (riff(described(channels=0), DATA), "must be mono or stereo. Found: 0 channels"),
        (riff(described(rate=7999), DATA), "must have a rate of 8000 to 48000 Hz. Found: 7999 Hz"),
        (riff(described(rate=4_000_000_000), DATA), "must have a rate of 8000 to 48000 Hz. Found: 4000000000 Hz"),
        (riff(described()), "must hold a data chunk. Found: none"),
        (riff(described(), *[chunk(b"junk", b"")] * MAX_CHUNKS, DATA), "must hold a data chunk. Found: none"),
        (riff(described(), DATA)[:-3], "must hold all the data that it announces. Found: 11 of 14 bytes"),
        (riff(described(), ENDLESS), "must hold all the data that it announces. Found: 4 of 4294967295 bytes"),
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
    assert (len(samples), rate_hz.numpy()) == (0, 8000)


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
        assert 8000 <= rate_hz.numpy() <= 48000
