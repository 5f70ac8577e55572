"""Ask a model server, TensorFlow Serving or `kfusion.serve`: pictures and sounds in, labels and probabilities out.

Run: python -m kfusion.client --image 3.png --audio three.wav [--url http://127.0.0.1:8501] [--model kfusion]

    with Client("http://127.0.0.1:8501") as client:            # or grpc://127.0.0.1:8500, with the extra `grpc`
        client.predict(image="3.png", audio="three.wav").label

Needs numpy, and for gRPC grpcio and protobuf; no TensorFlow, no Keras.
"""

import argparse
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np

from kfusion.transport import ClientError, Model, Rejected, Rest, TooLate, Unreachable, read_inputs, with_retries
from kfusion.validation import UserError

__all__ = ["Client", "ClientError", "Prediction", "Rejected", "TooLate", "Unreachable"]
PROG = "python -m kfusion.client"


@dataclass(frozen=True, eq=False)
class Prediction:
    """The answer to n pairs.

    Args:
        label: int64 (n,).
        probabilities: float32 (n, num_classes).
        outputs: every output of the model by name, such as `image_probabilities` and `embedding`.
    """

    label: np.ndarray
    probabilities: np.ndarray
    outputs: dict[str, np.ndarray]

    @property
    def class_name(self) -> list[str]:
        """The names of the classes; their numbers, where the model does not tell names."""
        return [str(name) for name in self.outputs.get("class_name", self.label).tolist()]

    @property
    def votes(self) -> dict[str, np.ndarray]:
        """What each modality says alone: {"image", "audio"}: int64 (n,), a class's number; -1 where it is absent."""
        found = {}
        for name in ("image", "audio"):
            alone = self.outputs.get(f"{name}_probabilities", np.zeros_like(self.probabilities))
            found[name] = np.where(alone.any(axis=1), alone.argmax(axis=1), -1)
        return found


class Client:
    """A connection to one model of a server.

    Args:
        url: http://, https://, grpc:// or grpcs://, then host:port; ports 8501 and 8500 where none is given.
        model: the model's name.
        version, label: which version; neither: the latest.
        timeout_s: longest time for an answer, retries included, in seconds.
        retries: how often a request is sent again where no connection could be made, or the server had closed the one
            that was kept open from an earlier request; never after any other failure.

    Raises:
        UserError: the address is of another kind, both version and label are given, or an extra is missing.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8501",
        model: str = "kfusion",
        *,
        version: int | None = None,
        label: str | None = None,
        timeout_s: float = 10.0,
        retries: int = 2,
    ) -> None:
        if version is not None and label is not None:
            raise UserError(f"'version' and 'label' must not be given together. Received: {version} and {label!r}")
        if not timeout_s > 0:
            raise UserError(f"'timeout_s' must be > 0. Received: {timeout_s}")
        if retries < 0:
            raise UserError(f"'retries' must be ≥ 0. Received: {retries}")
        self._model, self._timeout_s, self._retries = Model(model, version, label), timeout_s, retries
        scheme, _, target = url.partition("://")
        if scheme in ("grpc", "grpcs"):
            from kfusion.grpc_transport import Grpc

            self._way: Any = Grpc(target, scheme == "grpcs")
        else:
            self._way = Rest(url)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._way.close()

    def predict(self, image: Any = None, audio: Any = None) -> Prediction:
        """The answer to one pair or many; either half may be left out.

        Args:
            image: a PNG or JPEG file, or a list of them, each a path, its bytes, or None; none may be empty, but b"" in
                a list stands for None; or pixels: (height, width), (height, width, channels) or a batch of those, uint8
                0-255 or float in [0, 1]; also (batch, channels, height, width), where no other order can be meant.
            audio: WAV files likewise; or features (num_audio,), (batch, num_audio) or (batch, frames, coefficients).

        Raises:
            UserError: nothing is given, files and arrays are mixed, or a file cannot be read or is empty.
            ClientError: `Unreachable`, `TooLate` or `Rejected`.
        """
        signature, inputs = read_inputs(image, audio)
        found = with_retries(
            lambda left: self._way.predict(self._model, signature, inputs, left),
            self._way.where,
            self._timeout_s,
            self._retries,
        )
        outputs = {name: _as_array(values) for name, values in found.items()}
        missing = [name for name in ("label", "probabilities") if name not in outputs]
        if missing:
            raise Rejected(200, f"the model gives no {' and no '.join(missing)}; is it one of kfusion's?")
        return Prediction(outputs["label"], outputs["probabilities"].astype(np.float32), outputs)

    def status(self) -> list[dict[str, Any]]:
        """State of the model's versions; over REST only."""
        return self._get("")["model_version_status"]

    def metadata(self) -> dict[str, Any]:
        """What the model takes and gives, by signature; over REST only."""
        return self._get("/metadata")["metadata"]["signature_def"]["signature_def"]

    def _get(self, what: str) -> Any:
        if not isinstance(self._way, Rest):
            raise UserError("status and metadata are asked over REST; 'url' must begin with http. Received: grpc")
        way, path = self._way, self._model.path + what
        return with_retries(lambda left: way.ask("GET", path, None, left), way.where, self._timeout_s, self._retries)


def _as_array(values: Any) -> np.ndarray:
    """An output as an array; text as str."""
    array = np.asarray(values)
    if array.dtype == object:
        return np.array([value.decode("utf-8", "replace") for value in array.ravel()]).reshape(array.shape)
    return array


def print_votes(answer: Prediction) -> None:
    """What the image and the sound of the first pair say alone, where both are there."""
    votes = {name: int(labels[0]) for name, labels in answer.votes.items()}
    if min(votes.values()) < 0:
        return
    names = {int(answer.label[0]): answer.class_name[0]}
    said = [
        f"{name} alone: {names.get(vote, f'class {vote}')} ({answer.outputs[f'{name}_probabilities'][0, vote]:.1%})"
        for name, vote in votes.items()
    ]
    print(f"{', '.join(said)}; they {'agree' if votes['image'] == votes['audio'] else 'disagree'}")


def main() -> None:
    """Asks about one pair, and prints the class and how sure the model is."""
    prog = sys.argv[0] if sys.argv[0].startswith("kfusion ") else PROG
    parser = argparse.ArgumentParser(prog=prog, description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--image", help="a PNG or JPEG file")
    parser.add_argument("--audio", help="a WAV file")
    parser.add_argument("--url", default="http://127.0.0.1:8501", help="http://, https://, grpc:// or grpcs://")
    parser.add_argument("--model", default="kfusion", help="the model's name")
    command = parser.parse_args()
    try:
        with Client(command.url, command.model) as client:
            answer = client.predict(command.image, command.audio)
    except (ClientError, UserError) as error:
        sys.stderr.write(f"kfusion: {' '.join(str(error).split())}\n")
        raise SystemExit(2 if isinstance(error, UserError) else 1) from None
    print(f"{answer.class_name[0]}  ({answer.probabilities[0].max():.1%} sure)")
    print_votes(answer)


if __name__ == "__main__":
    main()
