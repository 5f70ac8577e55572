"""What turns files into what a run's network takes, where that is known."""

from kfusion.data.front_ends import Reader, file_reader
from kfusion.data.sounds import can_read_sounds
from kfusion.run import Run
from kfusion.spec import MODALITIES


def front_end_of(run: Run) -> tuple[dict[str, Reader], str]:
    """What reads files for a run's network, for each modality; or nothing, and why.

    Returns:
        readers, and a reason that is empty where there are some.
    """
    spec, front_end = run.spec(), run.data()["source"]["front_end"]
    channels = spec.image_shape[2]
    if front_end is None:
        return {}, "how sounds became this data's features is not known"
    if not can_read_sounds(front_end, spec):
        return {}, f"sound files cannot be turned into features of the front end {front_end!r}"
    if channels not in (1, 3):
        return {}, f"picture files have 1 or 3 channels, this data's images {channels}"
    # Every endpoint calls the same functions: tracing them takes most of an export's time.
    return {name: file_reader(name, spec) for name in MODALITIES}, ""
