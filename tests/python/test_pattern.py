"""norm(x, pattern): the named functions bit for bit, and errors that say where the pattern is wrong."""

import itertools

import checks
import normkit as nk
import numpy as np
import pytest
from reference.families import parameters
from reference.recipe import values
from reference.wide import DTYPES

pytestmark = pytest.mark.compares
every_dtype = pytest.mark.parametrize("dtype", DTYPES)

SHAPES = ((3, 6, 5, 4), (2, 12, 7, 7), (1, 6, 33, 40), (4, 6, 1, 1))


def image(shape, dtype):
    x, dy = values(shape, dtype, "spread", 1), values(shape, dtype, "plain", 2)
    return x, dy, *parameters((shape[1],), dtype)


def assert_equal(pattern, named, named_backward, x, dy, weight, bias, **keywords):
    """Forward, statistics and gradients, with saved statistics and without."""
    y, *statistics = nk.norm(x, pattern, weight, bias, return_stats=True, **keywords)
    wanted, *wanted_statistics = named
    checks.assert_same_bits(y, wanted, pattern)
    for a, b in zip(statistics, wanted_statistics, strict=True):
        checks.assert_same_bits(a, b.reshape(a.shape), f"{pattern} statistics")
    saved = dict(zip(("mean", "rstd")[-len(statistics) :], statistics, strict=True))
    for given in ({}, saved):
        gradients = nk.norm_backward(dy, x, pattern, weight, bias, **keywords, **given)
        for a, b in zip(gradients, named_backward, strict=True):
            checks.assert_same_bits(a, b, f"{pattern} gradients")


@every_dtype
def test_the_named_norms_of_images(dtype):
    for shape in SHAPES:
        x, dy, weight, bias = arrays = image(shape, dtype)
        both = {"return_stats": True}
        if shape[0] * shape[2] * shape[3] > 1:
            assert_equal(
                "[b] c [h w]",
                nk.batch_norm(x, None, None, weight, bias, True, **both),
                nk.batch_norm_backward(dy, x, None, None, weight, bias, True),
                *arrays,
            )
        if shape[2] * shape[3] > 1:
            assert_equal(
                "b c [h w]",
                nk.instance_norm(x, None, None, weight, bias, **both),
                nk.instance_norm_backward(dy, x, None, None, weight, bias),
                *arrays,
            )
        for groups in (1, 2, 3, 6):
            assert_equal(
                "b (g [c]) [h w]",
                nk.group_norm(x, groups, weight, bias, **both),
                nk.group_norm_backward(dy, x, groups, weight, bias),
                *arrays,
                g=groups,
            )
        assert_equal(
            "b [c] h w",
            nk.layer_norm(x, (shape[1],), weight, bias, axis=1, **both),
            nk.layer_norm_backward(dy, x, (shape[1],), weight, bias, axis=1),
            *arrays,
        )
        rms = {"kind": "rms", "eps": 1e-5}
        assert_equal(
            "b [c] h w",
            nk.rms_norm(x, (shape[1],), weight, 1e-5, bias=bias, axis=1, **both),
            nk.rms_norm_backward(dy, x, (shape[1],), weight, 1e-5, bias=bias, axis=1),
            *arrays,
            **rms,
        )


@every_dtype
def test_channels_last_and_other_orders(dtype):
    """The names decide, not the places: GroupNorm of NHWC, of a batch that comes last."""
    for shape in SHAPES:
        x, _, weight, bias = image(shape, dtype)
        for order, pattern in (
            ((0, 2, 3, 1), "b [h w] (g [c])"),
            ((2, 3, 1, 0), "[h w] (g [c]) b"),
            ((1, 0, 2, 3), "(g [c]) b [h w]"),
        ):
            moved = np.ascontiguousarray(x.transpose(order))
            for view in (moved, x.transpose(order)):
                y = nk.norm(view, pattern, weight, bias, g=3)
                expected = nk.group_norm(view.transpose(np.argsort(order)), 3, weight, bias)
                checks.assert_same_bits(y, np.ascontiguousarray(expected.transpose(order)), pattern)
        expected = nk.batch_norm(np.ascontiguousarray(np.moveaxis(x, 1, -1)), None, None, weight, bias, True,
                                 channel_axis=-1) if x.size > 6 and shape[2] > 1 else None  # fmt: skip
        if expected is not None:
            y = nk.norm(np.moveaxis(x, 1, -1), "[b] [h w] c", weight, bias)
            checks.assert_same_bits(y, expected, "[b] [h w] c")


