"""What passes from the input to the model: some rows of arrays, or the files of some rows."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np


@dataclass(eq=False)
class Arrays:
    """Rows as a network takes them.

    Args:
        image: float32 (n, height, width, channels) in [0, 1]; zeros where there is none.
        audio: float32 (n, num_audio), in the training data's units; zeros where there is none.
        present: bool (n, 2): image there? sound there?
        reason: one text a row: why it cannot be answered, or "".
    """

    image: Any
    audio: Any
    present: np.ndarray
    reason: list[str]


@dataclass(eq=False)
class Files:
    """Rows as files.

    Args:
        image, audio: the content of each row's file; empty where there is none.
        reason: one text a row: why it cannot be answered, or "".
    """

    image: list[bytes]
    audio: list[bytes]
    reason: list[str]

    @property
    def present(self) -> np.ndarray:
        """bool (n, 2): image there? sound there?"""
        return np.array([[content != b"" for content in contents] for contents in (self.image, self.audio)]).T


class Rows(Protocol):
    """An input of any kind, of which any rows can be read at any time."""

    @property
    def said(self) -> str:
        """What is read, for the terminal."""
        ...

    def __len__(self) -> int: ...

    def read(self, start: int, stop: int) -> Arrays | Files:
        """The rows from `start` up to `stop`."""
        ...

    def names(self, start: int, stop: int) -> list[tuple[str, str]] | None:
        """The files of these rows, image and sound; None for an input without files."""
        ...

    def ids(self, start: int, stop: int) -> list[str] | None:
        """What these rows are called in the input; None where they are numbered from 0."""
        ...

    def identity(self) -> dict[str, Any]:
        """What tells this input from another, ready for JSON."""
        ...
