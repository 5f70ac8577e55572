"""Sound files of any format -> WAV files that the exported graph reads; WAV files made from features, or by hand.

No TensorFlow here, so that clients can use it.

A WAV file that the graph reads passes through unchanged. Everything else is decoded by libsndfile (FLAC, Ogg Vorbis,
Opus, MP3, AIFF, CAF, AU, W64, RIFX, WAV with ADPCM or GSM) or by PyAV (M4A, AAC, WebM, the sound of a video, 3GP, AMR,
WMA; the extra `media`), and written as a WAV of the same samples at the same rate: whole numbers of 16, 24 or 32 bits
or floats, as the source has them.

Runs keep features, not recordings. To warm up and to prove what reads files, a sound is made anew from its features:
noise, whose spectrum in each frame is what the features say. It is no voice, but it has what a network listens to.
"""

import io
import wave
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.fft import idct

from kfusion.modalities.audio.recipe import BREAK_HZ, SPOKEN_DIGITS, SoundRecipe, window_samples, window_starts
from kfusion.modalities.base import UNKNOWN, text_or_unknown
from kfusion.spec import ModalitySpec, Window
from kfusion.validation import UserError

LOWEST_RATE_HZ, HIGHEST_RATE_HZ = 4000, 192_000
LONGEST_S = 60
MOST_READ_S = 600
"""Of a file that is longer, the middle of it; of a WAV, all."""
STREAMED = 0x7FFFF000
"""Sizes from here on are written where the size is not yet known."""
NUM_HEADERS = 200
"""Files that are asked for their length."""
SHORTEST_PART_S = 0.1
"""What must be there of a sound whose last bytes are missing."""
PCM, FLOAT, A_LAW, MU_LAW, EXTENSIBLE = 1, 3, 6, 7, 0xFFFE
"""Format tags; with the last one, the tag proper stands in the format chunk's extension."""
CODINGS = ((PCM, 1), (PCM, 2), (PCM, 3), (PCM, 4), (FLOAT, 4), (FLOAT, 8), (A_LAW, 1), (MU_LAW, 1))
"""Format tag and bytes of a sample of what the graph reads."""
SHORT_FORMAT, EXTENDED_FORMAT = 16, 40
"""Bytes of a format chunk, without and with that extension."""
KINDS = (
    (0, b"fLaC", "a FLAC file"),
    (0, b"OggS", "an Ogg file"),
    (0, b"ID3", "an MP3 file"),
    *((0, b"\xff" + bytes([low]), "an MP3 file") for low in (0xE2, 0xE3, 0xF2, 0xF3, 0xFA, 0xFB)),
    *((0, b"\xff" + bytes([low]), "an AAC file") for low in (0xF0, 0xF1, 0xF8, 0xF9)),
    (4, b"ftypM4A", "an M4A file"),
    (4, b"ftyp3g", "a 3GP file"),
    (4, b"ftyphe", "a HEIC picture"),
    (4, b"ftypmif1", "a HEIC picture"),
    (4, b"ftypavif", "an AVIF picture"),
    (4, b"ftyp", "an MP4 file"),
    (0, b"\x1a\x45\xdf\xa3", "a WebM or Matroska file"),
    (8, b"AIFF", "an AIFF file"),
    (8, b"AIFC", "an AIFF file"),
    (0, b"RIFX", "a RIFX file, whose numbers stand the other way round"),
    (8, b"WEBP", "a WebP picture"),
    (8, b"AVI ", "an AVI film"),
    (0, b"#!AMR", "an AMR file"),
    (0, b"caff", "a CAF file"),
    (0, b".snd", "an AU file"),
    (0, b"\x30\x26\xb2\x75", "a WMA file"),
    (0, b"riff\x2e\x91\xcf\x11", "a W64 file"),
    (0, b"NIST_1A", "a NIST file"),
    (0, b"Creative Voice File", "a VOC file"),
    (8, b"8SVX", "an SVX file"),
    (0, b"\x89PNG", "a PNG picture"),
    (0, b"\xff\xd8\xff", "a JPEG picture"),
    (0, b"GIF8", "a GIF picture"),
    (0, b"%PDF", "a PDF file"),
    (0, b"PK\x03\x04", "a ZIP archive"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"\x93NUMPY", "a NumPy array"),
)
"""Offset, bytes there, and what such a file is; the first that fits counts."""

