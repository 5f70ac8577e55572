"""Ask a model server, TensorFlow Serving or `kfusion.serve`: files or arrays in, labels and probabilities out.

Run: python -m kfusion.client --image 3.png --audio three.wav [--url http://127.0.0.1:8501] [--model kfusion]
     python -m kfusion.client --input vector=0.5,1,2          # any other modality: NAME=NUMBERS or NAME=FILE

    with Client("http://127.0.0.1:8501") as client:            # or grpc://127.0.0.1:8500, with the extra `grpc`
        client.predict(image="3.png", audio="three.wav").label
        client.predict(vector=[0.5, 1, 2]).votes

Needs numpy, and for gRPC grpcio and protobuf; no TensorFlow, no Keras.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kfusion.modalities import kind_of_file
from kfusion.transport import (
    PAIR,
    USUAL,
    ClientError,
    Model,
    ModelInputs,
    Rejected,
    Rest,
    TooLate,
    Unreachable,
    read_inputs,
    with_retries,
)
from kfusion.validation import UserError, require

__all__ = ["Client", "ClientError", "Prediction", "Rejected", "TooLate", "Unreachable"]
PROG = "python -m kfusion.client"


@dataclass(frozen=True, eq=False)
class Prediction:
    """The outputs for n samples.

    Args:
        label: int64 (n,).
        probabilities: float32 (n, num_classes).
        outputs: every output of the model by name, such as `image_probabilities` and `embedding`.
        modalities: the names of the model's modalities.
    """

    label: np.ndarray
    probabilities: np.ndarray
    outputs: dict[str, np.ndarray]
    modalities: tuple[str, ...] = USUAL

    @property
    def class_name(self) -> list[str]:
        """The names of the classes; their numbers, where the model does not tell names."""
        return [str(name) for name in self.outputs.get("class_name", self.label).tolist()]

    @property
    def votes(self) -> dict[str, np.ndarray]:
        """The class of each modality alone, by name: int64 (n,); -1 where it is absent."""
        votes = {}
        for name in self.modalities:
            alone = self.outputs.get(f"{name}_probabilities", np.zeros_like(self.probabilities))
            votes[name] = np.where(alone.any(axis=1), alone.argmax(axis=1), -1)
        return votes


class Client:
    """A connection to one model of a server.

    Args:
        url: http://, https://, grpc:// or grpcs://, then host:port; ports 8501 and 8500 where none is given.
        model: the model's name.
        modalities: the names of the model's modalities; None: those that the server names, over REST, for files and for
            samples other than image and audio; else image and audio.
        version, label: which version; neither: the latest.
        timeout_s: longest time for a prediction, retries included, in seconds.
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
        modalities: Sequence[str] | None = None,
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
        self._inputs = ModelInputs(tuple(modalities)) if modalities else None
        scheme, _, target = url.partition("://")
        if scheme in ("grpc", "grpcs"):
            from kfusion.transport import Grpc

            self._transport: Any = Grpc(target, scheme == "grpcs")
        else:
            self._transport = Rest(url)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection."""
        self._transport.close()

    def predict(self, image: Any = None, audio: Any = None, **samples: Any) -> Prediction:
        """Predictions for one sample or many; any modality may be left out, but one.

        Args:
            image: a PNG or JPEG file, or a list of them, each a path, its bytes, or None; none may be empty, but b"" in
                a list stands for None; or pixels: (height, width), (height, width, channels) or a batch of those, uint8
                0-255 or float in [0, 1]; also (batch, channels, height, width), where no other order can be meant.
            audio: WAV files likewise; or features (num_audio,), (batch, num_audio) or (batch, frames, coefficients).
            samples: those of other modalities, by name: files likewise, or numbers (size,) or (batch, size).

        Raises:
            UserError: nothing is given, no endpoint takes such files and arrays together, or a file cannot be read.
            ClientError: `Unreachable`, `TooLate` or `Rejected`.
        """
        samples = {**dict(zip(USUAL, (image, audio), strict=True)), **samples}
        samples = {name: value for name, value in samples.items() if value is not None}
        model = self._inputs or (PAIR if samples.keys() <= set(USUAL) else self._learned_inputs(samples))
        signature, inputs = read_inputs(samples, model)
        if signature == "raw_bytes" and not self._inputs and isinstance(self._transport, Rest):
            model = self._learned_inputs(samples)
            signature, inputs = read_inputs(samples, model)
        response = with_retries(
            lambda left: self._transport.predict(self._model, signature, inputs, left),
            self._transport.where,
            self._timeout_s,
            self._retries,
        )
        outputs = {name: _as_array(values) for name, values in response.items()}
        missing = [name for name in ("label", "probabilities") if name not in outputs]
        if missing:
            raise Rejected(200, f"the model gives no {' and no '.join(missing)}; is it one of kfusion's?")
        return Prediction(outputs["label"], outputs["probabilities"].astype(np.float32), outputs, model.names)

    def _learned_inputs(self, samples: dict[str, Any]) -> ModelInputs:
        """What the model takes, from the server's metadata."""
        if not isinstance(self._transport, Rest):
            raise UserError(f"'modalities' must name all of the model's over gRPC. Received: {', '.join(samples)}")
        self._inputs = ModelInputs.from_metadata(self.metadata())
        return self._inputs

    def status(self) -> list[dict[str, Any]]:
        """State of the model's versions; over REST only."""
        return self._get("")["model_version_status"]

    def metadata(self) -> dict[str, Any]:
        """The model's inputs and outputs, by signature; over REST only."""
        return self._get("/metadata")["metadata"]["signature_def"]["signature_def"]

    def _get(self, path: str) -> Any:
        rest, path = self._transport, self._model.path + path
        if not isinstance(rest, Rest):
            raise UserError("status and metadata are asked over REST; 'url' must begin with http. Received: grpc")
        return with_retries(
            lambda left: rest.request("GET", path, None, left), rest.where, self._timeout_s, self._retries
        )


