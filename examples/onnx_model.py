"""Quantize an ONNX model: from ``model.onnx`` and a few batches to a smaller model and what it costs.

    python examples/onnx_model.py model.onnx batches.npz --recipe w8a8-static --output model.qrs

``batches.npz`` holds one array for each input of the model, samples along the first axis. Without arguments
a small network of random weights is built and quantized, to see what comes out; ``--sample FOLDER`` only
writes it there, with data, for ``qrs quantize``, which does all this without a program. It needs
``qrs[onnx]``.
"""

import argparse
import os
import tempfile
import time

import numpy as np
import qrs


def sample(folder):
    """Write an ONNX model of an image classifier, and images for it."""
    import onnx

    rng = np.random.default_rng(0)
    graph = """images (float[N, 3, 32, 32] image) => (float[N, 10] scores) {
        a = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (image, first)
        b = BatchNormalization (a, one, zero, zero, one)
        c = Relu (b)
        d = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (c, second)
        e = Relu (d)
        f = GlobalAveragePool (e)
        g = Flatten (f)
        scores = Gemm <transB = 1> (g, head, bias) }"""
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> {graph}')
    shapes = {"first": (32, 3, 3, 3), "second": (64, 32, 3, 3), "head": (10, 64)}
    weights = {name: rng.normal(size=s) / np.sqrt(np.prod(s[1:])) for name, s in shapes.items()}
    weights |= {"one": np.ones(32), "zero": np.zeros(32), "bias": rng.normal(size=10)}
    for name, value in weights.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(value.astype(np.float32), name))
    path, data = os.path.join(folder, "model.onnx"), os.path.join(folder, "batches.npz")
    onnx.save(model, path)
    np.savez(data, image=rng.normal(size=(128, 3, 32, 32)).astype(np.float32))
    return path, data


def batches(path, size=16):
    """Cut the arrays of a file into batches."""
    arrays = dict(np.load(path))
    count = min(len(array) for array in arrays.values())
    return [{name: a[i : i + size] for name, a in arrays.items()} for i in range(0, count, size)]


def milliseconds(model, batch, runs=5):
    model.run(batch)  # packs weights
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        model.run(batch)
        times.append(time.perf_counter() - start)
    return 1000 * sorted(times)[runs // 2]


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", nargs="?", help="an ONNX file; a small one is built if none is given")
    parser.add_argument("batches", nargs="?", help="an .npz file with an array for each input")
    parser.add_argument("--recipe", default="w8a8-static", choices=qrs.Recipe.presets())
    parser.add_argument("--output", help="where to save the quantized model")
    parser.add_argument("--sample", metavar="FOLDER", help="write the small model and its batches, no more")
    chosen = parser.parse_args(arguments)
    if chosen.sample:
        print(*sample(chosen.sample))
        return None
    if chosen.model and not chosen.batches:
        parser.error("batches are needed to calibrate and to compare: give an .npz file")
    with tempfile.TemporaryDirectory() as folder:
        path, data = (chosen.model, chosen.batches) if chosen.model else sample(folder)
        # Batches for calibration and, the last one, for the comparison.
        model, (*seen, held) = qrs.onnx.load(path), batches(data)
        recipe = qrs.Recipe.preset(chosen.recipe)
        stats = qrs.calibrate(model, seen, recipe) if chosen.recipe.endswith("static") else None
        small, report = qrs.quantize_model(model, recipe, stats)
        print(report)

        exact, given = model.run(held), small.run(held)
        for name in model.outputs:
            print(f"{name}: {qrs.compare(exact[name], given[name]).sqnr_db:.1f} dB signal to noise")
        before, after = milliseconds(model, held), milliseconds(small, held)
        print(
            f"{before:.1f} -> {after:.1f} ms a batch, {report.bytes_before:,} -> {report.bytes_after:,} bytes"
        )
        small.save(chosen.output or os.path.join(folder, "model.qrs"))
    return report


if __name__ == "__main__":
    main()
