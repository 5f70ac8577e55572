"""A folder of .npy files -> a `Source`: opened, checked and fingerprinted; the rows stay on disk."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from kfusion.data.checks import broken, open_array, scan_audio, scan_images
from kfusion.data.classes import read_coded
from kfusion.data.labels import read_classes, read_digits, read_groups
from kfusion.data.layouts import Layout, audio_grid, image_shape, in_order, labels_file, recognise
from kfusion.data.limit import first_of_each_class
from kfusion.data.pairs import Source
from kfusion.data.parts import joined
from kfusion.data.scan import blank_lines, group_ids
from kfusion.rules import UserError
from kfusion.spec import DIGITS, Spec

_LICENCE = "as published with the files (the original: Khacef, Rodriguez, Miramond 2019, Zenodo 3515935)"


@dataclass(frozen=True, eq=False)
class _Part:
    """Files that belong together, checked and scanned, with the fingerprints of the rows in use."""

    source: Source
    images_path: Path
    image_key: np.ndarray
    audio_key: np.ndarray


def load_folder(data: str, test_labels: str, limit: int) -> Source:
    """Reads a folder in the competition's layout, Zenodo's, or kfusion's own.

    Args:
        data: the folder.
        test_labels: a CSV with the labels of the competition's test files; "": these are not used.
        limit: rows to use at most, of the training and of the test files; 0: all.

    Returns:
        An aligned source; its arrays are memory maps.

    Raises:
        UserError: one line that names the file, the rule, and what was found.
    """
    folder = Path(data)
    layout, present = recognise(folder)
    if test_labels and layout.name != "competition":
        rule = "'test_labels' must be empty unless the data are in the competition's layout"
        raise UserError(f"{rule}. Received: {test_labels!r} with the layout {layout.name}")
    labels_path = labels_file(layout, present, folder)
    if layout.classes in present:
        label, names = read_coded(labels_path, folder / layout.classes)
    else:
        label, names = (read_digits(labels_path), DIGITS) if layout.digits else read_classes(labels_path)
    paths = folder / layout.train.images, folder / layout.train.audio, labels_path
    train = _open_part(layout, paths, label, names, limit)
    test = _open_test(folder, layout, present, test_labels, limit)
    if test:
        return _with_test(train, test)
    source = replace(train.source, image_group=group_ids(train.image_key)[0], audio_group=group_ids(train.audio_key)[0])
    return _with_groups(source, folder / layout.groups) if layout.groups in present else source


def _open_part(
    layout: Layout, paths: tuple[Path, Path, Path], label: np.ndarray, names: tuple[str, ...], limit: int
) -> _Part:
    """Shapes and lengths first, since they cost nothing; then one pass over each file."""
    images_path, audio_path, labels_path = paths
    images, audio = open_array(images_path), open_array(audio_path)
    shape, image_note = image_shape(images, layout, images_path)
    grid, audio_note = audio_grid(audio, layout, audio_path)
    images = in_order(images, shape)
    for path, length in ((audio_path, len(audio)), (labels_path, len(label))):
        if length != len(images):
            raise broken(path, f"must have as many rows as {images_path.name} ({len(images)})", f"{length} rows")
    rows = first_of_each_class(label, limit)
    image_scan, pixel_max = scan_images(images, rows, images_path)
    audio_scan = scan_audio(audio, rows, audio_path)
    label = label[rows]
    source = Source(
        images=images,
        audio=audio,
        image_label=label,
        audio_label=label,
        aligned=True,
        image_group=rows,
        audio_group=rows,
        spec=Spec(shape, grid, names, pixel_max),
        info={
            "name": str(images_path.parent),
            "layout": layout.name,
            "files": {path.name: path.stat().st_size for path in paths},
            "front_end": None,
            "image_range": [image_scan.low, image_scan.high],
            "audio_range": [audio_scan.low, audio_scan.high],
            "licence": _LICENCE if layout.digits else None,
        },
        notes=(
            *filter(None, (image_note, audio_note)),
            *blank_lines(image_scan, images_path.name),
            *blank_lines(audio_scan, audio_path.name),
        ),
        image_row=rows,
        audio_row=rows,
    )
    return _Part(source, images_path, image_scan.fingerprint, audio_scan.fingerprint)


def _open_test(folder: Path, layout: Layout, present: set[str], test_labels: str, limit: int) -> _Part | None:
    """The data's own test files, if they and their labels are there."""
    if layout.test is None:
        return None
    names = layout.test.images, layout.test.audio, layout.test.labels
    if not test_labels and not present.issuperset(names):
        return None
    labels_path = Path(test_labels) if test_labels else folder / layout.test.labels
    paths = folder / layout.test.images, folder / layout.test.audio, labels_path
    return _open_part(layout, paths, read_digits(labels_path), DIGITS, limit)


def _with_test(train: _Part, test: _Part) -> Source:
    """The training files' source, with the test files' as its official test and ids that hold for both."""
    scales = train.source.spec.pixel_max, test.source.spec.pixel_max
    if scales[0] != scales[1]:
        rule = f"pixels must be on the scale of {train.images_path.name} (0-{scales[0]})"
        raise broken(test.images_path, rule, f"0-{scales[1]}")
    image_groups, audio_groups = group_ids(train.image_key, test.image_key), group_ids(train.audio_key, test.audio_key)
    official = replace(test.source, image_group=image_groups[1], audio_group=audio_groups[1])
    files = {**train.source.info["files"], **test.source.info["files"]}
    return replace(
        train.source,
        image_group=image_groups[0],
        audio_group=audio_groups[0],
        info={**train.source.info, "files": files},
        official_test=official,
        notes=train.source.notes + test.source.notes,
    )


def _with_groups(source: Source, path: Path) -> Source:
    """Rows of one group of the user's count as one sound, and so stay in one part."""
    groups = read_groups(path)
    if len(groups) != len(source.images):
        raise broken(path, f"must have as many rows as the images ({len(source.images)})", f"{len(groups)} rows")
    files = {**source.info["files"], path.name: path.stat().st_size}
    info = {**source.info, "files": files, "grouped_by": path.name}
    return replace(source, audio_group=joined(source.audio_group, groups[source.audio_row]), info=info)
