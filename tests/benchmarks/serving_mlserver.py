"""MLServer around the same SavedModel, for the load benchmark; runs in an environment of its own.

    PYTHON tests/benchmarks/serving_mlserver.py VERSION_FOLDER PORT BATCH_SIZE

It speaks the V2 inference protocol, in which tensors are flat lists, so its JSON is lighter than TensorFlow Serving's.
"""

import asyncio
import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from mlserver import MLModel, MLServer, ModelSettings, Settings, types
from mlserver.codecs import NumpyCodec, StringCodec
from serving_files import read_image, read_sound


class Fusion(MLModel):
    async def load(self) -> bool:
        import tensorflow as tf

        self.model = tf.saved_model.load(sys.argv[1])
        self.answer = self.model.signatures["serving_default"]
        self.constant = tf.constant
        return True

    async def predict(self, payload: types.InferenceRequest) -> types.InferenceResponse:
        if payload.inputs[0].datatype == "BYTES":
            files = {each.name: StringCodec.decode_input(each) for each in payload.inputs}
            given = {
                "image": np.stack([read_image(text) for text in files["image_bytes"]]),
                "audio": np.stack([read_sound(text) for text in files["audio_bytes"]]),
            }
        else:
            given = {each.name: NumpyCodec.decode_input(each).astype(np.float32) for each in payload.inputs}
        answer = self.answer(**{name: self.constant(values) for name, values in given.items()})
        outputs = []
        for name, values in answer.items():
            array = values.numpy()
            if array.dtype == object:
                outputs.append(StringCodec.encode_output(name, [text.decode() for text in array.tolist()]))
            else:
                outputs.append(NumpyCodec.encode_output(name, array))
        return types.InferenceResponse(model_name=self.name, outputs=outputs)


async def main() -> None:
    size, port = int(sys.argv[3]), int(sys.argv[2])
    batching = {"max_batch_size": size, "max_batch_time": 0.002} if size > 1 else {}
    settings = Settings(
        host="127.0.0.1", http_port=port, grpc_port=port + 1, metrics_port=port + 2, parallel_workers=0, debug=False
    )
    model = ModelSettings(name="kfusion", implementation=Fusion, **batching)
    server = MLServer(settings)
    await server.start([model])


if __name__ == "__main__":
    asyncio.run(main())
