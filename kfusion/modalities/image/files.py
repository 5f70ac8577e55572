"""Picture files of any format -> files that the exported graph decodes; no TensorFlow here, so that clients can use it.

PNG and JPEG pass through unchanged: the graph reads them, or says what is wrong with them. Everything else is decoded
by Pillow (GIF, BMP, WebP, TIFF, ICO, PPM, TGA, PCX, JPEG 2000, AVIF, Photoshop's flat picture) or by pillow-heif (HEIC;
the extra `heif`), turned upright as its Exif says, and written as a PNG of the same pixels in 8 bits a channel, to
which the graph cuts 16 bits as well. A picture of more pixels along a side than the graph decodes is reduced by a whole
factor.
"""

import io
import struct
import zlib
from typing import Any

from kfusion.modalities.base import UNKNOWN, text_or_unknown
from kfusion.validation import UserError

MAX_SIDE = 4096
"""Pixels: the most along a side that are decoded. A header may claim 20 000 and ask for gigabytes."""
MAX_PIXELS = 2**26
"""Of any picture, 67 million: a JPEG of more than `MAX_SIDE` pixels along a side is decoded to a smaller size."""
MAX_BYTES = 2**26

FORMATS = (
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"GIF8", "GIF"),
    (0, b"BM", "BMP"),
    (8, b"WEBP", "WebP"),
)
"""What the graph decodes: offset, bytes there, and the format's name."""
KINDS = (
    (0, b"II*\0", "a TIFF picture"),
    (0, b"MM\0*", "a TIFF picture"),
    (0, b"II+\0", "a TIFF picture"),
    (0, b"MM\0+", "a TIFF picture"),
    (4, b"ftyphe", "a HEIC picture"),
    (4, b"ftypmif1", "a HEIC picture"),
    (4, b"ftypmsf1", "a HEIC picture"),
    (4, b"ftypavi", "an AVIF picture"),
    (4, b"ftyp", "a video (MP4 or MOV)"),
    (0, b"\xff\x0a", "a JPEG XL picture"),
    (4, b"JXL ", "a JPEG XL picture"),
    (4, b"jP  ", "a JPEG 2000 picture"),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000 picture"),
    (0, b"\0\0\1\0", "an icon (ICO)"),
    (0, b"8BPS", "a Photoshop picture (PSD)"),
    (0, b"#define ", "an XBM picture"),
    (0, b"<svg", "an SVG drawing"),
    (0, b"<?xml", "an SVG drawing, or another text in XML"),
    (0, b"%PDF", "a PDF document"),
    (0, b"%!PS", "a PostScript document"),
    (0, b"<!DOCTYPE html", "a web page"),
    (0, b"<!doctype html", "a web page"),
    (0, b"<html", "a web page"),
    (8, b"WAVE", "a WAV sound"),
    (0, b"ID3", "an MP3 sound"),
    (0, b"\xff\xfb", "an MP3 sound"),
    (0, b"OggS", "an OGG sound"),
    (0, b"fLaC", "a FLAC sound"),
    (0, b"PK\x03\x04", "a ZIP archive"),
    (0, b"\x93NUMPY", "an .npy array"),
    (0, b"version https://git-lfs", "what Git LFS keeps in place of a file; git lfs pull fetches it"),
)
"""Offset, bytes there, and what such a file is; the first that fits counts."""
_BY_PILLOW = (
    *("PNG", "JPEG", "GIF", "BMP", "DIB", "WEBP", "TIFF", "ICO", "CUR", "ICNS", "PPM", "TGA", "PCX", "SGI"),
    *("JPEG2000", "AVIF", "PSD", "QOI", "XBM"),
)
"""Pillow's names of the formats that it decodes by itself: none that starts another program, as EPS does."""
_HEIF_BRANDS = (b"ftyphe", b"ftypmif1", b"ftypmsf1", b"ftypavi")
_PNG_END = b"IEND\xaeB`\x82"
_PALETTED = ("P", "PA")


def standard_picture(content: bytes) -> bytes:
    """A picture file that the graph decodes; the same pixels, where it is another one.

    Args:
        content: a whole file of any format.

    Raises:
        UserError: the rule that the file breaks, and what was found; without the file's name.
    """
    name = _name(content, FORMATS)
    if (name == "PNG" and _fits(content)) or (name == "JPEG" and len(content) <= MAX_BYTES):
        return content
    with opened(content) as picture:
        width, height = picture.size
        if width * height > MAX_PIXELS:
            raise UserError(f"must have at most {MAX_PIXELS:,} pixels. Found: {width} × {height}")
        try:
            picture.load()
        except Exception as error:  # Pillow's plugins raise whatever they meet in a damaged file.
            raise _undecodable(content) from error
        return _as_png(picture)


def fault(head: bytes, tail: bytes, size: int) -> str:
    """Why a picture file cannot be read, as far as its first and last bytes tell; "" where nothing speaks against it.

    Args:
        head: the file's first bytes; all of them, where it is not long.
        tail: its last bytes.
        size: of the file.
    """
    name = _name(head, FORMATS)
    if name == "PNG":
        if _PNG_END not in (head if len(head) == size else tail):
            return "must be complete. Found: a file that ends before its picture does"
        return _damaged_chunk(head) if len(head) == size else ""
    if name == "JPEG":
        cut_off = b"\xff\xd9" not in head and b"\xff\xd9" not in tail and len(head) == size
        return "must be complete. Found: a file that ends before its picture does" if cut_off else ""
    if name:
        return ""
    kind = _name(head, KINDS) or text_or_unknown(head)
    if kind == UNKNOWN and len(head) == size:  # A few formats have no beginning of their own.
        try:
            opened(head)
        except UserError as error:
            return str(error)
    return "" if _is_picture(kind) or kind == UNKNOWN else f"must be a picture. Found: {kind}"


