"""What a split keeps apart, and what a random one would have let through."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Audit:
    """How often the data repeat themselves, and how many test rows a model has met before.

    Args:
        num_image_rows: images in use, the official test's not counted.
        num_image_groups: different ones among them.
        num_image_repeated: of these, the ones that occur more than once.
        num_audio_rows, num_audio_groups, num_audio_repeated: the same of the sounds.
        leaked_share: share of test rows, in [0, 1], whose image or sound is in training too after a random split.
        leaked_share_here: the same after the split in force.
        num_left_out: training rows left out because their image or sound is in the data's own test files.
        val_speakers: the people of the validation part; empty if it was not cut by person.
        test_speakers: the people of the test part.
        sounds: what the audio's ids stand for, in words.
        met: where the content of those that are left out is, in words.
    """

    num_image_rows: int
    num_image_groups: int
    num_image_repeated: int
    num_audio_rows: int
    num_audio_groups: int
    num_audio_repeated: int
    leaked_share: float
    leaked_share_here: float
    num_left_out: int = 0
    val_speakers: tuple[str, ...] = ()
    test_speakers: tuple[str, ...] = ()
    sounds: str = "clips"
    met: str = "test files"

    def lines(self) -> list[str]:
        """The audit in words, for the terminal."""
        lines = [
            _repeats(self.num_image_rows, "images", self.num_image_groups, self.num_image_repeated),
            _repeats(self.num_audio_rows, self.sounds, self.num_audio_groups, self.num_audio_repeated),
            f"test rows whose clip or image is in training: {self.leaked_share_here:.1%}; "
            f"in a random split: {self.leaked_share:.1%}",
        ]
        if self.num_left_out:
            lines.append(f"{self.num_left_out:,} training rows left out: their clip or image is in the {self.met}")
        if self.test_speakers:
            lines.append(
                f"people held out: {', '.join(self.test_speakers)} (test), {', '.join(self.val_speakers)} (validation)"
            )
        return lines


def _repeats(num_rows: int, name: str, num_groups: int, num_repeated: int) -> str:
    if num_rows == num_groups:
        return f"{num_rows:,} {name}, all different"
    return f"{num_rows:,} {name}, {num_groups:,} different, {num_repeated:,} of these more than once"


def count_groups(group: np.ndarray) -> tuple[int, int, int]:
    """Rows, different ids, and ids that occur more than once."""
    _, counts = np.unique(group, return_counts=True)
    return len(group), len(counts), int(np.count_nonzero(counts > 1))
