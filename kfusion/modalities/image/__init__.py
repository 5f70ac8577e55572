"""Pictures: (height, width, channels) pixels in 0-255 or 0-1."""

import base64
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kfusion.modalities.base import BadValues, Corruption, FileReader, Modality, Pictures, Shape, with_wrong_value
from kfusion.spec import ModalitySpec, image_spec
from kfusion.validation import UserError, broken

if TYPE_CHECKING:
    import keras

    from kfusion.config import AugmentConfig, DataConfig, ModelConfig

MAX_CHANNELS = 4
"""A picture rarely has more: red, green, blue and opacity."""
GRAPH_OPS = """DecodePng DecodeJpeg ExtractJpegShape ScaleAndTranslate ResizeNearestNeighbor AvgPool DenseBincount
    MatrixDiagV3 MatrixSolve TensorScatterUpdate UnsortedSegmentMax DecodePaddedRaw TensorDataset TensorSliceDataset
    MapDataset ParallelMapDatasetV2 IgnoreErrorsDataset ConcatenateDataset BatchDatasetV2 DatasetToSingleElement
    Case StatelessCase DecodeImage Atan2"""
"""Of the reader of pictures, whose data sets are of what is in the request already, and read no files; and of
`summary`."""


class Image(Modality):
    """Pictures."""

    kind = "image"
    noun = "image"
    file_noun = "picture"
    item_noun = "image"
    value_noun = "pixels"
    array_file = "images.npy"
    suffixes = (
        *(".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff"),
        *(".heic", ".heif", ".avif", ".jp2", ".j2k", ".ico", ".pgm", ".ppm", ".pbm", ".pnm", ".tga", ".pcx", ".psd"),
    )
    unread_suffixes = (".jxl", ".svg", ".raw", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2")
    formats = "PNG, JPEG, WebP, GIF, BMP, TIFF or HEIC"
    column_words = ("img", "pic", "photo")
    file_limits = "which have 1 or 3 channels and up to 1024 × 1024 pixels"
    standardised = False
    teacher_temperature = 1.3
    ops = frozenset(GRAPH_OPS.split())

    def spec_of(self, shape: Shape, path: Path, scale: int, known: Shape = ()) -> tuple[ModalitySpec, str]:
        """(N, 784), (N, H, W), (N, H, W, C), or (N, C, H, W) where nothing else can be meant; see `Modality`."""
        row = shape[1:]
        if row == (784,):
            note = "" if known else f"{path.name}: rows of 784 values are taken as 28 × 28 pixels"
            return image_spec((28, 28, 1), scale), note
        accepted = "(N, 784) or (N, 28, 28)" if known else "(N, H, W), (N, H, W, C) or (N, 784)"
        if len(row) not in (2, 3):
            raise broken(path, f"must have the shape {accepted}", f"shape {shape}")
        height, width, channels = row if len(row) == 3 else (*row, 1)
        first = are_channels_first((height, width, channels))
        if first:
            height, width, channels = width, channels, height
        if known:
            if (height, width, channels) != known:
                raise broken(path, f"must have the shape {accepted}", f"shape {shape}")
            return image_spec(known, scale), ""
        many = "1 channel" if channels == 1 else f"{channels} channels"
        taken = f"{path.name}: {shape} is taken as {height} × {width} pixels of {many}, channels "
        if first:
            return image_spec((height, width, channels), scale), f"{taken}first"
        if len(row) == 3 and (channels > MAX_CHANNELS or height <= MAX_CHANNELS):
            taken += "last; if they come first, save np.moveaxis(images, 1, -1)"
            return image_spec((height, width, channels), scale), taken
        return image_spec((height, width, channels), scale), ""

    def scale_of(self, low: float, high: float, path: Path) -> int:
        """1 or 255, the brightest value that a pixel may have."""
        if low < 0 or high > 255 or 1 < high < 2:
            raise broken(path, "pixels must be in 0-1 or in 0-255", f"{low:.9g} to {high:.9g}")
        return 1 if high <= 1 else 255

    def in_order(self, array: np.ndarray, spec: ModalitySpec) -> np.ndarray:
        """Images as (N, height, width, channels) if they are (N, channels, height, width); else as they are."""
        shape = spec.shape
        return np.moveaxis(array, 1, -1) if array.shape[1:] == (shape[2], *shape[:2]) != shape else array

    def note_on(self, shape: Shape, path: Path, spec: ModalitySpec) -> str:
        """Flat rows, rows without an axis for one channel, and channels first are taken for the model's."""
        wanted, row = spec.shape, shape[1:]
        size = " × ".join(map(str, wanted))
        if row == wanted or (wanted[2] == 1 and row in (wanted[:2], (math.prod(wanted),))):
            return ""
        if row == (math.prod(wanted),):
            return f"{path.name}: rows of {row[0]:,} values are taken as {size}, channels last"
        if row == (wanted[2], *wanted[:2]):
            return f"{path.name}: {shape} is taken as {size}, channels first"
        raise broken(path, f"rows must have the model's {size} values", f"shape {shape}")

    def row_shapes(self, spec: ModalitySpec) -> set[Shape]:
        """Also an image without its one channel."""
        return super().row_shapes(spec) | ({spec.shape[:-1]} if spec.shape[-1] == 1 else set())

    def is_bounded(self) -> bool:
        """A request's pixels are in [0, 1]."""
        return True

    def shape_in_words(self, spec: ModalitySpec) -> str:
        """Sizes and the range of the pixels."""
        return f"{' × '.join(map(str, spec.shape))} pixels and channels, 0 to {spec.scale}"

    def request(self, name: str, values: Any) -> NDArray[np.float32]:
        """Pixels in [0, 1] from uint8 0-255 or floats in [0, 1]; channels that can only come first go to the end."""
        array = np.asarray(values)
        scale = 255 if array.dtype == np.uint8 else 1
        if array.ndim == 2 or (array.ndim == 3 and array.shape[-1] > MAX_CHANNELS):
            array = array[..., np.newaxis]
        if array.ndim == 3:
            array = array[np.newaxis]
        if array.ndim != 4:
            raise UserError(f"'{name}' must have 2, 3 or 4 axes. Received: shape {array.shape}")
        height, width, channels = array.shape[1:]
        if are_channels_first((height, width, channels)):
            array = np.moveaxis(array, 1, -1)
        return array.astype(np.float32) / np.float32(scale)

    def unreadable(self, front_end: str | None, spec: ModalitySpec) -> str:
        """Files have 1 or 3 channels."""
        channels = spec.shape[2]
        if channels in (1, 3):
            return ""
        return f"picture files have 1 or 3 channels, the training data's images {channels}"

    def spec_of_files(self, config: "DataConfig", paths: Sequence[Path]) -> tuple[ModalitySpec, str]:
        """Digits or photos, and of which shape: as the settings say, or as they look; see `preprocessing.chosen`."""
        from kfusion.modalities.image.decoding import chosen

        front_end, shape, note = chosen(config.image_preprocessing, config.image_shape, paths)
        return replace(image_spec(shape), front_end=front_end), note

    def file_settings(self, spec: ModalitySpec) -> dict[str, Any]:
        """Pictures are brought to this shape, as photos where the spec says so."""
        return {"image_shape": spec.shape, "image_preprocessing": "photo" if spec.front_end else "auto"}

    def front_end(self, spec: ModalitySpec) -> str:
        """MNIST's convention for images of its shape, the fitting of photos, or plain resizing."""
        from kfusion.modalities.image.decoding import image_front_end

        return image_front_end(spec)

    def standard_file(self, content: bytes) -> bytes:
        """PNG and JPEG as they are, others as PNG; see `files.standard_picture`."""
        from kfusion.modalities.image.files import standard_picture

        return standard_picture(content)

    def file_fault(self, head: bytes, tail: bytes, size: int) -> str:
        """Checksums of a PNG, the end of a JPEG, and whether it is a picture; see `files.fault`."""
        from kfusion.modalities.image.files import fault

        return fault(head, tail, size)

    def raw_reader(self) -> FileReader:
        """Also GIF, BMP and WebP; see `decoding.read_images`."""
        from kfusion.modalities.image.decoding import read_images

        return read_images

    def reader(self) -> FileReader:
        """PNG and JPEG files; see `decoding.read_standard_images`."""
        from kfusion.modalities.image.decoding import read_standard_images

        return read_standard_images

    def sample_file(self, values: np.ndarray, spec: ModalitySpec, seed: int = 0) -> bytes:
        """A PNG file of an image in [0, spec.scale]."""
        import tensorflow as tf

        pixels = np.round(values * (255 / spec.scale)).astype(np.uint8)
        return tf.io.encode_png(pixels).numpy()  # pyright: ignore[reportAttributeAccessIssue]

    def example(self, values: np.ndarray, spec: ModalitySpec) -> Any:
        """A PNG file in base64, of an image with as many channels as such a file has."""
        shown = spec.shape[2] in (1, 3)
        return base64.b64encode(self.sample_file(values, spec)).decode("ascii") if shown else None

    def bad_files(self, good: bytes) -> list[BadValues]:
        """Pictures that must be refused."""
        from kfusion.modalities.image.files import png_file

        middle = len(good) // 2
        flipped = good[:middle] + bytes([good[middle] ^ 0xFF]) + good[middle + 1 :]
        huge = png_file((20_000, 20_000, 8, 0, 0, 0, 0), bytes(1000))
        return [
            ("a truncated PNG", good[:middle], ""),
            ("a damaged PNG", flipped, ""),
            ("a text as a picture", b"This is a text file.\n" * 20, ""),
            ("a PNG header of 20000 x 20000", huge, ""),
        ]

    def bad_values(self, name: str, good: np.ndarray) -> list[BadValues]:
        """Pixels that are not in [0, 1]."""
        rule = f"{name} must be in [0, 1]"
        return [("0 to 255", good * 255, rule), ("below 0", with_wrong_value(good, -0.01), rule)]

    def fitted(self, config: "ModelConfig", spec: ModalitySpec) -> tuple["ModelConfig", str]:
        """The encoder for signs or for photos; and filters for the size, where these are those of a recipe."""
        from kfusion.modalities.encoders import fitted_filters, pooled_filters
        from kfusion.recipes import RECIPES

        config, usual = replace(config, image_encoder=encoder_of(config, spec)), config.filters
        named = usual not in {each.model.filters for each in RECIPES.values()}
        if named or config.image_encoder not in ("conv", "pooled"):
            return config, ""
        pooled = config.image_encoder == "pooled"
        filters = pooled_filters(spec.shape) if pooled else fitted_filters(usual, spec.shape)
        if filters == usual:
            return config, ""
        what, (height, width) = "a pooled encoder of " if pooled else "", spec.shape[:2]
        filters_text = " ".join(map(str, filters))
        line = f"{what}filters {filters_text}, for images of {height} × {width} pixels; --filters sets others"
        return replace(config, filters=filters), line

    def encode(
        self, values: Any, name: str, spec: ModalitySpec, config: "ModelConfig", mean: Any = None, variance: Any = None
    ) -> Any:
        """Convolutions, or a network that is trained already; see `encoders` and `trained`."""
        from kfusion.modalities.encoders import encode_convolutional, encode_pooled
        from kfusion.modalities.image.encoder import encode_by_trained

        known = {"conv": encode_convolutional, "pooled": encode_pooled}
        return known.get(encoder_of(config, spec), encode_by_trained)(values, name, spec, config)

    def augmentations(
        self, config: "AugmentConfig", name: str, spec: ModalitySpec, mean: Any, front_end: str | None
    ) -> list[Callable[..., Any]]:
        """Flip, rotation, zoom, shear and crop as one warp; colour jitter; damage."""
        from kfusion.modalities.image.augmentation import layers_of

        return layers_of(config, spec.scale, spec.shape[-1], "" if name == self.kind else f"{name}_")

    def all_corruptions(self) -> dict[str, Corruption]:
        """Noise, blur, occlusion, rotation, lost contrast and inversion."""
        from kfusion.modalities.image.corruption import IMAGE_CORRUPTIONS

        return IMAGE_CORRUPTIONS

    def surroundings(self, std: NDArray | None, others: NDArray, spec: ModalitySpec) -> tuple[Any, ...]:
        """Nothing."""
        return ()

    def unknowns(
        self, values: NDArray, label: NDArray, spec: ModalitySpec, rng: np.random.Generator, names: Sequence[str] = ()
    ) -> dict[str, NDArray]:
        """Turned, mirrored, spliced, cut up, laid over others and bent; lines, areas, noise and letters."""
        from kfusion.modalities.image.unknowns import of_pictures

        return of_pictures(values, label, float(spec.scale), rng, names)

    def summaries(self, name: str, spec: ModalitySpec) -> "list[keras.layers.Layer]":
        """Edges by place and direction, colours by place, and how bright the picture is."""
        from kfusion.modalities.image.encoder import PictureSummary

        return [PictureSummary(spec.scale, name=f"{name}_summary")]

    def pictures(self, values: NDArray, spec: ModalitySpec, reference: NDArray | None = None) -> Pictures:
        """Three channels in colour, any other number as the mean in grey."""
        pixels = np.clip(np.asarray(values, np.float64) / spec.scale, 0, 1)
        if pixels.shape[-1] != 3:
            pixels = pixels.mean(axis=-1)
        return Pictures(pixels, {"vmin": 0, "vmax": 1, "cmap": "gray"}, (1.0, 1.0))


def encoder_of(config: "ModelConfig", spec: ModalitySpec) -> str:
    """The setting `image_encoder`, with "auto" decided: pooled for photos, which are larger than signs or in colour.

    Args:
        config: the network's settings.
        spec: of the images.
    """
    if config.image_encoder != "auto":
        return config.image_encoder
    from kfusion.modalities.encoders import fitted_filters

    usual = type(config).filters
    return "conv" if spec.shape[2] == 1 and fitted_filters(usual, spec.shape) == usual else "pooled"


def are_channels_first(shape: tuple[int, int, int]) -> bool:
    """Whether an image is (channels, height, width), as PyTorch has it, and not (height, width, channels).

    It is where its last axis is too long for channels and its first is not, or where it is square in its last two axes
    alone.
    """
    first, second, last = shape
    return last > MAX_CHANNELS and (first <= MAX_CHANNELS or first != second == last)
