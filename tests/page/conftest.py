"""For the tests of the page: the page in a real browser, and a voice."""

import shutil
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from scipy.signal import resample_poly

from tests.media import FSDD, SPEAKERS, Recordings, wav_bytes
from tests.page.visitor import RATE_HZ, Page
from tests.pages import CHROMIUM, FLAGS


@pytest.fixture
def page(browser, server):
    with Page(browser, server.url) as opened:
        yield opened
        assert opened.peaceful(), (opened.requests, opened.complaints)


@pytest.fixture(scope="session")
def seven() -> np.ndarray:
    """A recording of somebody who says seven: int16, 8 kHz."""
    if not FSDD.exists():
        pytest.skip("needs the recordings, ../shared/data/fsdd.npz")
    with np.load(SPEAKERS) as table:
        return Recordings()[int(np.flatnonzero(table["label"] == 7)[5])]


@pytest.fixture
def hearing(browser, tmp_path) -> Iterator[Callable[[np.ndarray], Any]]:
    """Starts a browser whose microphone hears a sound, again and again: int16, 8 kHz."""
    started = []

    def start(sound: np.ndarray) -> Any:
        path = tmp_path / "microphone.wav"
        path.write_bytes(wav_bytes(resample_poly(sound, 6, 1).clip(-32768, 32767).astype(np.int16), 6 * RATE_HZ))
        microphone = ("--use-fake-device-for-media-stream", f"--use-file-for-fake-audio-capture={path}")
        chromium = next(filter(None, map(shutil.which, CHROMIUM)))
        started.append(browser.browser_type.launch(executable_path=chromium, args=[*FLAGS, *microphone]))
        return started[-1]

    yield start
    for each in started:
        each.close()
