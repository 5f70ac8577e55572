"""Serve an exported model over HTTP, as TensorFlow Serving does: a TF-Serving-compatible development server.

Run: python -m kfusion.serve saved_models/NAME [--port 8501] [--host 127.0.0.1]
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from kfusion.cli import console, parse, quiet, run_main
from kfusion.serving.limits import Limits
from kfusion.validation import UserError, require

PROG = "python -m kfusion.serve"
NEEDED = ("starlette", "uvicorn", "uvloop", "httptools", "orjson", "prometheus_client")


@dataclass(frozen=True)
class Command:
    """Serve an exported model over HTTP: a TF-Serving-compatible development server."""

    model: tyro.conf.Positional[Path]
    """The model's folder, with a sub-folder per version: saved_models/NAME."""
    name: str = ""
    """What clients call the model; default: the folder's name."""
    host: str = "127.0.0.1"
    """The address to listen on; 127.0.0.1 is reached from this machine only, 0.0.0.0 from anywhere."""
    port: int = 8501
    """The port to listen on; 0: any that is free."""
    allow_host: tuple[str, ...] = ()
    """Further host names to answer to, such as that of a proxy in front."""
    versions: int = 1
    """How many of the latest versions are served."""
    label: tuple[str, ...] = ()
    """Names of versions, such as stable=3; these versions are served too."""
    poll_s: float = 1.0
    """Seconds between two looks for new versions."""
    threads: int = 2
    """Runs of the model at a time, of different signatures or versions."""
    log_requests: bool = True
    """Write a line of JSON to standard error for each request."""
    limits: Annotated[Limits, tyro.conf.arg(name="")] = field(default_factory=Limits)

    def __post_init__(self) -> None:
        require(0 <= self.port < 2**16, "port", "in [0, 65535]", self.port)
        require(self.versions >= 1, "versions", "≥ 1", self.versions)
        require(self.poll_s > 0, "poll_s", "> 0", self.poll_s)
        require(self.threads >= 1, "threads", "≥ 1", self.threads)
        require(not set("/:") & set(self.name), "name", "without / and :", self.name)


def read_labels(words: tuple[str, ...]) -> dict[str, int]:
    """`LABEL=VERSION` words as a table.

    Raises:
        UserError: a word has another form.
    """
    labels = {}
    for word in words:
        label, _, number = word.partition("=")
        require(bool(label) and number.isascii() and number.isdigit(), "label", "LABEL=VERSION", word)
        labels[label] = int(number)
    return labels


def check_folder(folder: Path) -> None:
    """The folder must hold a version.

    Raises:
        UserError: there is none.
    """
    from kfusion.serving.model_manager import version_numbers

    if not folder.is_dir():
        raise UserError(f"{folder}: must be a folder with exported versions. Found: no folder")
    if (folder / "saved_model.pb").exists():
        raise UserError(f"{folder}: must be the folder above the version, {folder.parent}. Found: the version itself")
    if not version_numbers(folder):
        raise UserError(f"{folder}: must hold a version, a folder such as 1 with saved_model.pb. Found: none")


def main() -> None:
    """Serves until it is interrupted."""
    command = parse(Command, PROG)
    labels = read_labels(command.label)
    try:
        from kfusion.runtime.c_api import library
        from kfusion.serving.server import Service, listen, run
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in NEEDED:
            raise
        raise UserError(
            f"the server needs the extra: pip install 'kfusion[serve]' (from a checkout: pip install '.[serve]'). "
            f"Found: no package {error.name}"
        ) from None
    check_folder(command.model)
    folder = command.model.resolve()
    service = Service(
        name=command.name or folder.name,
        folder=folder,
        hosts=command.allow_host,
        labels=labels,
        num_versions=command.versions,
        poll_s=command.poll_s,
        threads=command.threads,
        log_requests=command.log_requests,
        limits=command.limits,
    )
    bound = listen(command.host, command.port)
    with quiet():
        library()

    def started() -> None:
        host, port = bound.getsockname()[:2]
        address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        console.print(f"serving {service.name} at {address}/v1/models/{service.name} (Ctrl-C ends it)", soft_wrap=True)

    run(service, bound, started)


if __name__ == "__main__":
    run_main(main)
