"""The REST interface: what is below /v1."""

import asyncio
from collections.abc import Mapping
from typing import Any

import numpy as np

from kfusion.runtime.capi import Refused
from kfusion.serving.answers import GRPC_TO_HTTP, Answer, Refusal
from kfusion.serving.batching import Batcher
from kfusion.serving.bodies import read_body
from kfusion.serving.descriptions import metadata_body, status_body
from kfusion.serving.limits import Limits
from kfusion.serving.models import Models
from kfusion.serving.paths import Target, read_path
from kfusion.serving.protocol import read_inputs, read_request, write_outputs
from kfusion.serving.versions import Version

ASSERTED = "assertion failed: ["


class Api:
    """Answers TensorFlow Serving's REST requests for one model."""

    def __init__(self, models: Models, batcher: Batcher, limits: Limits) -> None:
        self._models, self._batcher, self._limits = models, batcher, limits

    async def answer(self, scope: Any, headers: Mapping[bytes, bytes], receive: Any) -> Answer:
        """The answer to one request below /v1.

        Raises:
            Refusal: it cannot be answered.
        """
        target = read_path(scope["method"], scope["raw_path"].decode("latin-1"))
        if target.verb == "status":
            return self._status(target)
        version = self._models.find(target.model, target.version, target.label)
        if target.verb == "metadata":
            return Answer(200, metadata_body(self._models.name, version))
        if target.verb != "predict":
            raise Refusal(400, f"Expected a signature for {target.verb}; this model has signatures for predict only")
        return await self._predict(target, await read_body(headers, receive, self._limits))

    def _status(self, target: Target) -> Answer:
        versions = self._models.versions if target.model == self._models.name else {}
        number = target.version
        if target.label is not None and versions:
            number = self._models.find(target.model, None, target.label).number
        if number is None:
            if not versions:
                raise Refusal(404, f"Could not find any versions of model {target.model[:100]}")
            return Answer(200, status_body(versions.values()))
        if number not in versions:
            raise Refusal(404, f"Could not find version {number} of model {target.model[:100]}")
        return Answer(200, status_body([versions[number]]))

    async def _predict(self, target: Target, body: bytes) -> Answer:
        limits = self._limits
        request = read_request(body, limits.max_depth)
        # Found once more, and from here to `submit` without waiting: the version may have changed meanwhile.
        version = self._models.find(target.model, target.version, target.label)
        signature = version.signatures.get(request.signature)
        if signature is None:
            raise Refusal(400, f'Serving signature name: "{request.signature[:100]}" not found in signature def')
        inputs, num_rows = read_inputs(request, signature, limits.max_batch)
        name, by_rows = request.signature, request.by_rows
        del request, body  # Not to be kept while the model is waited for.
        outputs = await self._outputs(version, name, inputs, num_rows)
        facts = {"version": version.number, "signature": name, "rows": num_rows}
        return Answer(200, write_outputs(outputs, by_rows), facts=facts)

    async def _outputs(
        self, version: Version, signature: str, inputs: dict[str, np.ndarray], num_rows: int
    ) -> dict[str, np.ndarray]:
        job = self._batcher.submit(version, signature, inputs, num_rows)
        late = asyncio.get_running_loop().call_later(self._limits.timeout_s, job.cancel)
        try:
            return await job
        except Refused as error:
            raise Refusal(GRPC_TO_HTTP.get(error.number, 500), _sentence(str(error))) from error
        except asyncio.CancelledError:
            if (task := asyncio.current_task()) and task.cancelling():
                raise
            sentence = f"no answer within {self._limits.timeout_s:g} s; send fewer rows at a time, or come back later"
            raise Refusal(504, sentence) from None
        finally:
            late.cancel()
            # An error holds this frame, and the future the error: a circle that would keep the tensors.
            del job


def _sentence(text: str) -> str:
    """The runtime's error without the places in the graph that it names after the sentence."""
    text = text.partition("\n\t [[")[0].partition(" [[{{node")[0].strip()
    asserted = text.startswith(ASSERTED) and text.endswith("]")
    return (text[len(ASSERTED) : -1] if asserted else text)[:1000]
