"""The bytes of a WAV file -> samples at its own rate -> samples at another rate; TensorFlow operations only.

TensorFlow's own `decode_wav` takes 16 bits only, and fails a whole batch without naming the row. Here nothing fails:
whatever the bytes are, the result is samples and a reason, and the caller decides what a reason is worth. Faults of
programs that write such files do no harm: a chunk of odd size without its padding; a data chunk without a size, or of
the largest, as programs write that cannot go back to its head (it reaches to the end of the file); missing last bytes.

Sample rates are changed through the spectrum, which is cut to the new band, or filled up with zeros, and transformed
back to another number of points: a windowed sinc as long as the sound, in two transforms. A polyphase filter would need
a table for each pair of rates, which a graph that takes any rate cannot hold.

References: IBM and Microsoft 1991, Multimedia Programming Interface and Data Specifications 1.0; EBU Tech 3306 (RF64);
ITU-T G.711 (A-law and µ-law).
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from kfusion.modalities.audio.files import (
    CODINGS,
    EXTENDED_FORMAT,
    EXTENSIBLE,
    FLOAT,
    HIGHEST_RATE_HZ,
    KINDS,
    LONGEST_S,
    LOWEST_RATE_HZ,
    PCM,
    SHORT_FORMAT,
    SHORTEST_PART_S,
    STREAMED,
    WINDOW_DATA,
    WINDOW_HEAD,
)
from kfusion.modalities.audio.recipe import MOST_WINDOWS, SoundRecipe, window_samples

PASSED = 0.95
"""Share of the new band that passes unchanged; from there a raised cosine falls to nothing at the band's end."""
RESAMPLE_GUARD_S = 0.05
"""Silence behind the sound: the transform is circular, and the filter's ringing must not come round to the start."""
_MOST_SECONDS = 64
"""More than any sound has, its guard included."""


def ragged(values: Any, lengths: Any) -> Any:
    """The ragged tensor of rows that lie one after another.

    Args:
        values: (n, …).
        lengths: int32 (rows,), how many of them each row has.
    """
    kind: Any = tf.RaggedTensor
    return kind.from_row_lengths(values, tf.convert_to_tensor(lengths), validate=False)


def pieces(values: Any, lengths: Any, which: int) -> Any:
    """One piece of each of some rows that are cut up: what is kept is copied as a whole, not number by number.

    Args:
        values: (n,), all pieces of all rows, one after another.
        lengths: int32 (rows, pieces), of each piece.
        which: of the pieces is kept.
    """
    cut = ragged(values, tf.reshape(lengths, [-1]))
    return tf.gather(cut, tf.range(tf.shape(lengths)[0]) * lengths.shape[1] + which)


def in_sizes(rows: Any, size: Any, change: Callable[[Any, Any, Any], Any]) -> tuple[Any, tf.Tensor]:
    """Rows changed together with all others of their size, as transforms are that have one size in a call.

    Args:
        rows: float32 (rows, None), at least one.
        size: int64 (rows,), a number for each size.
        change: takes the rows of one size, which they are, int32, and their size; gives as many rows.

    Returns:
        The changed rows, in an order that costs least, and which row each is, int32 (rows,).
    """
    sizes = tf.unique(size)[0]
    kinds = (tf.float32, tf.int32, tf.int32)
    arrays = tuple(tf.TensorArray(kind, tf.size(sizes), infer_shape=False, element_shape=[None]) for kind in kinds)

    def step(number: Any, arrays: Any) -> tuple[Any, Any]:
        place = tf.cast(tf.where(size == sizes[number])[:, 0], tf.int32)
        changed = change(tf.gather(rows, place), place, sizes[number])
        parts = changed.values, changed.row_lengths(), place
        return number + 1, tuple(array.write(number, part) for array, part in zip(arrays, parts, strict=True))

    _, arrays = tf.while_loop(lambda number, _: number < tf.size(sizes), step, (0, arrays))
    values, lengths, place = (array.concat() for array in arrays)
    return ragged(values, lengths), place


