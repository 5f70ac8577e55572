"""Limits of the server's requests: size, time and number. Flags of `kfusion.serve`; importable without its extra."""

from dataclasses import dataclass

from kfusion.validation import check_fields, require

MIB = 1 << 20


@dataclass(frozen=True)
class Limits:
    """Limits of one request, and of all together; past one, a request gets an error that says what to change."""

    max_body_mib: float = 8.0
    """Largest request body, also after decompression, in MiB."""
    max_batch: int = 256
    """Most rows in one request."""
    max_joined: int = 64
    """Most rows of several requests that one run of the model answers together."""
    max_depth: int = 16
    """Deepest nesting of lists and objects in a request's JSON."""
    max_requests: int = 128
    """Most requests in work at a time; further ones are told to come back."""
    max_connections: int = 512
    """Most connections open at a time."""
    timeout_s: float = 30.0
    """Longest time for an answer, and for a request to arrive, in seconds."""

    def __post_init__(self) -> None:
        check_fields(self)
        require(self.max_body_mib > 0, "max_body_mib", "> 0", self.max_body_mib)
        require(self.timeout_s > 0, "timeout_s", "> 0", self.timeout_s)
        require(6 <= self.max_depth <= 256, "max_depth", "in [6, 256]", self.max_depth)
        for name in ("max_batch", "max_joined", "max_requests", "max_connections"):
            require(getattr(self, name) >= 1, name, "≥ 1", getattr(self, name))

    @property
    def max_body_bytes(self) -> int:
        """Largest request body in bytes."""
        return int(self.max_body_mib * MIB)
