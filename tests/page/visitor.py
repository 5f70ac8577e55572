"""What a person does with the page, in a real browser."""

import base64
import io
import math
import re
import wave
from typing import Any

import numpy as np

from tests.pages import Visit

RATE_HZ = 8000


def arc(x: float, y: float, wide: float, high: float, start: float, end: float) -> list[tuple[float, float]]:
    """Places on an ellipse, in degrees clockwise from the right."""
    angles = [math.radians(start + (end - start) * step / 14) for step in range(15)]
    return [(x + wide * math.cos(angle), y + high * math.sin(angle)) for angle in angles]


THREE = [*arc(0.47, 0.32, 0.19, 0.14, -150, 90), *arc(0.47, 0.64, 0.22, 0.18, -90, 150)]
"""One stroke, in shares of the drawing area."""


class Page(Visit):
    """The page in a browser, and what a person does there."""

    def __init__(
        self, chromium: Any, address: str, width: int = 1280, scheme: str = "light", named: str = "kfusion"
    ) -> None:
        super().__init__(chromium, address, width, scheme)
        self.address = address
        self.wait_for(f"Model {named}, version 1", "#about")

    def __enter__(self) -> "Page":
        return self

    def wait_for(self, text: str, where: str) -> None:
        """Until an element holds a text."""
        self.page.locator(where).filter(has_text=re.compile(re.escape(text))).wait_for(timeout=30_000)

    def draw(self, stroke: list[tuple[float, float]]) -> None:
        self.page.locator("#pad").scroll_into_view_if_needed()
        box = self.page.locator("#pad").bounding_box()
        places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in stroke]
        self.page.mouse.move(*places[0])
        self.page.mouse.down()
        for place in places[1:]:
            self.page.mouse.move(*place)
        self.page.mouse.up()

    def drop(self, where: str, name: str, kind: str, content: bytes) -> None:
        """A file let fall on an element."""
        script = """([where, name, type, text]) => {
            const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
            const dataTransfer = new DataTransfer();
            dataTransfer.items.add(new File([bytes], name, { type }));
            const options = { dataTransfer, bubbles: true, cancelable: true };
            document.querySelector(where).dispatchEvent(new DragEvent("dragover", options));
            document.querySelector(where).dispatchEvent(new DragEvent("drop", options));
        }"""
        self.page.evaluate(script, [where, name, kind, base64.b64encode(content).decode()])

    def asked(self, signature: str, act: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Does something; the row that an endpoint is then asked, and what it answers."""

        def wanted(response: Any) -> bool:
            return response.url.endswith(":predict") and response.request.post_data_json["signature_name"] == signature

        with self.page.expect_response(wanted, timeout=30_000) as found:
            act()
        request, answer = found.value.request.post_data_json, found.value.json()
        return request["instances"][0], answer["predictions"][0]

    def example(self, kind: str, name: str) -> None:
        self.page.get_by_role("button", name=f"Example {kind} of {name}").click()

    @property
    def label(self) -> str:
        return self.page.locator("#label").inner_text().removeprefix("The answer is").strip()

    def bars(self, name: str) -> list[str]:
        """The three figures in the row of a class."""
        return (
            self.page.locator("#bars tbody tr", has=self.page.get_by_role("rowheader", name=name))
            .locator(".number")
            .all_inner_texts()
        )

    def peaceful(self) -> bool:
        """Nothing was asked of anybody else, and nothing was complained of."""
        elsewhere = [url for url in self.requests if not url.startswith((self.address, "data:", "blob:"))]
        return not elsewhere and not self.complaints


def sent_samples(row: dict[str, Any]) -> np.ndarray:
    """The samples of the WAV file that the page sent, if it is of the form that was agreed."""
    with wave.open(io.BytesIO(base64.b64decode(row["audio_bytes"]["b64"]))) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, RATE_HZ)
        return np.frombuffer(file.readframes(file.getnframes()), "<i2")


def verdict(said: dict[str, Any]) -> str:
    """How the page must begin to speak of an answer of a model of digits, whatever the model has learnt."""
    picture, sound = (int(np.argmax(said[f"{kind}_probabilities"])) for kind in ("image", "audio"))
    if not all(said["present"]):
        return f"By the {'picture' if said['present'][0] else 'sound'} alone, "
    if picture == sound:
        return "Picture and sound agree, "
    return f"They disagree: the picture says {picture}, the sound says {sound}. Together: {said['class_name']}, "