def resample(rows: Any, rate_hz: Any, new_rate_hz: int) -> tuple[Any, tf.Tensor]:
    """Changes the sample rate of sounds, with an anti-alias filter where it becomes lower.

    Sample k of the result lies at k / new_rate_hz seconds; beyond its ends, the sound is taken as silent.

    Args:
        rows: float32 (sounds, None), each of n ≥ 1 samples.
        rate_hz: int64 (sounds,).
        new_rate_hz: samples a second of the result.

    Returns:
        float32 (sounds, None), of ceil(n · new_rate_hz / rate_hz) samples, as they are where the rates are equal; and
        which sound each is, int32 (sounds,).
    """
    num = tf.cast(rows.row_lengths(), tf.int64)
    # In whole seconds, both rates have a whole number of samples.
    seconds = 1 + (num + tf.cast(tf.cast(rate_hz, tf.float32) * RESAMPLE_GUARD_S, tf.int64)) // rate_hz
    size = tf.where(rate_hz == new_rate_hz, tf.zeros_like(rate_hz), rate_hz * _MOST_SECONDS + seconds)

    def change(some: Any, _: Any, size: Any) -> Any:
        of_size = size // _MOST_SECONDS, size % _MOST_SECONDS
        return tf.cond(size == 0, lambda: some, lambda: _through_spectrum(some, *of_size, new_rate_hz))

    as_they_are = rows, tf.range(tf.size(size))
    return tf.cond(tf.reduce_any(size > 0), lambda: in_sizes(rows, size, change), lambda: as_they_are)


