"""A SavedModel in TensorFlow's C++ runtime, as a server holds it: loaded and asked through the C API.

No Python TensorFlow is imported. What the runtime aborts on aborts the process, as it would the server: what a
signature says of the graph is therefore compared with the graph once, when the model is loaded.
"""

from collections.abc import Mapping, Sequence
from ctypes import c_char_p, c_void_p
from pathlib import Path
from typing import Any

import numpy as np

from kfusion.rules import UserError
from kfusion.runtime.capi import Port, library, status, to_array, to_tensor
from kfusion.runtime.dtypes import type_name
from kfusion.runtime.saved_model import FILE, TAG, read_signatures, require_variables

REFERENCE = 100
"""What is added to the type of a variable of TensorFlow 1, which gives a reference to its value."""


class ServedModel:
    """A SavedModel that answers, until it is closed.

    Args:
        folder: the version's folder, with `saved_model.pb` in it.

    Raises:
        UserError: the folder holds no SavedModel, no weights, or signatures that its graph does not have.
        Refused: the runtime cannot load it.
    """

    def __init__(self, folder: Path) -> None:
        self.signatures = read_signatures(folder)
        require_variables(folder)
        api = library()
        options, tags = api.TF_NewSessionOptions(), (c_char_p * 1)(TAG.encode())
        self._session: Any = None
        self._graph: Any = api.TF_NewGraph()
        try:
            with status() as error:
                self._session = api.TF_LoadSessionFromSavedModel(
                    options, None, str(folder).encode(), tags, 1, self._graph, None, error
                )
            self._check(folder / FILE)
        except BaseException:
            self.close()
            raise
        finally:
            api.TF_DeleteSessionOptions(options)

    def __enter__(self) -> "ServedModel":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Gives the session and its memory back."""
        (session, self._session), (graph, self._graph) = (self._session, None), (self._graph, None)
        try:
            if session:
                with status() as error:
                    library().TF_CloseSession(session, error)
        finally:
            if session:
                with status() as error:
                    library().TF_DeleteSession(session, error)
            if graph:
                library().TF_DeleteGraph(graph)

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
            UserError: a signature, input or output of that name is missing, or the model is closed.
        """
        if self._session is None:
            raise UserError("the model must be open. Found: it is closed")
        if signature not in self.signatures:
            raise UserError(f"'signature' must be one of {', '.join(self.signatures)}. Received: {signature!r}")
        known = self.signatures[signature]
        wanted = list(outputs or known.outputs)
        if inputs.keys() != known.inputs.keys():
            raise UserError(f"'inputs' must be {', '.join(known.inputs)}. Received: {', '.join(inputs)}")
        if not known.outputs.keys() >= set(wanted):
            raise UserError(f"'outputs' must be of {', '.join(known.outputs)}. Received: {', '.join(wanted)}")
        feeds = (Port * len(inputs))(*(self._port(known.inputs[name][0]) for name in inputs))
        fetches = (Port * len(wanted))(*(self._port(known.outputs[name][0]) for name in wanted))
        given, got = (c_void_p * len(inputs))(), (c_void_p * len(wanted))()
        api = library()
        try:
            for index, values in enumerate(inputs.values()):
                given[index] = to_tensor(np.asarray(values))
            with status() as error:
                api.TF_SessionRun(
                    self._session, None, feeds, given, len(given), fetches, got, len(got), None, 0, None, error
                )
            return {name: to_array(handle) for name, handle in zip(wanted, got, strict=True) if handle}
        finally:
            for handle in (*given, *got):
                if handle:
                    api.TF_DeleteTensor(handle)

    def _port(self, tensor: str) -> Port:
        """The place in the graph that a tensor's name, `operation:number`, means; without an operation: none."""
        operation, _, number = tensor.partition(":")
        index = int(number) if number.isdecimal() and len(number) < 10 else -1 if number else 0
        return Port(library().TF_GraphOperationByName(self._graph, operation.encode()), index)

    def _check(self, path: Path) -> None:
        """Every tensor that a signature names must be there, and of the type that the signature says.

        Raises:
            UserError: one is not; the runtime would follow a null pointer, or take one type for another.
        """
        api = library()
        for signature, known in self.signatures.items():
            for alias, (tensor, dtype, _) in [*known.inputs.items(), *known.outputs.items()]:
                port, where = self._port(tensor), f"{path}: {signature}, {alias}"
                if not port.operation or not 0 <= port.index < api.TF_OperationNumOutputs(port.operation):
                    raise UserError(f"{where}: must be a tensor of the graph. Found: {tensor!r}, which it has not")
                found = api.TF_OperationOutputType(port)
                if found not in (dtype, dtype + REFERENCE):
                    rule = f"must be of the type that its signature says, {type_name(dtype)}"
                    raise UserError(f"{where}: {rule}. Found: {type_name(found)} in the graph")
