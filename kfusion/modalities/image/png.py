"""PNG files put together by hand, to prove that those whose parts do not fit are refused."""

import struct
import zlib

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
