"""What quantization cost, against what can be computed by hand; and the page that shows it."""

import html.parser
import json
import re

import numpy as np
import pytest
import qrs
from models import array, batch, encoder, linear, mlp
from qrs import nn
from qrs.diagnosis import PARTS, Histogram, Noise, diagnose, differences, page, sources, times
from qrs.diagnosis.sources import within

STATIC = qrs.Recipe.preset("w8a8-static")


def quantized(model, batches, recipe=STATIC):
    return qrs.quantize_model(model, recipe, qrs.calibrate(model, batches, STATIC))


# ---- noise


def test_noise_adds_over_batches_as_if_they_were_one():
    x, y = array(6, 5), array(6, 5, seed=1)
    parts = Noise.between(x[:2], y[:2]) + Noise.between(x[2:], y[2:])
    assert parts.sqnr_db == pytest.approx(qrs.compare(x, y).sqnr_db, abs=1e-9)


def test_noise_of_the_same_of_nothing_and_of_what_is_not_finite():
    x = np.float32([1, -np.inf, 2])
    assert Noise.between(x, x) == Noise(5.0, 0.0)
    assert Noise.between(x, x).to_dict() == {"sqnr_db": None, "ratio": 0.0}
    for other in (np.float32([1, 0, 2]), np.float32([1, np.nan, 2]), np.float32([1, np.inf, 2])):
        assert Noise.between(x, other).ratio == np.inf
    lost = Noise.between(np.zeros(2, np.float32), np.ones(2, np.float32))
    assert (lost.sqnr_db, lost.ratio, lost.to_dict()["ratio"]) == (-np.inf, np.inf, None)
    with pytest.raises(ValueError, match=r"\(2,\) and \(3,\)"):
        Noise.between(np.zeros(2), np.zeros(3))


# ---- differences


def test_differences_see_inner_layers_and_all_batches():
    model, given = encoder(), [batch(seed=1), batch(seed=2)]
    small, _ = qrs.quantize_model(model, qrs.Recipe.preset("w8a16"))
    seen = differences(model, small, iter(given))
    assert list(seen.layers) == list(model.layers)
    assert "block/attention/query" in seen.layers
    exact, other = (np.concatenate([m.run(b)["y"] for b in given]) for m in (model, small))
    assert seen.total.sqnr_db == pytest.approx(qrs.compare(exact, other).sqnr_db, abs=1e-6)
    assert seen.worst[0][1].ratio == max(noise.ratio for noise in seen.layers.values())


def test_a_model_does_not_differ_from_itself():
    seen = differences(mlp(), mlp(), [{"x": array(3, 4)}])
    assert seen.total.ratio == 0
    assert all(noise.error == 0 < noise.signal for noise in seen.layers.values())


def test_layers_of_other_names_are_matched_by_what_they_write():
    one, two = (
        qrs.Model([qrs.Node(n, linear(3, 4), ["x"], "h"), qrs.Node("b", nn.Normalize(), ["h"])], ["x"], ["b"])
        for n in "ac"
    )
    assert list(differences(one, two, [{"x": array(3, 4)}]).layers) == ["a", "b"]


def test_what_cannot_be_compared_is_refused():
    other = qrs.Model.chain({"first": linear(6, 4)}, input="z")
    with pytest.raises(ValueError, match=r"inputs .*'x'.*'z'"):
        differences(mlp(), other, [{"x": array(3, 4)}])
    with pytest.raises(ValueError, match="no batches"):
        differences(mlp(), mlp(), [])
    with pytest.raises(ValueError, match="no batches"):
        sources(mlp(), mlp(), [])


# ---- sources


def test_sources_are_the_noise_of_each_error_alone():
    """Of a layer without bias or activation: the error of the weight times the input, and the reverse."""
    w, x = array(6, 8), array(5, 8, seed=1)
    model = qrs.Model.chain({"head": nn.Linear(w)})
    scheme = qrs.Scheme("uint4")
    known = scheme.qparams(-1.0, 1.0)  # narrower than the data, so that some of it is clipped
    q = qrs.quantize(w, qrs.Scheme("int4", qrs.per_channel(0), fit="mse"))
    small = model.with_layers({"head": nn.Linear(q, input=qrs.Static(scheme, qparams=known))})
    seen = sources(model, small, [{"x": x}])["head"]

    ends = qrs.fake_quantize([-9.0, 9.0], scheme, qparams=known)
    clipped = np.clip(x, *ends)
    rounding = qrs.fake_quantize(x, scheme, qparams=known) - clipped
    w_clipped = within(w, q)
    w_rounding = q.dequantize() - w_clipped
    wanted = {
        "weight rounding": x @ w_rounding.T,
        "weight clipping": x @ (w_clipped - w).T,
        "activation rounding": rounding @ w.T,
        "activation clipping": (clipped - x) @ w.T,
    }
    assert list(seen.parts) == list(PARTS)
    for name, error in wanted.items():
        assert seen.parts[name].error == pytest.approx(np.sum(error.astype(np.float64) ** 2), rel=1e-4), name
        assert seen.parts[name].error > 0, name
    own = Noise.between(model.run({"x": x})["y"], small.run({"x": x})["y"])
    assert seen.own.error == pytest.approx(own.error, rel=1e-6)
    assert seen.input.ends == pytest.approx(tuple(ends))


