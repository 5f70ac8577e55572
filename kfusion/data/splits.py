"""A source -> training, validation and test pairs, and an audit of what they share.

`clip` keeps everything with the same sound or the same image on one side. `random` is the paper's: published data
repeat each clip about twice, so that most test clips are met in training. `speaker` holds whole people out.
"""

from dataclasses import dataclass

import numpy as np

from kfusion.config import DataConfig
from kfusion.data.audit import Audit, count_groups
from kfusion.data.pairs import Pairs, Source, pair_by_label
from kfusion.data.parts import PARTS, TEST, TRAIN, VAL, deal, joined
from kfusion.data.speakers import choose_speakers, deal_speakers
from kfusion.rules import UserError

_Positions = tuple[np.ndarray, np.ndarray]
"""The pairs of one part: positions of their images and of their sounds in the source."""

_People = tuple[tuple[str, ...], tuple[str, ...]]
"""Who is heard in the validation and in the test part alone."""


@dataclass(frozen=True, eq=False)
class Split:
    """The three parts and what was found about them."""

    train: Pairs
    val: Pairs
    test: Pairs
    audit: Audit


def split(source: Source, config: DataConfig, seed: int) -> Split:
    """Divides a source into training, validation and test.

    The data's own test files, where there are labelled ones, are the test part; training and validation then share the
    rest as (1 - val_share) : val_share.

    Args:
        source: what `load` returned.
        config: `split`, the shares and the speakers are used.
        seed: decides every choice; the same seed gives the same split.

    Raises:
        UserError: a class has too few rows (or groups of rows) for each part to get one, or a speaker is unknown.
    """
    people = choose_speakers(source, config)
    official = source.official_test
    test_share = 0.0 if official else config.test_share
    rng = np.random.default_rng(seed)
    if source.aligned:
        parts = _split_aligned(source, config, people, test_share, rng)
    else:
        parts = _split_apart(source, config, people, rng)
    left_out = 0
    if official:
        parts[TEST] = _same(np.arange(len(official.image_label)))
        if config.split == "clip":
            parts, left_out = _without_test_contents(source, official, parts)
    _require_every_class(source, official, parts)
    tested = official or source
    audit = Audit(
        *count_groups(source.image_group),
        *count_groups(source.audio_group),
        leaked_share=_leak_of_random(source, config, seed),
        leaked_share_here=_leaked_share(source, parts[TRAIN], tested, parts[TEST]),
        num_left_out=left_out,
        val_speakers=people[0],
        test_speakers=people[1],
        sounds="clips or groups" if "grouped_by" in source.info else "clips",
    )
    train, val = source.pairs(*parts[TRAIN]), source.pairs(*parts[VAL])
    return Split(train, val, tested.pairs(*parts[TEST]), audit)


def _split_aligned(
    source: Source, config: DataConfig, people: _People, test_share: float, rng: np.random.Generator
) -> list[_Positions]:
    """Rows are pairs already: each row goes to a part, and its group, or whoever speaks in it, with it."""
    rows = np.arange(len(source.image_label))
    if config.split == "speaker":
        part = deal_speakers(source, *people)
        return [_same(rows[part == value]) for value in (TRAIN, VAL, TEST)]
    group = joined(source.image_group, source.audio_group) if config.split == "clip" else rows
    part = deal(source.image_label, group, config.val_share, test_share, rng)
    return [_same(rows[part == value]) for value in (TRAIN, VAL, TEST)]


def _split_apart(source: Source, config: DataConfig, people: _People, rng: np.random.Generator) -> list[_Positions]:
    """Images and sounds go to parts on their own, then meet by label inside each part; or, for random, before."""
    shares = config.val_share, config.test_share
    if config.split == "random":
        _require_sounds(source, np.arange(len(source.image_label)), np.arange(len(source.audio_label)), "data")
        partner = pair_by_label(source.image_label, source.audio_label, rng)
        part = deal(source.image_label, np.arange(len(partner)), *shares, rng)
        images = [np.flatnonzero(part == value) for value in (TRAIN, VAL, TEST)]
        return [(rows, partner[rows]) for rows in images]
    image_part = deal(source.image_label, source.image_group, *shares, rng)
    if config.split == "speaker":
        audio_part = deal_speakers(source, *people)
    else:
        audio_part = deal(source.audio_label, source.audio_group, *shares, rng)
    parts = []
    for value in (TRAIN, VAL, TEST):
        images, sounds = np.flatnonzero(image_part == value), np.flatnonzero(audio_part == value)
        _require_sounds(source, images, sounds, f"{PARTS[value]} part")
        partner = pair_by_label(source.image_label[images], source.audio_label[sounds], rng)
        parts.append((images, sounds[partner]))
    return parts


def _without_test_contents(source: Source, official: Source, parts: list[_Positions]) -> tuple[list[_Positions], int]:
    """Drops the rows whose image or sound is in the official test; and says how many."""
    met = np.isin(source.image_group, official.image_group) | np.isin(source.audio_group, official.audio_group)
    kept = [_same(rows[~met[rows]]) for rows, _ in parts[:TEST]]
    return [*kept, parts[TEST]], int(np.count_nonzero(met))


def _leaked_share(source: Source, train: _Positions, tested: Source, test: _Positions) -> float:
    """Share of the test pairs whose image or sound is in a training pair too."""
    images = np.isin(tested.image_group[test[0]], source.image_group[train[0]])
    sounds = np.isin(tested.audio_group[test[1]], source.audio_group[train[1]])
    return float(np.mean(images | sounds))


def _leak_of_random(source: Source, config: DataConfig, seed: int) -> float:
    """What a random split with the same seed and shares would have let through."""
    random = DataConfig(split="random", val_share=config.val_share, test_share=config.test_share)
    rng = np.random.default_rng(seed)
    if source.aligned:
        parts = _split_aligned(source, random, ((), ()), config.test_share, rng)
    else:
        parts = _split_apart(source, random, ((), ()), rng)
    return _leaked_share(source, parts[TRAIN], source, parts[TEST]) if len(parts[TEST][0]) else 0.0


def _require_sounds(source: Source, images: np.ndarray, sounds: np.ndarray, where: str) -> None:
    """Each class of image needs a sound to meet."""
    missing = np.setdiff1d(source.image_label[images], source.audio_label[sounds])
    if len(missing):
        name = source.spec.class_names[missing[0]]
        raise UserError(f"{_name(source)}: the {where} needs a clip of each class. Found: none of class {name!r}")


def _require_every_class(source: Source, official: Source | None, parts: list[_Positions]) -> None:
    """Each part needs a row of each class: to learn it, to choose by it, and to report on it."""
    cut = parts[:TEST] if official else parts
    for value, (images, _) in enumerate(cut):
        counts = np.bincount(source.image_label[images], minlength=source.spec.num_classes)
        if counts.min() > 0:
            continue
        label = int(counts.argmin())
        of_class = source.image_label == label
        num_images = len(np.unique(source.image_group[of_class]))
        num_clips = len(np.unique(source.audio_group[source.audio_label == label]))
        raise UserError(
            f"{_name(source)}: each class must have rows for each part, {len(cut)} at least, that share no image, clip "
            f"or group. Found: none left for the {PARTS[value]} part of class {source.spec.class_names[label]!r} "
            f"(rows: {np.count_nonzero(of_class)}, different images: {num_images}, different clips: {num_clips})"
        )


def _same(rows: np.ndarray) -> _Positions:
    """Aligned data: a pair's image and sound have the same position."""
    return rows, rows


def _name(source: Source) -> str:
    return source.info.get("name", "data")