def _through_spectrum(rows: Any, rate_hz: Any, seconds: Any, new_rate_hz: int) -> Any:
    num = tf.cast(rows.row_lengths(), tf.int64)
    spectrum = tf.signal.rfft(rows.to_tensor(), [tf.cast(seconds * rate_hz, tf.int32)])
    num_new = seconds * new_rate_hz
    frequency = tf.range(num_new // 2 + 1, dtype=tf.int64) * 2 / num_new
    share = tf.clip_by_value((tf.cast(frequency, tf.float32) - PASSED) / (1.0 - PASSED), 0.0, 1.0)
    passed = tf.where(rate_hz < new_rate_hz, 1.0, 0.5 + 0.5 * tf.cos(math.pi * share))
    kept = passed * tf.cast(new_rate_hz / rate_hz, tf.float32)
    spectrum = spectrum[:, : num_new // 2 + 1]
    above = tf.size(kept) - tf.shape(spectrum)[1]  # A lower rate has nothing there.
    spectrum = tf.pad(spectrum, [[0, 0], [0, above]]) * tf.cast(kept, tf.complex64)
    changed = tf.signal.irfft(spectrum, [tf.cast(num_new, tf.int32)])
    wanted = -(-num * new_rate_hz // rate_hz)
    return pieces(tf.reshape(changed, [-1]), tf.cast(tf.stack([wanted, num_new - wanted], axis=1), tf.int32), 0)


MAX_CHUNKS = 64
"""Chunks that are looked at: a file of nothing but empty ones must not keep a server busy."""
LOST = 0.1
"""Of the loudest channel's power: where the mean of all has less, they have cancelled each other out."""
RIFF = int.from_bytes(b"RIFF", "little")
CHUNK = "fmt |data|ds64|LIST|fact|PEAK|bext|cue |smpl|inst|id3 |iXML|JUNK|junk|PAD |FLLR"
"""Names that a chunk is known to have."""


class Header(NamedTuple):
    """What a file says of itself; int64 scalars. Nothing in it can be trusted before `reason_against`."""

    file_size: Any
    format_size: Any
    tag: Any
    channels: Any
    sample_rate_hz: Any
    bits: Any
    data_at: Any
    data_size: Any

    @property
    def sample_bytes(self) -> Any:
        """Of one channel; 20 bits take 3 bytes."""
        return (self.bits + 7) // 8

    @property
    def present(self) -> Any:
        """Bytes of the data that are there."""
        return tf.minimum(self.data_size, self.file_size - self.data_at)

    @property
    def num_samples(self) -> Any:
        """Of each channel, as far as they are there."""
        return self.present // tf.maximum(self.channels * self.sample_bytes, 1)

    @property
    def coding(self) -> Any:
        """The place in `CODINGS`; their number where the coding is not known."""
        tags, sizes = (tf.constant(column, tf.int64) for column in zip(*CODINGS, strict=True))
        same = (tags == self.tag) & (sizes == self.sample_bytes)
        return tf.argmax(tf.concat([same, [True]], axis=0), output_type=tf.int32)


def read_wavs(contents: Any, middle: bool = False) -> tuple[Any, tf.Tensor, tf.Tensor]:
    """`read_wav` for a batch: the files that are as most are together, all others one by one.

    Args:
        contents: string (batch,), the files; an empty one is a sound that is absent.
        middle: as of `read_wav`.

    Returns:
        samples float32 (batch, None), rates int64 (batch,) and reasons string (batch,); none for an absent sound.
    """
    heads, num = tf.io.decode_raw(contents, tf.uint16, fixed_length=len(USUAL)), tf.size(contents)
    words, lengths = tf.cast(heads, tf.int64), tf.cast(tf.strings.length(contents), tf.int64)
    rate_hz, size = words[:, 12] + 65536 * words[:, 13], words[:, 20] + 65536 * words[:, 21]
    whole = (size >= 2) & (size <= lengths - len(USUAL)) & (size <= 2 * LONGEST_S * rate_hz)
    in_range = (rate_hz >= LOWEST_RATE_HZ) & (rate_hz <= HIGHEST_RATE_HZ)
    usual = whole & in_range & tf.strings.regex_full_match(tf.strings.substr(contents, 0, len(USUAL)), _LIKE)
    count = tf.where(usual, size // 2, 0)
    data = tf.strings.substr(contents, tf.where(usual, tf.constant(len(USUAL), tf.int64), 0), 2 * count)
    samples = tf.cast(tf.io.decode_raw(tf.strings.reduce_join(data), tf.int16), tf.float32) / 32768.0

    other = tf.cast(tf.where(~usual & (lengths > 0))[:, 0], tf.int32)
    kinds = tf.float32, tf.int64, tf.string, tf.int32
    shapes = [None], [], [], []
    arrays = tuple(
        tf.TensorArray(kind, tf.size(other), infer_shape=False, element_shape=shape)
        for kind, shape in zip(kinds, shapes, strict=True)
    )

    def step(number: Any, arrays: Any) -> tuple[Any, Any]:
        found = read_wav(contents[other[number]], middle)
        parts = *found, tf.size(found[0])
        return number + 1, tuple(array.write(number, part) for array, part in zip(arrays, parts, strict=True))

    _, arrays = tf.while_loop(lambda number, _: number < tf.size(other), step, (0, arrays), parallel_iterations=2)
    values, place = tf.concat([samples, arrays[0].concat()], axis=0), other[:, None]
    counts = tf.concat([tf.cast(count, tf.int32), arrays[3].stack()], axis=0)
    rows = ragged(values, counts)
    order = tf.tensor_scatter_nd_update(tf.range(num), place, num + tf.range(tf.size(other)))
    rate_hz = tf.tensor_scatter_nd_update(tf.where(usual, rate_hz, LOWEST_RATE_HZ), place, arrays[1].stack())
    reason = tf.tensor_scatter_nd_update(tf.fill([num], ""), place, arrays[2].stack())
    return tf.cond(tf.size(other) > 0, lambda: tf.gather(rows, order), lambda: rows), rate_hz, reason


USUAL = b"RIFF....WAVEfmt \x10\0\0\0\1\0\1\0........\2\0\x10\0data...."
"""The head of a file of one channel of 16 bits, as most are: nothing in it must be looked for. Dots are any bytes."""
_LIKE = "".join(r"\C" if byte == ord(".") else rf"\x{byte:02x}" for byte in USUAL)


def read_wav(content: Any, middle: bool = False) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Samples of one WAV file: PCM of 8 to 32 bits, float, A-law or µ-law, 4 to 192 kHz, up to 60 seconds.

    Args:
        content: string scalar, the file.
        middle: take the middle 60 seconds of a longer recording, and do not refuse it.

    Returns:
        samples float32 (n,), in [-1, 1) unless they are floats, the mean of the channels, or the loudest one where
            they cancel each other out; none with a reason.
        sample_rate_hz int64 scalar; the lowest one with a reason.
        reason string scalar; empty where all is well.
    """
    header = read_header(content)
    reason = reason_against(header, content, middle)
    fine = reason == b""
    channels = tf.where(fine, header.channels, 1)
    num = tf.minimum(header.num_samples, LONGEST_S * header.sample_rate_hz)
    sample = channels * header.sample_bytes
    start = tf.where(fine, header.data_at + (header.num_samples - num) // 2 * sample, 0)
    num_bytes = tf.where(fine, num * sample, 0)
    data = tf.strings.substr(content, start, num_bytes)
    coding = tf.where(fine, header.coding, 0)
    values = tf.switch_case(coding, [lambda decode=decode: decode(data) for decode in _decoders()])
    finite = tf.reduce_all(tf.math.is_finite(values))
    reason = tf.where(finite, reason, "must hold finite numbers. Found: NaN or infinity")
    samples = tf.cond(channels == 1, lambda: values, lambda: _one_channel(tf.reshape(values, (-1, channels))))
    rate_hz = tf.where(fine & finite, header.sample_rate_hz, LOWEST_RATE_HZ)
    return tf.cond(finite, lambda: samples, lambda: samples[:0]), rate_hz, reason


def _decoders() -> list[Any]:
    """For each of `CODINGS`, a function from the data, string (), to float32 (num_samples * channels,)."""

    def of_three_bytes(data: Any) -> tf.Tensor:
        # As the upper three of four.
        quarters = tf.pad(tf.reshape(tf.io.decode_raw(data, tf.uint8), (-1, 3)), ((0, 0), (1, 0)))
        return tf.cast(tf.bitcast(quarters, tf.int32), tf.float32) / 2.0**31

    def by_table(table: np.ndarray) -> Any:
        return lambda data: tf.gather(tf.constant(table), tf.cast(tf.io.decode_raw(data, tf.uint8), tf.int32))

    return [
        lambda data: (tf.cast(tf.io.decode_raw(data, tf.uint8), tf.float32) - 128.0) / 128.0,
        lambda data: tf.cast(tf.io.decode_raw(data, tf.int16), tf.float32) / 32768.0,
        of_three_bytes,
        lambda data: tf.cast(tf.io.decode_raw(data, tf.int32), tf.float32) / 2.0**31,
        lambda data: tf.io.decode_raw(data, tf.float32),
        lambda data: tf.cast(tf.io.decode_raw(data, tf.float64), tf.float32),
        by_table(_a_law()),
        by_table(_mu_law()),
    ]


def _a_law() -> np.ndarray:
    """The sample of each byte, float32 (256,): every other bit is flipped; sign, exponent of 3 bits, 4 more bits."""
    code = np.arange(256) ^ 0x55
    exponent, step = (code >> 4) & 7, 2 * (code & 15) + 1
    size = np.where(exponent > 0, (step + 32) << np.maximum(exponent - 1, 0), step) * 8
    return (np.where(code & 0x80, size, -size) / 32768.0).astype(np.float32)


def _mu_law() -> np.ndarray:
    """The sample of each byte, float32 (256,): every bit is flipped; sign, exponent of 3 bits, 4 more bits."""
    code = np.arange(256) ^ 0xFF
    size = (((2 * (code & 15) + 33) << ((code >> 4) & 7)) - 33) * 4
    return (np.where(code & 0x80, -size, size) / 32768.0).astype(np.float32)


def _one_channel(values: Any) -> tf.Tensor:
    """The mean of the channels, (n, channels) -> (n,); of channels that it loses, as in opposite phase, the loudest."""
    mean, power = tf.reduce_mean(values, axis=1), tf.math.reduce_variance(values, axis=0)
    loudest = tf.argmax(power)
    lost = tf.math.reduce_variance(mean) < LOST * power[loudest]
    return tf.where(lost, tf.gather(values, loudest, axis=1), mean)


def read_header(content: Any) -> Header:
    """The format and the place of the data, found by walking the chunks; zeros for what is not there."""
    file_size = tf.cast(tf.strings.length(content), tf.int64)
    format_at, format_size, data_at, data_size = _find_chunks(content, file_size)
    word = tf.cast(tf.io.decode_raw(_bytes_at(content, format_at, EXTENDED_FORMAT), tf.uint16), tf.int64)
    extended = (word[0] == EXTENSIBLE) & (format_size >= EXTENDED_FORMAT)
    tag = tf.where(extended, word[12], word[0])
    return Header(file_size, format_size, tag, word[1], word[2] + 65536 * word[3], word[7], data_at, data_size)


def reason_against(header: Header, content: Any, middle: bool = False) -> tf.Tensor:
    """The first rule that a file breaks, and what was found instead; an empty string where it breaks none."""
    riff = tf.strings.regex_full_match(_bytes_at(content, 0, 12), r"(RIFF|RF64|BW64)\C{4}WAVE")
    coding = tf.where(header.tag == PCM, "", _text(" of coding ", header.tag))
    coding = tf.where(header.tag == FLOAT, " float", coding)
    in_range = (header.sample_rate_hz >= LOWEST_RATE_HZ) & (header.sample_rate_hz <= HIGHEST_RATE_HZ)
    rate = tf.maximum(header.sample_rate_hz, 1)
    enough = tf.cast(header.num_samples, tf.float32) >= SHORTEST_PART_S * tf.cast(rate, tf.float32)
    whole_seconds = -(-header.num_samples // rate)
    rules = (
        (riff, "must be a WAV file", tf.cond(riff, lambda: "", lambda: _kind_of(content))),
        (header.format_size >= SHORT_FORMAT, "must describe its format before its data", "no format chunk"),
        (
            header.coding < len(CODINGS),
            "must be PCM of 8 to 32 bits, float of 32 or 64, A-law or µ-law of 8",
            _text(header.bits, " bit", coding),
        ),
        (header.channels > 0, "must have a channel", "none"),
        (
            in_range,
            f"must have a rate of {LOWEST_RATE_HZ} to {HIGHEST_RATE_HZ} Hz",
            _text(header.sample_rate_hz, " Hz"),
        ),
        (header.data_at > 0, "must hold a data chunk", "none"),
        (
            (header.data_size <= header.present) | enough,
            "must hold all the data that it announces",
            _text(header.present, " of ", header.data_size, " bytes"),
        ),
        (header.num_samples > 0, "must hold at least one sample", "none"),
        (
            middle | (whole_seconds <= LONGEST_S),
            f"must last up to {LONGEST_S} seconds",
            _text(whole_seconds, " seconds"),
        ),
    )
    reason = tf.constant("")
    for kept, rule, found in reversed(rules):
        reason = tf.where(kept, reason, tf.strings.join([rule, ". Found: ", found]))
    return reason


def _kind_of(content: Any) -> tf.Tensor:
    """What a file is that is no WAV file, string (), by its first bytes."""
    places, starts, names = zip(*KINDS, strict=True)
    head = tf.fill([len(KINDS)], _bytes_at(content, 0, 16))
    alike = tf.strings.substr(head, places, [len(start) for start in starts]) == tf.constant(starts)
    return tf.constant(("no RIFF/WAVE header", *names))[tf.argmax(tf.concat([[~tf.reduce_any(alike)], alike], axis=0))]


def _find_chunks(content: Any, file_size: Any) -> tuple[Any, Any, Any, Any]:
    """Start and size of the format chunk's and of the data chunk's body; the walk ends at the data."""
    zero = tf.zeros((), tf.int64)

    def unfinished(at: Any, count: Any, format_at: Any, format_size: Any, data_at: Any, data_size: Any) -> Any:
        return (at + 8 <= file_size) & (count < MAX_CHUNKS) & (data_at == 0)

    def step(at: Any, count: Any, format_at: Any, format_size: Any, data_at: Any, data_size: Any) -> Any:
        name, body = _bytes_at(content, at, 4), at + 8
        size = _number_at(content, at + 4)
        follows = tf.strings.regex_full_match(_bytes_at(content, body + size, 4), CHUNK)
        padding = tf.where(follows, zero, tf.math.floormod(size, 2))
        is_format, is_data = (name == b"fmt ") & (format_at == 0), name == b"data"
        return (
            body + size + padding,  # A body of odd size is to be padded, but not every program does.
            count + 1,
            tf.where(is_format, body, format_at),
            tf.where(is_format, size, format_size),
            tf.where(is_data, body, data_at),
            tf.where(is_data, size, data_size),
        )

    start = (zero + 12, zero, zero, zero, zero, zero)
    _, _, *found_format, data_at, data_size = tf.while_loop(unfinished, step, start)
    # Without a size: the file's own says that nothing follows, but something does.
    large = (_number_at(content, zero) != RIFF) & (_bytes_at(content, 12, 4) == b"ds64")
    size_64 = _number_at(content, zero + 28) + 2**32 * tf.minimum(_number_at(content, zero + 32), 2**20)
    data_size = tf.where(large & (data_size == 2**32 - 1), size_64, data_size)
    unknown = (data_size >= STREAMED) | ((data_size == 0) & (_number_at(content, zero + 4) <= data_at - 8))
    data_size = tf.where((data_at > 0) & unknown, tf.maximum(file_size - data_at, 0), data_size)
    return *found_format, data_at, data_size


def cut(contents: Any, recipe: SoundRecipe) -> tuple[tf.Tensor, tf.Tensor]:
    """The windows of WAV files, as `files.windows` has them; memory holds each file twice at most.

    Args:
        contents: string (batch,), each a file.
        recipe: its `seconds` are those of a window.

    Returns:
        string (windows,), those of one file after those of another; a file that breaks a rule is its only one.
        int32 (batch,), how many each file has, 1 to `MOST_WINDOWS`.
    """

    def row(content: Any) -> tuple[tf.Tensor, tf.Tensor]:
        header = read_header(content)
        fine = reason_against(header, content, middle=True) == b""
        length, spare = window_samples(recipe, header.sample_rate_hz)
        more = header.num_samples - length
        count = tf.minimum(1 - (-more // tf.maximum(length // 2, 1)), MOST_WINDOWS)
        count = tf.where(fine & (more > spare), count, 1)
        pieces = tf.cond(count > 1, lambda: _pieces(content, header, length, count), lambda: content[None])
        return tf.pad(pieces, [[0, MOST_WINDOWS - tf.size(pieces)]], constant_values=""), tf.cast(count, tf.int32)

    signature = tf.TensorSpec((MOST_WINDOWS,), tf.string), tf.TensorSpec((), tf.int32)
    row = tf.autograph.experimental.do_not_convert(row)
    pieces, counts = tf.map_fn(row, contents, fn_output_signature=signature)
    return tf.boolean_mask(pieces, tf.sequence_mask(counts, MOST_WINDOWS)), counts


def _pieces(content: Any, header: Header, length: Any, count: Any) -> tf.Tensor:
    """A file's windows, string (count,), each with a head of its own."""
    format_at, *_ = _find_chunks(content, header.file_size)
    extended = (_bytes_at(content, format_at, 2) == EXTENSIBLE.to_bytes(2, "little")) & (
        header.format_size >= EXTENDED_FORMAT
    )
    kept = tf.where(extended, np.int64(EXTENDED_FORMAT), np.int64(SHORT_FORMAT))
    size = tf.where(extended, EXTENDED_FORMAT.to_bytes(4, "little"), SHORT_FORMAT.to_bytes(4, "little"))
    head = tf.strings.join([WINDOW_HEAD, size, tf.strings.substr(content, format_at, kept), WINDOW_DATA])
    start = tf.range(count) * (header.num_samples - length) // (count - 1)
    sample = header.channels * header.sample_bytes
    data = tf.strings.substr(
        tf.fill([count], content), header.data_at + start * sample, tf.fill([count], length * sample)
    )
    return tf.strings.join([tf.fill([count], head), data])


def _number_at(content: Any, at: Any) -> tf.Tensor:
    """The four bytes there as a number, int64 ()."""
    low, high = tf.unstack(tf.cast(tf.io.decode_raw(_bytes_at(content, at, 4), tf.uint16), tf.int64), 2)
    return low + 65536 * high


def _bytes_at(content: Any, at: Any, count: int) -> tf.Tensor:
    """So many bytes from a place in the file; zeros beyond its end."""
    at = tf.minimum(tf.cast(at, tf.int64), tf.cast(tf.strings.length(content), tf.int64))
    found = tf.strings.substr(content, at, tf.constant(count, tf.int64))
    return tf.strings.substr(tf.strings.join([found, b"\0" * count]), 0, count)


def _text(*parts: Any) -> tf.Tensor:
    """One string of strings and whole numbers."""
    tensors = [tf.convert_to_tensor(part) for part in parts]
    return tf.strings.join([part if part.dtype == tf.string else tf.strings.as_string(part) for part in tensors])
