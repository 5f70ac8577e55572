"""One picture and one sound, written in each of some 90 ways, for the test that all of them give the same answer."""

import io
import itertools
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
import soundfile
from PIL import Image
from scipy.signal import resample_poly

from tests.media import any_png, encoded

DAMAGED, LOSSY, EXACT = "damaged", "lossy", "exact"
Way = tuple[str, str, bytes, bool]
"""Name, how much of the picture or sound is kept, the file, and whether the exported graph reads it by itself."""


def picture_ways(grey: np.ndarray) -> Iterator[Way]:
    """The ways to write a picture.

    Args:
        grey: uint8 (height, width), of two dimensions that differ, dark on bright, at least 100 pixels a side.
    """
    image = Image.fromarray(grey)
    colour, opaque = image.convert("RGB"), image.convert("RGBA")
    two = Image.fromarray(np.where(grey > 127, 255, 0).astype(np.uint8))
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA"):
        source = two if mode == "1" else image
        yield f"PNG {mode}", LOSSY if mode == "1" else EXACT, saved(source.convert(mode), "PNG"), True
    yield "PNG 16 bit", EXACT, encoded(grey.astype(np.uint16) * 257), True
    yield "PNG interlaced", EXACT, any_png(grey, interlaced=True), True
    for depth in (1, 2, 4):
        yield f"PNG {depth} bit", LOSSY, any_png(grey >> (8 - depth), depth), True
    rgb = np.repeat(grey[..., None], 3, axis=-1)
    wide = rgb.astype(np.uint16) * 257
    yield "PNG colour of 16 bit", EXACT, any_png(wide, 16, 2), True
    yield "PNG 16 bit with opacity", EXACT, any_png(np.dstack([wide, np.full_like(wide[..., :1], 65535)]), 16, 6), True
    yield "PNG with a transparent colour", EXACT, any_png(rgb, 8, 2, before=((b"tRNS", b"\0\1\0\2\0\3"),)), True
    yield (
        "PNG with gamma and text",
        EXACT,
        any_png(rgb, 8, 2, before=((b"gAMA", b"\0\0\xb1\x8f"), (b"tEXt", b"a\0b"))),
        True,
    )
    yield "PNG with more behind", EXACT, saved(image, "PNG") + b"film" * 999, True
    yield "PNG animated", EXACT, saved(colour, "PNG", save_all=True, append_images=[colour.rotate(180)]), True
    alpha = Image.merge("LA", (Image.new("L", image.size, 0), Image.fromarray(255 - grey)))
    yield "PNG with ink as opacity", EXACT, saved(alpha, "PNG"), True
    for quality, subsampling in itertools.product((75, 95), (0, 2)):
        way = f"JPEG {quality} {subsampling}"
        yield way, LOSSY, saved(colour, "JPEG", quality=quality, subsampling=subsampling), True
    yield "JPEG grey", LOSSY, saved(image, "JPEG", quality=90), True
    yield "JPEG progressive", LOSSY, saved(colour, "JPEG", quality=90, progressive=True), True
    yield "JPEG 4:2:2", LOSSY, saved(colour, "JPEG", quality=90, subsampling=1), True
    yield "JPEG RGB", LOSSY, saved(colour, "JPEG", quality=90, keep_rgb=True), True
    yield "JPEG with restarts", LOSSY, saved(colour, "JPEG", quality=90, restart_marker_rows=1), True
    yield "JPEG grey progressive", LOSSY, saved(image, "JPEG", quality=90, progressive=True, optimize=True), True
    yield "JPEG with more behind", LOSSY, saved(colour, "JPEG", quality=90) + b"film" * 999, True
    yield "JPEG CMYK", LOSSY, saved(colour.convert("CMYK"), "JPEG", quality=95), True
    for turn, back in ((3, 180), (6, 90), (8, 270)):
        exif = Image.Exif()
        exif[0x0112] = turn
        for kind, options in (("JPEG", {"quality": 95}), ("WEBP", {"lossless": True}), ("PNG", {})):
            level = LOSSY if kind == "JPEG" else EXACT
            yield (
                f"{kind} turned {back}",
                level,
                saved(colour.rotate(back, expand=True), kind, exif=exif, **options),
                True,
            )
    flips = Image.Transpose
    for turn, back in (
        (2, flips.FLIP_LEFT_RIGHT),
        (4, flips.FLIP_TOP_BOTTOM),
        (5, flips.TRANSPOSE),
        (7, flips.TRANSVERSE),
    ):
        exif = Image.Exif()
        exif[0x0112] = turn
        yield f"JPEG mirrored {turn}", LOSSY, saved(colour.transpose(back), "JPEG", quality=95, exif=exif), True
        yield f"TIFF mirrored {turn}", EXACT, saved(colour.transpose(back), "TIFF", exif=exif), False
    yield "GIF", EXACT, saved(image, "GIF"), True
    yield "GIF animated", EXACT, saved(image, "GIF", save_all=True, append_images=[image.rotate(180)]), True
    yield "GIF interlaced", EXACT, saved(image, "GIF", interlace=1), True
    clear = Image.fromarray((grey > 127).astype(np.uint8), "P")
    clear.putpalette([0, 0, 0, 0, 0, 0])
    yield "GIF transparent", LOSSY, saved(clear, "GIF", transparency=1), True
    for mode in ("1", "L", "P", "RGB"):
        yield (
            f"BMP {mode}",
            LOSSY if mode == "1" else EXACT,
            saved(two if mode == "1" else image.convert(mode), "BMP"),
            True,
        )
    yield "BMP 4 bit", LOSSY, four_bits(grey), True
    yield "BMP RGBA", EXACT, saved(opaque, "BMP"), True
    yield "BMP 16 bit", LOSSY, sixteen_bits(grey), False
    yield "DIB", EXACT, saved(colour, "DIB"), False
    yield "BMP from the top", EXACT, upside_down(saved(colour, "BMP")), True
    for mode in ("RGB", "RGBA"):
        yield f"WebP lossless {mode}", EXACT, saved(opaque.convert(mode), "WEBP", lossless=True), True
    yield "WebP", LOSSY, saved(colour, "WEBP", quality=90), True
    yield "WebP animated", EXACT, saved(colour, "WEBP", save_all=True, append_images=[colour] * 2, lossless=True), True
    for compression in (None, "tiff_lzw", "tiff_adobe_deflate", "packbits"):
        yield f"TIFF {compression}", EXACT, saved(colour, "TIFF", compression=compression), False
    yield "TIFF of two pages", EXACT, saved(colour, "TIFF", save_all=True, append_images=[colour.rotate(180)]), False
    yield "TIFF with opacity", EXACT, saved(opaque, "TIFF"), False
    yield "TIFF palette", EXACT, saved(image.convert("P"), "TIFF"), False
    yield "TIFF of 32 bits", EXACT, saved(Image.fromarray(grey.astype(np.int32) * 257), "TIFF"), False
    yield "BigTIFF", EXACT, saved(colour, "TIFF", big_tiff=True), False
    yield "TIFF 16 bit", EXACT, saved(Image.fromarray(grey.astype(np.uint16) * 257), "TIFF"), False
    yield "TIFF float", EXACT, saved(Image.fromarray(grey.astype(np.float32) / 255), "TIFF"), False
    yield "TIFF CMYK", EXACT, saved(colour.convert("CMYK"), "TIFF"), False
    yield "TIFF fax", LOSSY, saved(two.convert("1"), "TIFF", compression="group4"), False
    yield "TIFF JPEG", LOSSY, saved(colour, "TIFF", compression="jpeg", quality=95), False
    yield "PGM", EXACT, saved(image, "PPM"), False
    yield "PPM", EXACT, saved(colour, "PPM"), False
    yield "PBM", LOSSY, saved(two.convert("1"), "PPM"), False
    yield "PGM 16 bit", EXACT, saved(Image.fromarray(grey.astype(np.uint16) * 257), "PPM"), False
    yield "TGA", EXACT, saved(colour, "TGA"), False
    yield "PCX", EXACT, saved(colour, "PCX"), False
    yield "ICO", EXACT, saved(colour, "ICO", sizes=[image.size]), False
    yield "SGI", EXACT, saved(colour, "SGI"), False
    yield "XBM", LOSSY, saved(two.convert("1"), "XBM"), False
    yield "QOI", EXACT, saved(colour, "QOI"), False
    yield "JPEG 2000", EXACT, saved(colour, "JPEG2000"), False
    yield "AVIF", LOSSY, saved(colour, "AVIF", quality=90), False
    try:
        import pillow_heif
    except ImportError:
        return
    for name, source in (("", colour), (" grey", image), (" with opacity", opaque)):
        written = io.BytesIO()
        pillow_heif.from_pillow(source).save(written, quality=90)
        yield f"HEIC{name}", LOSSY, written.getvalue(), False
    exif[0x0112] = 6
    written = io.BytesIO()
    pillow_heif.from_pillow(colour.rotate(90, expand=True)).save(written, quality=90, exif=exif.tobytes())
    yield "HEIC turned", LOSSY, written.getvalue(), False


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    written = io.BytesIO()
    image.save(written, kind, **options)  # type: ignore[arg-type]
    return written.getvalue()