@every_dtype
def test_tokens_audio_and_video(dtype):
    tokens = values((3, 5, 70), dtype, "spread", 1)
    weight, bias = parameters((70,), dtype)
    wanted = nk.layer_norm(tokens, (70,), weight, bias)
    for pattern in ("b t [c]", "... [c]", "b ... [c]", "(b) t [c]"):
        checks.assert_same_bits(nk.norm(tokens, pattern, weight, bias), wanted, pattern)
    heads = nk.norm(tokens, "b t (heads [d])", affine="heads d", weight=weight, bias=bias, d=10)
    folded = nk.layer_norm(tokens.reshape(3, 5, 7, 10), (10,)).reshape(tokens.shape)
    for k in range(7):
        part = slice(10 * k, 10 * k + 10)
        one = nk.layer_norm(np.ascontiguousarray(tokens[..., part]), (10,), weight[part], bias[part])
        checks.assert_same_bits(heads[..., part], one, "heads")
    checks.assert_same_bits(nk.norm(tokens, "b t (heads [d])", heads=7), folded, "heads without parameters")
    plane, plane_bias = parameters((5, 70), dtype)
    checks.assert_same_bits(
        nk.norm(tokens, "b [t d]", plane, plane_bias),
        nk.layer_norm(tokens, (5, 70), plane, plane_bias),
        "all bracketed axes",
    )
    audio = values((2, 4, 100), dtype, "offset", 2)
    checks.assert_same_bits(nk.norm(audio, "b c [t]"), nk.instance_norm(audio), "audio")
    video = values((2, 4, 3, 5, 6), dtype, "offset", 3)
    checks.assert_same_bits(nk.norm(video, "b c [t h w]"), nk.instance_norm(video), "video")
    checks.assert_same_bits(
        nk.norm(video, "[b] c [t h w]"), nk.batch_norm(video, None, None, training=True), "video, batch"
    )
    per_frame = nk.norm(video, "b c t [h w]")
    one = nk.instance_norm(np.ascontiguousarray(video[:, :, 1]))
    checks.assert_same_bits(np.ascontiguousarray(per_frame[:, :, 1]), one, "frame by frame")


