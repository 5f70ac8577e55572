"""Holding whole people out: who is heard in which part."""

import numpy as np

from kfusion.config import DataConfig
from kfusion.data.pairs import Source
from kfusion.data.parts import TEST, TRAIN, VAL
from kfusion.rules import UserError


def choose_speakers(source: Source, config: DataConfig) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The people of the validation and of the test part; see `hold_out`."""
    names = None if source.audio_speaker is None else source.speaker_names
    return hold_out(names, config, source.info.get("name", "data"))


def hold_out(names: tuple[str, ...] | None, config: DataConfig, where: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The people of the validation and of the test part, which need no data but the names to be told.

    Where the config names nobody, the test part is the last person in the table, and the validation part the one
    before the first test person; whoever is taken already is passed over.

    Args:
        names: of all people, in the table's order; None: the data do not say who speaks.
        config: `split`, `test_speakers` and `val_speakers` are used.
        where: what the data are called.

    Returns:
        Names of the validation part, names of the test part; both empty for the other splits.

    Raises:
        UserError: names without split=speaker, data that do not say who speaks, an unknown name, or nobody left.
    """
    require_no_names(config)
    if config.split != "speaker":
        return (), ()
    if names is None:
        raise UserError(f"'split' must be clip or random: {where} does not say who speaks. Received: 'speaker'")
    for field in ("test_speakers", "val_speakers"):
        unknown = [name for name in getattr(config, field) if name not in names]
        if unknown:
            raise UserError(f"'{field}' must be among {', '.join(names)}. Received: {unknown[0]!r}")
    free = [name for name in names if name not in config.val_speakers + config.test_speakers]
    test = config.test_speakers or tuple(free[-1:])
    first = min((names.index(name) for name in test), default=0)
    before = [name for name in names[first:] + names[:first] if name in free and name not in test]
    val = config.val_speakers or tuple(before[-1:])
    if not test or not val or len(set(test) | set(val)) == len(names):
        raise UserError(
            f"'test_speakers' and 'val_speakers' must leave somebody of {', '.join(names)} for each part. "
            f"Received: {', '.join(test)} and {', '.join(val)}"
        )
    return val, test


def require_no_names(config: DataConfig) -> None:
    """Raises the UserError of people who are named where nobody is held out; no data are needed to tell."""
    if config.split != "speaker" and config.test_speakers + config.val_speakers:
        who = ", ".join(config.test_speakers + config.val_speakers)
        raise UserError(f"'test_speakers' and 'val_speakers' must be empty unless split=speaker. Received: {who}")


def deal_speakers(source: Source, val: tuple[str, ...], test: tuple[str, ...]) -> np.ndarray:
    """int8 (m,): the part of each sound."""
    names = np.array(source.speaker_names)
    part_of_name = np.where(np.isin(names, test), TEST, np.where(np.isin(names, val), VAL, TRAIN)).astype(np.int8)
    return part_of_name[source.audio_speaker]