def four_bits(grey: np.ndarray) -> bytes:
    """A BMP of 16 greys, from the bottom row up."""
    height, width = grey.shape
    index = grey[::-1] // 16
    index = np.pad(index, ((0, 0), (0, -width % 8)))
    data = (index[:, ::2] * 16 + index[:, 1::2]).astype(np.uint8).tobytes()
    palette = b"".join(bytes([17 * level] * 3 + [0]) for level in range(16))
    start = 54 + len(palette)
    head = struct.pack("<2sIII", b"BM", start + len(data), 0, start)
    return head + struct.pack("<IiiHHIIiiII", 40, width, height, 1, 4, 0, len(data), 0, 0, 16, 16) + palette + data


def sixteen_bits(grey: np.ndarray) -> bytes:
    """A BMP of 5, 6 and 5 bits for red, green and blue."""
    height, width = grey.shape
    wide = grey[::-1].astype(np.uint16)
    data = ((wide >> 3 << 11) | (wide >> 2 << 5) | (wide >> 3)).astype("<u2")
    data = np.pad(data, ((0, 0), (0, width % 2))).tobytes()
    head = struct.pack("<2sIII", b"BM", 66 + len(data), 0, 66)
    masks = struct.pack("<III", 0xF800, 0x07E0, 0x001F)
    return head + struct.pack("<IiiHHIIiiII", 40, width, height, 1, 16, 3, len(data), 0, 0, 0, 0) + masks + data