_BY_AV = ("AAC", "M4A", "3GP", "MP4", "WebM", "AVI", "AMR", "WMA")
"""What libsndfile does not read, or takes for something else."""
_NO_SOUND = ("picture", "archive", "array", "PDF")
_WRITTEN = {
    **{f"PCM_{bits}": f"PCM_{bits}" for bits in (16, 24, 32)},
    **{f"ALAC_{bits}": f"PCM_{max(bits, 16) if bits != 20 else 24}" for bits in (16, 20, 24, 32)},
    **dict.fromkeys(("FLOAT", "VORBIS", "OPUS", "MPEG_LAYER_I", "MPEG_LAYER_II", "MPEG_LAYER_III"), "FLOAT"),
    "DOUBLE": "DOUBLE",
}
"""By libsndfile's name of a coding, the one in which its samples are written exactly; the others fit into 16 bits."""


def standard_sound(content: bytes) -> bytes:
    """A sound file that the graph reads; a WAV of the same samples, where it is another one.

    Args:
        content: a whole file of any format.

    Raises:
        UserError: the rule that the file breaks, and what was found; without the file's name.
    """
    if _is_plain_wav(content):
        return content
    kind = next((name for place, start, name in KINDS if content[place : place + len(start)] == start), "")
    if not any(word in kind for word in _BY_AV):
        import soundfile

        try:
            with soundfile.SoundFile(io.BytesIO(content)) as file:
                return _rewritten(file)
        except soundfile.LibsndfileError:
            pass  # PyAV may know it.
    if content[:4] in (b"RIFF", b"RF64", b"BW64") and content[8:12] == b"WAVE":
        return content  # The graph says what is wrong with it.
    if not kind or any(word in kind for word in _NO_SOUND):
        raise UserError(f"must be a sound. Found: {kind or text_or_unknown(content)}")
    return _by_av(content, kind)


def fault(head: bytes, size: int) -> str:
    """Why a sound file cannot be read, as far as its first bytes tell; "" where nothing speaks against it.

    Args:
        head: the file's first bytes; all of them, where it is not long.
        size: of the file.
    """
    if head[:4] in (b"RIFF", b"RF64", b"BW64") and head[8:12] == b"WAVE":
        names = [name for name, _, _ in _chunks(head)]
        if b"fmt " not in names and (b"data" in names or len(head) == size):
            return "must describe its format before its data. Found: no format chunk"
        return "must hold a data chunk. Found: none" if b"data" not in names and len(head) == size else ""
    kind = next((name for place, start, name in KINDS if head[place : place + len(start)] == start), "")
    if not kind:
        found = text_or_unknown(head)
        if found == UNKNOWN and len(head) == size:  # libsndfile knows more beginnings than these.
            try:
                standard_sound(head)
            except UserError as error:
                return str(error)
        return "" if found == UNKNOWN else f"must be a sound. Found: {found}"
    return f"must be a sound. Found: {kind}" if any(word in kind for word in _NO_SOUND) else ""