def test_affine_and_its_gradients():
    """Any axes with parameters, against PyTorch's autograd."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: no autograd to compare with")
    x, dy = values((2, 6, 5, 4), "float64", "plain", 1), values((2, 6, 5, 4), "float64", "plain", 2)
    for pattern, affine, axes, sizes in (
        ("b [c h w]", "c", (1, 2, 3), (1, 6, 1, 1)),
        ("b [c h w]", "w", (1, 2, 3), (1, 1, 1, 4)),
        ("b [c h w]", "c w", (1, 2, 3), (1, 6, 1, 4)),
        ("b [c h w]", "c h w", (1, 2, 3), (1, 6, 5, 4)),
        ("b c [h w]", "b c", (2, 3), (2, 6, 1, 1)),
        ("b c [h w]", "c h", (2, 3), (1, 6, 5, 1)),
        ("[b] c h [w]", "b c h w", (0, 3), (2, 6, 5, 4)),
        ("[b c h w]", "h", (0, 1, 2, 3), (1, 1, 5, 1)),
    ):
        shape = tuple(s for s in sizes if s > 1)
        weight, bias = parameters(shape, "float64")
        leaves = [torch.tensor(a, requires_grad=True) for a in (x, weight, bias)]
        t, w, b = leaves
        mean, var = t.mean(axes, keepdim=True), t.var(axes, correction=0, keepdim=True)
        y = (t - mean) / (var + 1e-5).sqrt() * w.reshape(sizes) + b.reshape(sizes)
        y.backward(torch.tensor(dy))
        actual = nk.norm(x, pattern, weight, bias, affine=affine)
        checks.assert_within(actual, y.detach().numpy().astype(np.longdouble), 1e-13, f"{pattern} {affine}")
        gradients = nk.norm_backward(dy, x, pattern, weight, bias, affine=affine)
        for leaf, gradient in zip(leaves, gradients, strict=True):
            wanted = leaf.grad.numpy().astype(np.longdouble)
            checks.assert_within(gradient, wanted, 1e-12, f"{pattern} {affine} gradient")


X = np.ones((2, 6, 5, 4), np.float32)


@pytest.mark.parametrize(
    ("error", "words", "pattern", "keywords"),
    (
        (ValueError, ["bracket", "not closed"], "b c [h w", {}),
        (ValueError, ["parenthesis", "not closed"], "b (g [c] [h w]", {"g": 2}),
        (ValueError, ["name of an axis"], "b (g [c) [h w]", {"g": 2}),
        (ValueError, ["brackets"], "b c h w", {}),
        (ValueError, ["'h'", "second time"], "b c [h h]", {}),
        (ValueError, ["'g'", "unknown"], "b (g [c]) [h w]", {}),
        (ValueError, ["g=4", "divide"], "b (g [c]) [h w]", {"g": 4}),
        (ValueError, ["4 axes", "3"], "b c [h]", {}),
        (ValueError, ["4 axes", "5"], "a b c [h w]", {}),
        (ValueError, ["second '...'"], "... c ... [h]", {}),
        (ValueError, ["'...'", "outside"], "b [c ...]", {}),
        (ValueError, ["empty brackets"], "b c [] h w", {}),
        (ValueError, ["empty parenthesis"], "b () c [h w]", {}),
        (ValueError, ["']'"], "b c ] h w", {}),
        (ValueError, ["'2'"], "b c [h 2]", {}),
        (ValueError, ["'-'"], "b-c [h w]", {}),
        (TypeError, ["q=3"], "b c [h w]", {"q": 3}),
        (ValueError, ["h=7", "make"], "b c [h w]", {"h": 7}),
        (ValueError, ["g", "positive"], "b (g [c]) [h w]", {"g": 0}),
        (ValueError, ["g", "positive"], "b (g [c]) [h w]", {"g": -2}),
        (ValueError, ["g", "positive"], "b (g [c]) [h w]", {"g": 2.0}),
        (ValueError, ["affine", "'q'"], "b c [h w]", {"affine": "q"}),
        (ValueError, ["affine", "order"], "b c [h w]", {"affine": "w h"}),
        (ValueError, ["kind"], "b c [h w]", {"kind": "layer"}),
        (TypeError, ["pattern"], None, {}),
        (TypeError, ["pattern"], 5, {}),
        (ValueError, ["weight", "shape"], "b c [h w]", {"weight": np.ones(5, np.float32)}),
        (TypeError, ["bias"], "b c [h w]", {"bias": 1.0}),
        (ValueError, ["eps"], "b c [h w]", {"eps": float("nan")}),
    ),
)
def test_what_is_wrong_where(error, words, pattern, keywords):
    for call in (nk.norm, lambda *a, **k: nk.norm_backward(X, *a, **k)):
        with pytest.raises(error) as caught:
            call(X, pattern, **keywords)
        for word in words:
            assert word in str(caught.value), f"{word!r} not in {caught.value}"
        checks.COUNT.values += 1


def test_x_is_no_array():
    for bad in ([1.0, 2.0], None, "x", 3):
        with pytest.raises(TypeError, match=r"\bx\b"):
            nk.norm(bad, "[a]")
        checks.COUNT.values += 1


def test_the_caret_points_at_the_mistake():
    with pytest.raises(ValueError) as caught:
        nk.norm(X, "b c [h 2]")
    *_, line, caret = str(caught.value).splitlines()
    assert line[caret.index("^")] == "2"
    checks.COUNT.values += 1


def test_identities():
    """One sample's BN is IN is GN with G = C; GN with G = 1 is LN over CHW; RMS of centred data is LN."""
    for shape, dtype in itertools.product(((1, 6, 7, 7), (1, 65, 3, 11)), DTYPES):
        x, dy, weight, bias = image(shape, dtype)
        expected = nk.instance_norm(x, None, None, weight, bias)
        checks.assert_same_bits(nk.batch_norm(x, None, None, weight, bias, True), expected, "BN")
        checks.assert_same_bits(nk.group_norm(x, shape[1], weight, bias), expected, "GN")
        gradients = nk.instance_norm_backward(dy, x, None, None, weight, bias)
        for a, b, c in zip(
            gradients,
            nk.batch_norm_backward(dy, x, None, None, weight, bias, True),
            nk.group_norm_backward(dy, x, shape[1], weight, bias),
            strict=True,
        ):
            checks.assert_same_bits(b, a, "BN backward")
            checks.assert_same_bits(c, a, "GN backward")
        one = nk.layer_norm(x, shape[1:])
        checks.assert_same_bits(nk.group_norm(x, 1), one, "GN with one group")
    x = np.tile(np.array([1.0, -1.0, 2.0, -2.0], np.float32), (5, 16)) * np.float32(0.75)
    rms, layer = nk.rms_norm(x, (64,), eps=1e-5), nk.layer_norm(x, (64,))
    checks.assert_same_bits(rms, layer, "centred data")
