"""What a request ends with: a status, a body, and, where it is refused, the sentence that says what to change."""

import json
from dataclasses import dataclass, field

JSON = "application/json"
GRPC_TO_HTTP = {
    **dict.fromkeys((3, 9, 11), 400),  # INVALID_ARGUMENT, FAILED_PRECONDITION, OUT_OF_RANGE
    **{4: 504, 5: 404, 6: 409, 7: 403, 8: 429, 10: 409, 12: 501, 14: 503, 16: 401},
}
"""TensorFlow's status codes as TensorFlow Serving's HTTP server gives them on; any other is 500."""


@dataclass(frozen=True)
class Answer:
    """One response."""

    status: int
    body: bytes
    kind: str = JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()
    facts: dict[str, object] = field(default_factory=dict)
    """What the log says of it: rows, version, signature."""


class Refusal(Exception):
    """A request that cannot be answered, with the HTTP status and the sentence that its sender gets."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence

    def answer(self) -> Answer:
        # Whoever is told to come back, or whose request was not read to its end, gets what that takes.
        extra = {413: (b"connection", b"close"), 408: (b"connection", b"close"), 503: (b"retry-after", b"1")}
        headers = (extra[self.status],) if self.status in extra else ()
        return Answer(self.status, error_body(self.sentence), headers=headers)


def error_body(sentence: str) -> bytes:
    """TensorFlow Serving's form of an error."""
    return json.dumps({"error": sentence}, ensure_ascii=False).encode("utf-8", "replace")
