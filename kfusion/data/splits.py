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
    rest as (1 - val_share) : val_share. The data's own validation files are the validation part likewise.

    Args:
        source: what `load` returned.
        config: `split`, the shares and the speakers are used.
        seed: decides every choice; the same seed gives the same split.

    Raises:
        UserError: a class has too few rows (or groups of rows) for each part to get one, or a speaker is unknown.
    """
    people = choose_speakers(source, config)
    sources = (source, source.official_val or source, source.official_test or source)
    own = [part for part in (VAL, TEST) if sources[part] is not source]
    shares = 0.0 if VAL in own else config.val_share, 0.0 if TEST in own else config.test_share
    rng = np.random.default_rng(seed)
    parts = _dealt(source, config, people, shares, rng)
    for part in own:
        parts[part] = np.arange(len(sources[part].image_label)), np.arange(len(sources[part].audio_label))
    left_out = 0
    if own and config.split == "clip":
        parts, left_out = _without_met(sources, parts)
    if not source.aligned:
        for part in own if config.split == "random" else (TRAIN, VAL, TEST):
            parts[part] = _paired(sources[part], *parts[part], f"{PARTS[part]} part", rng)
    _require_every_class(sources, parts)
    tested = sources[TEST]
    audit = Audit(
        *count_groups(source.image_group),
        *count_groups(source.audio_group),
        leaked_share=_leak_of_random(source, config, seed),
        leaked_share_here=_leaked_share(source, parts[TRAIN], tested, parts[TEST]),
        num_left_out=left_out,
        met="validation or test files" if VAL in own else "test files",
        val_speakers=people[0],
        test_speakers=people[1],
        sounds="clips or groups" if "grouped_by" in source.info else "clips",
    )
    train, val, test = (sources[part].pairs(*parts[part]) for part in (TRAIN, VAL, TEST))
    return Split(train, val, test, audit)


def _dealt(
    source: Source, config: DataConfig, people: _People, shares: tuple[float, float], rng: np.random.Generator
) -> list[_Positions]:
    """The source's images and sounds for each part; pairs where the source or the split has any.

    Aligned rows go to a part with their group, or whoever speaks in them. Else images and sounds go to parts on their
    own, and meet inside each part later; or, for random, before.

    Args:
        source, config, people: as in `split`.
        shares: of validation and test; 0: none of the source's rows go there.
        rng: decides.
    """
    rows = np.arange(len(source.image_label))
    if source.aligned and config.split == "speaker":
        return _by_part(rows, deal_speakers(source, *people))
    if source.aligned:
        group = joined(source.image_group, source.audio_group) if config.split == "clip" else rows
        return _by_part(rows, _deal(source.image_label, group, shares, rng))
    sounds = np.arange(len(source.audio_label))
    if config.split == "random":
        _, partner = _paired(source, rows, sounds, "data", rng)
        part = _deal(source.image_label, rows, shares, rng)
        return [(images, partner[images]) for images, _ in _by_part(rows, part)]
    image_part = _deal(source.image_label, source.image_group, shares, rng)
    if config.split == "speaker":
        audio_part = deal_speakers(source, *people)
    else:
        audio_part = _deal(source.audio_label, source.audio_group, shares, rng)
    return [
        (images, clips)
        for (images, _), (clips, _) in zip(_by_part(rows, image_part), _by_part(sounds, audio_part), strict=True)
    ]


def _deal(label: np.ndarray, group: np.ndarray, shares: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    """As `deal`, and either share may be 0."""
    val_share, test_share = shares
    if val_share:
        return deal(label, group, val_share, test_share, rng)
    if not test_share:
        return np.full(len(label), TRAIN, np.int8)
    part = deal(label, group, test_share, 0.0, rng)
    return np.where(part == VAL, np.int8(TEST), part)


def _by_part(rows: np.ndarray, part: np.ndarray) -> list[_Positions]:
    """The rows of each part; an image and a sound of the same position are a pair."""
    return [(rows[part == value], rows[part == value]) for value in (TRAIN, VAL, TEST)]


def _paired(source: Source, images: np.ndarray, sounds: np.ndarray, where: str, rng: np.random.Generator) -> _Positions:
    """Each of some images with a sound of its class from among some sounds."""
    missing = np.setdiff1d(source.image_label[images], source.audio_label[sounds])
    if len(missing):
        name = source.spec.class_names[missing[0]]
        raise UserError(f"{_name(source)}: the {where} needs a clip of each class. Found: none of class {name!r}")
    return images, sounds[pair_by_label(source.image_label[images], source.audio_label[sounds], rng)]


def _without_met(sources: tuple[Source, ...], parts: list[_Positions]) -> tuple[list[_Positions], int]:
    """Drops what is in the data's own validation and test files too, or in their test files; and says how much."""
    kept, num_left_out = [], 0
    for part, (images, sounds) in enumerate(parts):
        here = sources[part]
        later = sources[VAL if here is sources[TRAIN] else part + 1 :]
        others = [one for one in later if one is not here and one is not sources[TRAIN]]
        image_met, audio_met = (
            np.isin(getattr(here, name)[rows], np.concatenate([getattr(one, name) for one in others] or [[]]))
            for name, rows in (("image_group", images), ("audio_group", sounds))
        )
        if here.aligned:
            image_met = audio_met = image_met | audio_met
        kept.append((images[~image_met], sounds[~audio_met]))
        num_left_out += int(image_met.sum()) + (0 if here.aligned else int(audio_met.sum()))
    return kept, num_left_out


def _leaked_share(source: Source, train: _Positions, tested: Source, test: _Positions) -> float:
    """Share of the test pairs whose image or sound is in a training pair too."""
    images = np.isin(tested.image_group[test[0]], source.image_group[train[0]])
    sounds = np.isin(tested.audio_group[test[1]], source.audio_group[train[1]])
    return float(np.mean(images | sounds))


def _leak_of_random(source: Source, config: DataConfig, seed: int) -> float:
    """What a random split with the same seed and shares would have let through."""
    random = DataConfig(split="random", val_share=config.val_share, test_share=config.test_share)
    shares = config.val_share, config.test_share
    parts = _dealt(source, random, ((), ()), shares, np.random.default_rng(seed))
    return _leaked_share(source, parts[TRAIN], source, parts[TEST]) if len(parts[TEST][0]) else 0.0


def _require_every_class(sources: tuple[Source, ...], parts: list[_Positions]) -> None:
    """Each part needs a row of each class: to learn it, to choose by it, and, unless it is given, to report on it."""
    cut = [part for part in (TRAIN, VAL, TEST) if sources[part] is sources[TRAIN]]
    for part in sorted({*cut, VAL}):
        source = sources[part]
        counts = np.bincount(source.image_label[parts[part][0]], minlength=source.spec.num_classes)
        if counts.min() > 0:
            continue
        label = int(counts.argmin())
        of_class = source.image_label == label
        num_images = len(np.unique(source.image_group[of_class]))
        num_clips = len(np.unique(source.audio_group[source.audio_label == label]))
        raise UserError(
            f"{_name(source)}: each class must have rows for each part, {len(cut)} at least, that share no image, clip "
            f"or group. Found: none left for the {PARTS[part]} part of class {source.spec.class_names[label]!r} "
            f"(rows: {np.count_nonzero(of_class)}, different images: {num_images}, different clips: {num_clips})"
        )


def _name(source: Source) -> str:
    return source.info.get("name", "data")
