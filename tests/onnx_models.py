"""ONNX models that tests share: written as text, or stored with the test data."""

import os
from pathlib import Path

import numpy as np
import pytest
from models import array

DATA = Path(os.environ.get("QRS_TEST_DATA", Path(__file__).parents[2] / "shared/data")).resolve()


def parsed(text, opset=17):
    """A model in the syntax of ``onnx.parser``."""
    import onnx

    return onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : {opset}]>\n{text}')


def with_constants(model, **constants):
    import onnx

    for name, value in constants.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(value), name))
    return model


def real(path):
    found = DATA / path
    if not found.exists():
        pytest.skip(f"no {path} under {DATA}: set QRS_TEST_DATA to the folder that holds it")
    return str(found)


def digits():
    data = np.load(real("mnist/mnist10k.npz"))
    return [
        (
            (data[f"{part}_x"] / 255).astype(np.float32).reshape(-1, 1, 28, 28),
            data[f"{part}_y"],
        )
        for part in ("train", "test")
    ]


def pictures():
    data = np.load(real("cifar/cifar10_small.npz"))
    return [
        (np.ascontiguousarray(np.moveaxis(data[f"{part}_x"], -1, 1)).astype(np.float32), data[f"{part}_y"])
        for part in ("calib", "test")
    ]


FEEDS = {
    "mnist/cnn_mnist.onnx": lambda: {"x": digits()[1][0][:16]},
    "cifar/resnet8_cifar10.onnx": lambda: {"x": pictures()[1][0][:8]},
    "face/slim-320.onnx": lambda: {"input": array(1, 3, 240, 320)},
    "lm/lm_llama.onnx": lambda: {"ids": np.load(real("lm/lm_llama_check.npz"))["ids"]},
}
