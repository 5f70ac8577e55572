"""A SavedModel in TensorFlow's C++ runtime, as a server holds it: loaded and asked through the C API.

No Python TensorFlow is imported. What the runtime aborts on aborts the process, as it would the server.
"""

from collections.abc import Mapping, Sequence
from ctypes import c_char_p, c_void_p
from pathlib import Path

import numpy as np

from kfusion.rules import UserError
from kfusion.runtime.capi import Port, library, status, to_array, to_tensor
from kfusion.runtime.saved_model import TAG, read_signatures


class ServedModel:
    """A SavedModel that answers, until it is closed.

    Args:
        folder: the version's folder, with `saved_model.pb` in it.

    Raises:
        UserError: the folder holds no SavedModel.
        Refused: the runtime cannot load it.
    """

    def __init__(self, folder: Path) -> None:
        self.signatures = read_signatures(folder)
        api = library()
        self.graph = api.TF_NewGraph()
        options, tags = api.TF_NewSessionOptions(), (c_char_p * 1)(TAG.encode())
        try:
            with status() as error:
                self.session = api.TF_LoadSessionFromSavedModel(
                    options, None, str(folder).encode(), tags, 1, self.graph, None, error
                )
        finally:
            api.TF_DeleteSessionOptions(options)

    def __enter__(self) -> "ServedModel":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Gives the session and its memory back."""
        with status() as error:
            library().TF_CloseSession(self.session, error)
            library().TF_DeleteSession(self.session, error)
        library().TF_DeleteGraph(self.graph)

    def ask(
        self, signature: str, inputs: Mapping[str, np.ndarray], outputs: Sequence[str] = ()
    ) -> dict[str, np.ndarray]:
        """One request.

        Args:
            signature: an endpoint's name.
            inputs: an array for each of its inputs; object arrays of bytes for strings.
            outputs: which of its outputs to compute; none named: all.

        Returns:
            {alias: array} of the outputs.

        Raises:
            Refused: the runtime's error status.
            UserError: an input or output of that name is missing.
        """
        known = self.signatures[signature]
        wanted = list(outputs or known.outputs)
        if inputs.keys() != known.inputs.keys():
            raise UserError(f"'inputs' must be {', '.join(known.inputs)}. Received: {', '.join(inputs)}")
        feeds = (Port * len(inputs))(*(self._port(known.inputs[name][0]) for name in inputs))
        fetches = (Port * len(wanted))(*(self._port(known.outputs[name][0]) for name in wanted))
        given, got = (c_void_p * len(inputs))(), (c_void_p * len(wanted))()
        api = library()
        try:
            for index, values in enumerate(inputs.values()):
                given[index] = to_tensor(np.asarray(values))
            with status() as error:
                api.TF_SessionRun(
                    self.session, None, feeds, given, len(given), fetches, got, len(got), None, 0, None, error
                )
            return {name: to_array(handle) for name, handle in zip(wanted, got, strict=True) if handle}
        finally:
            for handle in (*given, *got):
                if handle:
                    api.TF_DeleteTensor(handle)

    def _port(self, tensor: str) -> Port:
        """The place in the graph that a tensor's name, `operation:number`, means."""
        operation, _, index = tensor.partition(":")
        return Port(library().TF_GraphOperationByName(self.graph, operation.encode()), int(index or 0))
