"""The modalities: everything about a kind of input in one folder, and the registry that finds each by its name.

    image     pictures: decoding, the digits' convention, augmentation, corruption
    audio     sounds: decoding, features, augmentation, corruption, normalisation
    vector    rows of numbers, some of which may be missing

A new kind is a subclass of `Modality` and one call of `register`; nothing else needs to know of it.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from kfusion.modalities.audio import Audio
from kfusion.modalities.base import Modality
from kfusion.modalities.image import Image
from kfusion.modalities.vector import Vector
from kfusion.spec import ModalitySpec, Spec
from kfusion.validation import UserError

LITTER = ("__macosx", "thumbs.db", "desktop.ini", "ehthumbs.db")
_KINDS: dict[str, Modality] = {}


def register(modality: Modality) -> None:
    """Makes a kind of input known under its name; a kind of the same name is replaced."""
    if not modality.kind.isidentifier():
        raise ValueError(f"'kind' must be an identifier. Received: {modality.kind!r}")
    _KINDS[modality.kind] = modality


@contextmanager
def registered(modality: Modality) -> Iterator[Modality]:
    """Within the block, a kind of input is known."""
    before = dict(_KINDS)
    register(modality)
    try:
        yield modality
    finally:
        _KINDS.clear()
        _KINDS.update(before)


def kinds() -> tuple[str, ...]:
    """The names of all kinds, in the order in which they were registered."""
    return tuple(_KINDS)


def modality(kind: str | ModalitySpec) -> Modality:
    """The kind of input of that name, or of that spec.

    Raises:
        UserError: there is none of that name.
    """
    name = kind.kind if isinstance(kind, ModalitySpec) else kind
    if name not in _KINDS:
        raise UserError(f"a modality must be one of {', '.join(_KINDS)}. Received: {name!r}")
    return _KINDS[name]


def kind_named(name: str) -> Modality:
    """The kind of a modality that is known by its name alone: the kind of this name, or else a vector."""
    return modality(name if name in _KINDS else Vector.kind)


def each_of(spec: Spec) -> Iterator[tuple[str, Modality, ModalitySpec]]:
    """Name, kind and shape of each modality of a spec, in its order."""
    for name, shape in spec.modalities.items():
        yield name, modality(shape), shape


def front_end_of(name: str, source: Mapping[str, Any]) -> str | None:
    """The front end that made a modality's training data; None where nobody knows.

    Args:
        name: of the modality.
        source: what a run notes of its data: "front_end" is that of the last modality, and of any other one where it
            has none of its own, "{name}_front_end".
    """
    return source.get(f"{name}_front_end", source["front_end"])


def is_visible(name: str) -> bool:
    """Whether a file or folder may hold data: neither hidden ones do, nor those that systems leave in any folder."""
    return not name.startswith(".") and name.casefold() not in LITTER


def kind_of_file(name: str) -> str:
    """The kind that a file is meant to be, by its ending; "" for any other file.

    Args:
        name: of the file, in any case.
    """
    return next((kind for kind, each in _KINDS.items() if _ends(name, (*each.suffixes, *each.unread_suffixes))), "")


def kind_that_reads(name: str) -> str:
    """The kind that reads a file, by its ending; "" where none does.

    Args:
        name: of the file, in any case.
    """
    return next((kind for kind, each in _KINDS.items() if _ends(name, each.suffixes)), "")


def _ends(name: str, suffixes: tuple[str, ...]) -> bool:
    dot = name.rfind(".")
    return dot > 0 and name[dot:].lower() in suffixes


def one_of(nouns: Sequence[str]) -> str:
    """Nouns with their articles, as alternatives: "an image or a sound"."""
    *first, last = [f"a{'n' * (noun[0] in 'aeio')} {noun}" for noun in nouns]
    return f"{', '.join(first)} or {last}" if first else last


register(Image())
register(Audio())
register(Vector())