def _is_picture(kind: str) -> bool:
    return "picture" in kind or "icon" in kind


def _name(content: bytes, kinds: tuple[tuple[int, bytes, str], ...]) -> str:
    return next((name for place, start, name in kinds if content[place : place + len(start)] == start), "")


def _fits(content: bytes) -> bool:
    """Whether the graph decodes a PNG as it is; what is damaged is left to the graph, which says so."""
    width, height = struct.unpack(">II", content[16:24].ljust(8, b"\0"))
    return content[12:16] != b"IHDR" or not MAX_SIDE < max(width, height) <= MAX_PIXELS


def _damaged_chunk(png: bytes) -> str:
    """What is wrong with the checksums of a PNG's chunks; "" where they are right."""
    place = 8
    while place + 12 <= len(png):
        (length,) = struct.unpack(">I", png[place : place + 4])
        end = place + 8 + length
        if zlib.crc32(png[place + 4 : end]).to_bytes(4, "big") != png[end : end + 4]:
            return "must be an undamaged picture. Found: a PNG that cannot be decoded (its checksum is wrong)"
        if png[place + 4 : place + 8] == b"IEND":
            break
        place = end + 4
    return ""


def opened(content: bytes) -> Any:
    """A picture of Pillow's, of which only the header was read."""
    from PIL import Image, UnidentifiedImageError

    Image.init()
    known = [name for name in _BY_PILLOW if name in Image.OPEN]  # Pillow may be built without some.
    try:
        return Image.open(io.BytesIO(content), formats=known)
    except UnidentifiedImageError:
        pass
    except Exception as error:  # Pillow's plugins raise whatever they meet in a damaged file.
        raise _undecodable(content) from error
    if not content[4:].startswith(_HEIF_BRANDS):
        if _is_picture(name := _name(content, KINDS) or text_or_unknown(content)) or _name(content, FORMATS):
            raise _undecodable(content)
        raise UserError(f"must be a picture. Found: {name}")
    try:
        import pillow_heif
    except ImportError:
        rule = "HEIC pictures need the extra: pip install 'kfusion[heif]' (from a checkout: pip install '.[heif]')"
        raise UserError(f"{rule}. Found: no package pillow-heif") from None
    try:
        return pillow_heif.open_heif(io.BytesIO(content)).to_pillow()
    except Exception as error:
        raise _undecodable(content) from error


def _undecodable(content: bytes) -> UserError:
    name = _name(content, KINDS) or f"a {_name(content, FORMATS) or 'picture'} file"
    return UserError(f"must be an undamaged picture. Found: {name} that cannot be decoded")


def _as_png(picture: Any) -> bytes:
    """A PNG of grey or colour, with or without opacity, in 8 bits a channel."""
    from PIL import ImageOps

    picture = ImageOps.exif_transpose(picture)
    if picture.mode in _PALETTED or (picture.mode in ("1", "L", "RGB") and picture.has_transparency_data):
        picture = picture.convert("RGBA" if picture.has_transparency_data else "RGB")
    elif picture.mode == "1":
        picture = picture.convert("L")
    elif picture.mode == "F" or picture.mode.startswith("I"):
        picture = _in_bytes(picture)
    elif picture.mode not in ("L", "LA", "RGB", "RGBA"):
        picture = picture.convert("RGBA" if picture.has_transparency_data else "RGB")
    factor = -(-max(picture.size) // MAX_SIDE)
    if factor > 1:
        picture = picture.reduce(factor)
    written = io.BytesIO()
    picture.save(written, "PNG", compress_level=1)
    return written.getvalue()


def _in_bytes(picture: Any) -> Any:
    """Grey values of more than 8 bits in 8: the upper ones of 16; floats from 0 to 1, or from 0 to 255."""
    import numpy as np
    from PIL import Image

    values = np.asarray(picture)
    if values.dtype.kind == "f":
        if not np.isfinite(values).all() or values.min() < 0 or values.max() > 255:
            raise UserError(f"grey values must be in 0-1 or in 0-255. Found: {values.min():g} to {values.max():g}")
        values = np.round(values * (255 if values.max() <= 1 else 1))
    else:
        values = np.clip(values.astype(np.int64), 0, 65535) >> 8
    return Image.fromarray(values.astype(np.uint8))


PNG_START = b"\x89PNG\r\n\x1a\n"
Chunks = tuple[tuple[bytes, bytes], ...]


def png_chunk(name: bytes, data: bytes) -> bytes:
    """A chunk as ISO/IEC 15948 has it: length, name, data and checksum.

    Args:
        name: four letters.
        data: what the chunk holds.
    """
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png_file(header: tuple[int, ...], rows: bytes, before: Chunks = (), after: Chunks = ()) -> bytes:
    """A PNG file put together by hand, whether or not its parts fit together.

    Args:
        header: seven numbers: width, height, bits a value, colour type, compression, filter, interlacing.
        rows: the pixels of each row after the number of its filter.
        before: names and data of chunks before the pixels.
        after: the same of chunks after them.
    """
    pixels = (b"IDAT", zlib.compress(rows))
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", *header)), *before, pixels, *after, (b"IEND", b""))
    return PNG_START + b"".join(png_chunk(*chunk) for chunk in chunks)