def upside_down(bmp: bytes) -> bytes:
    """The same picture, whose first row is the top one."""
    (height,) = struct.unpack("<i", bmp[22:26])
    rows = np.frombuffer(bmp[54:], np.uint8).reshape(height, -1)[::-1]
    return bmp[:22] + struct.pack("<i", -height) + bmp[26:54] + rows.tobytes()


SUBTYPES = ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ALAW", "ULAW")
_NOISY = ("PCM_U8", "ALAW", "ULAW", "PCM_S8")


def sound_ways(samples: np.ndarray, rate_hz: int) -> Iterator[Way]:
    """The ways to write a sound.

    Args:
        samples: float32 (n,), in [-1, 1).
        rate_hz: samples a second, one that Opus has.
    """

    def written(form: str, subtype: str, values: np.ndarray = samples, rate: int = rate_hz, **options: str) -> bytes:
        file = io.BytesIO()
        soundfile.write(file, values, rate, subtype, format=form, **options)
        return file.getvalue()

    for subtype, form in itertools.product(SUBTYPES, ("WAV", "WAVEX")):
        yield f"{form} {subtype}", LOSSY if subtype in _NOISY else EXACT, written(form, subtype), True
    for channels in (2, 3, 6):
        yield f"WAV {channels} channels", EXACT, written("WAV", "PCM_24", np.tile(samples[:, None], channels)), True
    silent = np.zeros_like(samples)
    for name, pair in (("one silent", [samples * 0.999, silent]), ("opposite", [samples, -samples])):
        yield f"WAV of two channels, {name}", LOSSY, written("WAV", "FLOAT", np.stack(pair, axis=1)), True
    for rate in (8000, 11025, 22050, 44100, 48000, 96000, 192000):
        level, values = LOSSY, resample_poly(samples, rate, rate_hz).astype(np.float32)
        yield f"WAV {rate} Hz", level, written("WAV", "PCM_16", values, rate), True
    plain = written("WAV", "PCM_16")
    for name, riff, data in (("0", 0, 0), ("ffffffff", 2**32 - 1, 2**32 - 1), ("wrong", 77, len(plain) - 44)):
        lying = plain[:4] + struct.pack("<I", riff) + plain[8:40] + struct.pack("<I", data) + plain[44:]
        yield f"WAV size {name}", EXACT, lying, True
    yield "WAV odd chunk", EXACT, plain[:12] + b"LIST\3\0\0\0abc" + plain[12:], True
    yield "WAV with chunks before", EXACT, plain[:12] + b"JUNK\4\0\0\0abcdbext\2\0\0\0xy" + plain[12:], True
    yield "WAV with chunks behind", EXACT, plain + b"LIST\4\0\0\0INFOid3 \2\0\0\0xy", True
    yield "RF64", EXACT, written("RF64", "PCM_16"), True
    yield "WAV without its last bytes", LOSSY, plain[:-101], True
    for subtype in ("IMA_ADPCM", "MS_ADPCM"):
        yield f"WAV {subtype}", LOSSY, written("WAV", subtype), False
    yield "WAV GSM610", LOSSY, written("WAV", "GSM610", resample_poly(samples, 8000, rate_hz), 8000), False
    yield "RIFX", EXACT, written("WAV", "PCM_16", endian="BIG"), False
    for subtype in ("PCM_S8", "PCM_16", "PCM_24"):
        yield f"FLAC {subtype}", LOSSY if subtype in _NOISY else EXACT, written("FLAC", subtype), False
    yield "AIFF with its low byte first", EXACT, written("AIFF", "PCM_16", endian="LITTLE"), False
    pair = np.tile(samples[:, None], 2)
    for form, subtype in (("FLAC", "PCM_16"), ("MP3", "MPEG_LAYER_III"), ("OGG", "VORBIS"), ("OGG", "OPUS")):
        level, whole = LOSSY if subtype != "PCM_16" else EXACT, written(form, subtype, pair)
        yield f"{form} {subtype} of two channels", level, whole, False
        if subtype != "VORBIS":  # Of one page, of which nothing is left.
            yield f"{form} {subtype} without its end", DAMAGED, whole[: len(whole) * 19 // 20], False
    tagged = b"ID3\3\0\0\0\0\2\0" + b"\0" * 256 + written("MP3", "MPEG_LAYER_III")
    yield "MP3 with a tag", LOSSY, tagged, False
    for form, subtypes in (
        ("AIFF", ("PCM_S8", "PCM_16", "PCM_24", "FLOAT")),
        ("CAF", ("PCM_16", "PCM_32", "ALAC_16", "ALAC_24")),
        ("AU", ("PCM_16", "FLOAT", "ULAW")),
        ("W64", ("PCM_16",)),
        ("NIST", ("PCM_16",)),
        ("SVX", ("PCM_16",)),
        ("VOC", ("PCM_16",)),
    ):
        for subtype in subtypes:
            yield f"{form} {subtype}", LOSSY if subtype in _NOISY else EXACT, written(form, subtype), False
    for form, subtype in (("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III")):
        yield f"{form} {subtype}", LOSSY, written(form, subtype), False
    try:
        import av  # noqa: F401
    except ImportError:
        return
    for container, codec in (
        ("mp4", "aac"),
        ("ipod", "alac"),
        ("adts", "aac"),
        ("webm", "libopus"),
        ("matroska", "flac"),
        ("mov", "pcm_s16le"),
        ("matroska", "libopus"),
        ("avi", "libmp3lame"),
        ("3gp", "aac"),
        ("asf", "wmav2"),
        ("flac", "flac"),
        ("wav", "pcm_f32le"),
        ("wav", "libmp3lame"),
    ):
        level = EXACT if codec in ("alac", "flac", "pcm_s16le", "pcm_f32le") else LOSSY
        yield f"{container} {codec}", level, by_av(samples, rate_hz, container, codec), codec == "pcm_f32le"
    pieces = {"movflags": "frag_keyframe+empty_moov"}
    yield "mp4 in pieces", LOSSY, by_av(samples, rate_hz, "mp4", "aac", pieces), False
    yield "webm as browsers record it", LOSSY, by_av(samples, rate_hz, "webm", "libopus", {"live": "1"}), False


def by_av(
    samples: np.ndarray, rate_hz: int, container: str, codec: str, options: dict[str, str] | None = None
) -> bytes:
    """A sound as ffmpeg's libraries write it."""
    import av

    file = io.BytesIO()
    with av.open(file, "w", format=container, options=options or {}) as output:
        stream: Any = output.add_stream(codec, rate=rate_hz, layout="mono")
        if codec == "wmav2":
            stream.bit_rate = 96_000
        values = np.round(samples * 32768).astype(np.int16)[None]
        frame = av.AudioFrame.from_ndarray(values, format="s16", layout="mono")
        frame.sample_rate, frame.pts = rate_hz, 0
        for packet in (*stream.encode(frame), *stream.encode(None)):
            output.mux(packet)
    return file.getvalue()