def lengths(paths: Sequence[Path]) -> list[tuple[float, int]]:
    """Seconds and rate of sounds, as their headers say; of many, some that lie evenly among them.

    Args:
        paths: of sound files; what cannot be read is left out.
    """
    found = []
    for path in paths[:: -(-len(paths) // NUM_HEADERS) or 1]:
        try:
            found.append(_length(path))
        except (UserError, OSError):
            continue
    return found


def _length(path: Path) -> tuple[float, int]:
    import soundfile

    try:
        about = soundfile.info(path)
    except soundfile.LibsndfileError:
        about = soundfile.info(io.BytesIO(standard_sound(path.read_bytes())))
    return min(about.frames / about.samplerate, float(MOST_READ_S)), about.samplerate


def windows(content: bytes, recipe: SoundRecipe, count: int = 0) -> list[Window]:
    """The windows of a recording, each a WAV file of its own; of one that is not longer than a window, itself.

    `decoding.cut` does the same in the exported graph.

    Args:
        content: a WAV file that the graph reads; of any other, it is the only window.
        recipe: its `seconds` are those of a window.
        count: as of `recipe.window_starts`.
    """
    place, size, known = 0, 0, b""
    for name, place, size in _chunks(content):
        known = content[place : place + size] if name == b"fmt " else known
    words = [int.from_bytes(known[at : at + 2], "little") for at in range(0, 16, 2)]
    channels, rate_hz, sample_bytes = words[1], words[2] + 65536 * words[3], words[1] * ((words[7] + 7) // 8)
    if not (content[12:] and channels and rate_hz and sample_bytes) or content[place - 8 : place - 4] != b"data":
        return [Window(0.0, 0.0, content)]
    if size >= STREAMED or (size == 0 and int.from_bytes(content[4:8], "little") <= place - 8):
        size = len(content) - place
    num = min(size, len(content) - place) // sample_bytes
    length, spare = window_samples(recipe, rate_hz)
    starts = window_starts(num, length, spare, count)
    if len(starts) == 1 and num <= length + spare:
        return [Window(0.0, num / rate_hz, content)]
    form = known[: EXTENDED_FORMAT if words[0] == EXTENSIBLE and len(known) >= EXTENDED_FORMAT else SHORT_FORMAT]
    head = WINDOW_HEAD + len(form).to_bytes(4, "little") + form + WINDOW_DATA
    first = [place + start * sample_bytes for start in starts]
    pieces = [head + content[at : at + length * sample_bytes] for at in first]
    return [
        Window(start / rate_hz, (start + length) / rate_hz, piece) for start, piece in zip(starts, pieces, strict=True)
    ]


WINDOW_HEAD, WINDOW_DATA = b"RIFF\xff\xff\xff\xffWAVEfmt ", b"data\xff\xff\xff\xff"
"""Before the format and before the samples of a window, which reach to the end of the file."""


def window_files(content: bytes, num: int, seed: int, recipe: SoundRecipe) -> list[bytes]:
    """So many windows of a longer recording, evenly over it, as files; else as many empty ones.

    Args:
        content: as of `windows`.
        num: how many.
        seed: nothing is random.
        recipe: as of `windows`.
    """
    cut = windows(content, recipe, num)
    return [window.content for window in cut] if cut[0].content != content else [b""] * num


def is_longer(path: Path, recipe: SoundRecipe) -> bool:
    """Whether a file has windows; one whose header cannot be read has none.

    Args:
        path: of a sound file.
        recipe: as of `windows`.
    """
    found = lengths([path])
    return bool(found) and found[0][0] > recipe.seconds + recipe.window_ms / 1000


def _chunks(wav: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Name, place and size of each chunk's body, up to the data."""
    place = 12
    while place + 8 <= len(wav):
        name, size = wav[place : place + 4], int.from_bytes(wav[place + 4 : place + 8], "little")
        yield name, place + 8, size
        if name == b"data":
            return
        place += 8 + size
        # A body of odd size is to be padded, but not every program does.
        place += size % 2 if wav[place : place + 1] == b"\0" else 0


def _is_plain_wav(content: bytes) -> bool:
    """Whether a file is a WAV of a coding that the graph reads."""
    if content[:4] not in (b"RIFF", b"RF64", b"BW64") or content[8:12] != b"WAVE":
        return False
    for name, place, size in _chunks(content):
        if name == b"fmt ":
            words = [int.from_bytes(content[at : at + 2], "little") for at in range(place, place + 26, 2)]
            tag = words[12] if words[0] == EXTENSIBLE and size >= EXTENDED_FORMAT else words[0]
            return (tag, (words[7] + 7) // 8) in CODINGS
    return False


def _rewritten(file: Any) -> bytes:
    """What libsndfile reads, as a WAV; of more than ten minutes, the middle ten."""
    most = MOST_READ_S * file.samplerate
    if most < file.frames < 2**40:  # A stream does not know.
        file.seek((file.frames - most) // 2)
    subtype = _WRITTEN.get(file.subtype, "PCM_16")
    form = {"FLOAT": "float32", "DOUBLE": "float64"}.get(subtype, "int32")
    values = file.read(most, dtype=form, always_2d=True)
    return _wav(values, file.samplerate, subtype)


def _wav(values: Any, rate_hz: int, subtype: str) -> bytes:
    import soundfile

    written = io.BytesIO()
    soundfile.write(written, values, rate_hz, subtype, format="WAV")
    return written.getvalue()


def _by_av(content: bytes, kind: str) -> bytes:
    """What ffmpeg's libraries decode, as a WAV; of more than ten minutes, the middle ten."""
    broken = UserError(f"must be an undamaged sound. Found: {kind} that cannot be decoded")
    try:
        import av
        from av.error import FFmpegError
    except ImportError:
        if not any(word in kind for word in _BY_AV):
            raise broken from None
        rule = f"{kind} needs the extra: pip install 'kfusion[media]' (from a checkout: pip install '.[media]')"
        raise UserError(f"{rule}. Found: no package av") from None
    pieces: list[Any] = []
    num, rate_hz = 0, 1
    try:
        with av.open(io.BytesIO(content), "r") as container:
            if not container.streams.audio:
                raise UserError(f"must hold a sound. Found: {kind} without one")
            rate_hz = container.streams.audio[0].rate
            before_s = ((container.duration or 0) / 1e6 - MOST_READ_S) / 2
            for frame in container.decode(audio=0):
                if (frame.time or 0.0) < before_s:
                    continue
                values = frame.to_ndarray()
                channels = len(frame.layout.channels)
                pieces.append(values.T if frame.format.is_planar else values.reshape(-1, channels))
                num += len(pieces[-1])
                if num >= MOST_READ_S * rate_hz:
                    break
    except FFmpegError:
        # What was decoded of a file whose last bytes are missing is used if it lasts long enough.
        if num < SHORTEST_PART_S * rate_hz:
            raise broken from None
    if not pieces:
        raise broken
    values = np.concatenate(pieces)
    if values.dtype == np.uint8:
        values = (values.astype(np.int16) - 128) << 8
    subtypes = {"int16": "PCM_16", "int32": "PCM_32", "float64": "DOUBLE"}
    return _wav(values, rate_hz, subtypes.get(values.dtype.name, "FLOAT"))


LOUDEST_BAND_DB = 60.0
LOWEST_PEAK = 0.1
"""Of full scale: what is fainter is made as loud, since noise may be too faint to be heard where a word is not."""


def sound_file(features: np.ndarray, spec: ModalitySpec, seed: int = 0, recipe: SoundRecipe = SPOKEN_DIGITS) -> bytes:
    """A WAV file, 16 bit, mono, at the recipe's rate, one hop of time for each frame of the features.

    Args:
        features: float32 (num_values,), MFCC or decibels of bands, as the recipe has them.
        spec: their grid.
        seed: of the noise.
        recipe: by which they were made.
    """
    frames, coefficients = spec.grid
    num_bands, window, hop = recipe.num_mel_bands, recipe.window, recipe.hop
    grid = np.zeros((frames, num_bands))
    grid[:, :coefficients] = features.reshape(frames, coefficients)
    levels_db = grid if recipe.values == "log-mel" else idct(grid, type=2, norm="ortho", axis=1)
    bands = np.clip(levels_db, recipe.lowest_db, LOUDEST_BAND_DB)
    hertz = np.fft.rfftfreq(window, 1 / recipe.sample_rate_hz)
    # Evenly spaced on the HTK mel scale, so a bin's band is its own place on that scale.
    mel = np.log10(1 + hertz / BREAK_HZ) / np.log10(1 + hertz[-1] / BREAK_HZ) * (num_bands - 1)
    power = np.stack([np.interp(mel, np.arange(num_bands), 10 ** (row / 10)) for row in bands])
    phase = np.random.default_rng(seed).uniform(0, 2 * np.pi, power.shape)
    pieces = np.fft.irfft(np.sqrt(power) * np.exp(1j * phase), window, axis=1) * np.hanning(window)
    samples = np.zeros(hop * (frames - 1) + window)
    for frame, piece in enumerate(pieces):
        samples[frame * hop : frame * hop + window] += piece
    samples *= max(1.0, LOWEST_PEAK / max(float(np.abs(samples).max()), 1e-12))
    content = np.round(np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()
    return wav_file(content, sample_rate_hz=recipe.sample_rate_hz)


def wav_file(
    data: bytes, sample_bytes: int = 2, num_channels: int = 1, sample_rate_hz: int = SPOKEN_DIGITS.sample_rate_hz
) -> bytes:
    """A WAV file around samples.

    Args:
        data: the samples, the channels' values of one moment side by side.
        sample_bytes: of one value.
        num_channels: values of one moment.
        sample_rate_hz: moments a second.
    """
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(num_channels)
        file.setsampwidth(sample_bytes)
        file.setframerate(sample_rate_hz)
        file.writeframes(data)
    return buffer.getvalue()