def test_an_input_in_float32_and_one_with_its_own_range_clip_nothing():
    model, given = mlp(), [{"x": array(5, 4)}]
    floats, _ = qrs.quantize_model(model, qrs.Recipe.preset("w8a16"))
    for seen in sources(model, floats, given).values():
        assert seen.parts["activation rounding"].error == seen.parts["activation clipping"].error == 0
    dynamic, _ = qrs.quantize_model(model, qrs.Recipe.preset("w8a8-dynamic"))
    for seen in sources(model, dynamic, given).values():
        assert seen.parts["activation rounding"].error > 0 == seen.parts["activation clipping"].error
        assert seen.input.ends is None


def test_sources_of_every_kind_of_layer_and_input():
    model = encoder()
    small, report = qrs.quantize_model(model, qrs.Recipe.preset("w8a8-dynamic"))
    seen = sources(model, small, [batch(), batch(seed=1)])
    assert list(seen) == [row.name for row in report.quantized]
    assert seen["words"].input is None  # ids
    assert all(source.own.error > 0 for source in seen.values())
    counted = seen["block/up"].input
    assert counted.counts.sum() == 2 * 15 * 8


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "nf4", "codebook:4", "q4_0", "trellis:2", "int4"])
def test_weights_of_every_kind_of_format_are_split(dtype):
    w = array(4, 32)
    q = qrs.quantize(w, dtype)
    clipped = within(w, q)
    assert clipped.shape == w.shape
    levels = q.dequantize()
    assert np.abs(clipped - w).max() <= np.abs(levels - w).max() + 1e-6
    small = qrs.Model.chain({"head": nn.Linear(q)})
    seen = sources(qrs.Model.chain({"head": nn.Linear(w)}), small, [{"x": array(2, 32)}])["head"]
    assert seen.parts["weight rounding"].error > 0


# ---- times


def test_times_name_every_layer_and_add_up():
    model = encoder()
    one, two = times([model, model], batch(), runs=3)
    assert set(one.layers) == set(two.layers) == set(model.layers)
    assert 0 < one.layers["block/attention/query"] < one.layers["block/attention"] < one.total
    with pytest.raises(ValueError, match="runs is 0"):
        times([model], batch(), runs=0)


# ---- the page


class Checker(html.parser.HTMLParser):
    """Elements open and close in order; what a browser would fetch is collected."""

    VOID = ("meta", "rect", "path", "br")

    def __init__(self):
        super().__init__()
        self.open, self.seen, self.fetched, self.text = [], [], [], []

    def handle_starttag(self, tag, attributes):
        self.seen.append((tag, dict(attributes)))
        self.fetched += [value for name, value in attributes if name in ("src", "href", "srcset", "data")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.seen.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    @classmethod
    def of(cls, text):
        checker = cls()
        checker.feed(text)
        checker.close()
        assert not checker.open
        return checker


@pytest.fixture(scope="module")
def told():
    name = "<script>alert('&')</script>"
    model = qrs.Model.chain({name: linear(6, 4), "act": nn.Activation("relu"), "last": linear(3, 6)})
    given = [{"x": array(5, 4)}, {"x": array(5, 4, seed=1)}]
    small, report = quantized(model, given)
    seen = diagnose(model, small, given)
    return report, seen, page(report, seen, "a <b> & c")


def test_the_page_stands_alone_and_is_well_formed(told):
    _, _, text = told
    checker = Checker.of(text)
    assert not checker.fetched
    assert not re.search(r"http|url\(|@import|<script", text)
    assert "a <b> & c" in "".join(checker.text)
    assert "<script>alert('&')</script>" in checker.text  # a name is text


def test_the_page_can_be_read_without_seeing_it(told):
    _, _, text = told
    checker = Checker.of(text)
    drawn = [attributes for tag, attributes in checker.seen if tag == "svg"]
    assert drawn
    assert all(svg.get("aria-label") or svg.get("aria-hidden") for svg in drawn)
    heads = [attributes for tag, attributes in checker.seen if tag == "th"]
    assert {head["scope"] for head in heads} == {"col", "row"}
    tags = [tag for tag, _ in checker.seen]
    assert tags.count("caption") == tags.count("table") >= 4
    assert ("html", {"lang": "en"}) in checker.seen


def test_the_page_tells_the_numbers(told):
    report, seen, text = told
    plain = "".join(Checker.of(text).text)
    assert f"{seen.differences.total.sqnr_db:.1f} dB" in plain
    assert "2 of 3" in plain
    assert "has no weight to quantize" in plain
    for row in report.quantized:
        assert f"{row.sqnr_db:.1f}" in plain
        assert f"{seen.sources[row.name].own.sqnr_db:.1f}" in plain
    assert json.dumps(seen.to_dict(), allow_nan=False)


def test_bars_are_as_long_as_what_they_show(told):
    """The longest noise fills its bar, and the parts of each bar add up to its length."""
    _, seen, text = told
    section = text.split("Where the error comes from")[1].split("<h2>")[0]
    bars = [
        sum(float(width) for width in re.findall(r'x="[\d.]+" width="([\d.]+)"', svg))
        for svg in re.findall(r'<svg class="bar".*?</svg>', section)
    ]
    noise = sorted((source.own.ratio for source in seen.sources.values()), reverse=True)
    assert bars == pytest.approx([100 * (ratio / noise[0]) ** 0.5 for ratio in noise], abs=0.1)


def test_a_page_without_data_says_so():
    _, report = qrs.quantize_model(mlp(), qrs.Recipe.preset("w8a16"))
    text = page(report)
    Checker.of(text)
    assert "Not measured" in text
    assert "Milliseconds" not in text


def test_a_histogram_counts_everything_even_of_one_value():
    seen = Histogram.empty(2.0, 2.0)
    seen.add(np.full(7, 2.0))
    assert seen.counts.sum() == 7
    assert seen.hi > seen.lo