def _as_array(values: Any) -> np.ndarray:
    """An output as an array; text as str."""
    array = np.asarray(values)
    if array.dtype == object:
        return np.array([value.decode("utf-8", "replace") for value in array.ravel()]).reshape(array.shape)
    return array


def print_votes(prediction: Prediction) -> None:
    """The class of each modality alone, for the first sample, where there are two or more."""
    votes = {name: int(labels[0]) for name, labels in prediction.votes.items() if labels[0] >= 0}
    if len(votes) < 2:
        return
    names, outputs = {int(prediction.label[0]): prediction.class_name[0]}, prediction.outputs
    # A model of an earlier version names the answer's class alone.
    told = {name: outputs.get(f"{name}_class_name") for name in votes}
    names |= {votes[name]: str(named[0]) for name, named in told.items() if named is not None}
    alone = [
        f"{name} alone: {names.get(vote, f'class {vote}')} ({outputs[f'{name}_probabilities'][0, vote]:.1%})"
        for name, vote in votes.items()
    ]
    print(f"{', '.join(alone)}; they {'agree' if len(set(votes.values())) == 1 else 'disagree'}")


def print_trust(prediction: Prediction) -> None:
    """What the model does not know of the first sample, where it tells."""
    outputs = prediction.outputs
    if "used" not in outputs:
        return
    there = [name for name, labels in prediction.votes.items() if labels[0] >= 0]
    # A column for each modality in the model's order, which is known of a picture and a sound alone.
    order = prediction.modalities if set(prediction.modalities) == set(USUAL) else ()
    strange = [name for name, used in zip(order, outputs["used"][0], strict=False) if name in there and not used]
    if not outputs["accepted"][0]:
        print(f"but the model does not know this {' or this '.join(there)}: nothing here is familiar")
    elif strange:
        print(f"the {' and the '.join(strange)} is unfamiliar, and treated as absent")


def read_input(word: str) -> tuple[str, Any]:
    """The sample that `NAME=NUMBERS` or `NAME=FILE` gives.

    Args:
        word: such as vector=0.5,1,2; or a file's path: a picture or a sound is sent as it is, a .npy file and any text
            file hold numbers.

    Raises:
        UserError: the word has another form, or the file cannot be read.
    """
    name, _, text = word.partition("=")
    require(name.isidentifier() and bool(text), "input", "NAME=NUMBERS or NAME=FILE", word)
    try:
        return name, _numbers(text)
    except ValueError:
        path = Path(text)
    if kind_of_file(path.name):
        return name, text
    try:
        return name, np.load(path) if path.suffix == ".npy" else _numbers(path.read_text())
    except OSError as error:
        raise UserError(f"{path}: the {name} file must be readable. Found: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"{path}: must hold numbers, separated by commas or spaces. Found: {error}") from error


def _numbers(text: str) -> list[float]:
    return [float(number) for number in text.replace(",", " ").split()]


def main() -> None:
    """Predicts one sample, and prints the class and its probability."""
    prog = sys.argv[0] if sys.argv[0].startswith("kfusion ") else PROG
    parser = argparse.ArgumentParser(prog=prog, description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--image", help="a PNG or JPEG file")
    parser.add_argument("--audio", help="a WAV file")
    parser.add_argument(
        *("--input", "-i"), action="append", default=[], metavar="NAME=VALUE", help="any modality: numbers, or a file"
    )
    parser.add_argument("--url", default="http://127.0.0.1:8501", help="http://, https://, grpc:// or grpcs://")
    parser.add_argument("--model", default="kfusion", help="the model's name")
    command = parser.parse_args()
    try:
        with Client(command.url, command.model) as client:
            samples = {"image": command.image, "audio": command.audio, **dict(map(read_input, command.input))}
            prediction = client.predict(**samples)
    except (ClientError, UserError) as error:
        sys.stderr.write(f"kfusion: {' '.join(str(error).split())}\n")
        raise SystemExit(2 if isinstance(error, UserError) else 1) from None
    print(f"{prediction.class_name[0]}  ({prediction.probabilities[0].max():.1%} sure)")
    print_votes(prediction)
    print_trust(prediction)


if __name__ == "__main__":
    main()
