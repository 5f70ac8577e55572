"""Who may ask, and what every answer says to a browser: no other site, no embedding, no guessing of types."""

from collections.abc import Mapping

from kfusion.serving.answers import Refusal

LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]")
PAGE_POLICY = "; ".join(
    (
        "default-src 'none'",
        *("script-src 'self'", "style-src 'self'", "img-src 'self' data: blob:", "media-src 'self' data: blob:"),
        *("connect-src 'self'", "worker-src 'self' blob:", "font-src 'self'", "manifest-src 'self'"),
        *("base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"),
    )
)
"""Content security policy of the page: its own files only, and what it records and draws itself."""
SECURITY = [
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", PAGE_POLICY.encode()),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"microphone=(self), camera=(), geolocation=()"),
    (b"x-frame-options", b"DENY"),
]


def allowed_hosts(host: str, more: tuple[str, ...]) -> frozenset[str] | None:
    """The names under which the server answers; None: under any, since it was told to listen beyond this machine."""
    given = host if ":" not in host else f"[{host}]"
    if not more and given not in LOCAL_NAMES:
        return None
    return frozenset(name.lower() for name in (*LOCAL_NAMES, given, *more))


def check_sender(headers: Mapping[bytes, bytes], hosts: frozenset[str] | None) -> None:
    """Refuses a browser that asks on behalf of another site.

    A site could otherwise reach a loopback server through its visitors' browsers: by a request across origins, or by
    giving its own name the address 127.0.0.1 (DNS rebinding).

    Raises:
        Refusal: 421 for another host name, 403 for another origin.
    """
    host = (headers.get(b"host") or b"").decode("latin-1").lower()
    if hosts is not None and host and _without_port(host) not in hosts:
        raise Refusal(421, "this server answers to the names it was started with only; see --allow-host")
    origin = headers.get(b"origin")
    if origin is not None and origin.decode("latin-1").lower().partition("://")[2] != host:
        raise Refusal(403, "requests from other sites are not answered (CORS is closed)")


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() else host
