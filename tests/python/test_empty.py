"""Arrays without elements: right shapes, parameter gradients of 0, running statistics left alone."""

import checks
import normkit as nk
import numpy as np
import pytest

pytestmark = pytest.mark.compares
SHAPES = ((0, 3, 4), (2, 0, 4), (2, 3, 0), (0, 0, 0))


@pytest.mark.parametrize("shape", SHAPES)
def test_every_operation(shape):
    x, w, logits = np.ones(shape, np.float32), np.ones(shape[1], np.float32), np.ones(3, np.float32)
    running = np.zeros(shape[1], np.float32), np.full(shape[1], 4, np.float32)
    forwards = {
        "batch training": nk.batch_norm(x, *running, w, w, True),
        "batch": nk.batch_norm(x, *running, w, w),
        "instance": nk.instance_norm(x, *running, w, w),
        "group": nk.group_norm(x, 1, w, w),
        "switchable": nk.switchable_norm(x, logits, logits, w, w, *running),
        "adaptive": nk.adaptive_instance_norm(x, x),
        "weight_norm": nk.weight_norm(x, w, 1),
        "local_response": nk.local_response_norm(x, 3),
        "pattern": nk.norm(x, "b c [h]", w, w),
    }
    for axis in (0, 1, 2, None):
        for p in (2, 1, 3, np.inf, 0):
            forwards[f"normalize {axis} {p}"] = nk.normalize(x, p, axis)
            forwards[f"normalize backward {axis} {p}"] = nk.normalize_backward(x, x, p, axis)[0]
        forwards[f"min-max {axis}"] = nk.min_max_scale(x, axis)
        forwards[f"z {axis}"] = nk.z_score(x, axis)
    for name, y in forwards.items():
        assert y.shape == shape and y.dtype == x.dtype, name
    assert (running[0] == 0).all() and (running[1] == 4).all()
    backwards = {
        "batch": nk.batch_norm_backward(x, x, *running, w, w, True),
        "batch, constants": nk.batch_norm_backward(x, x, *running, w, w),
        "instance": nk.instance_norm_backward(x, x, None, None, w, w),
        "group": nk.group_norm_backward(x, x, 1, w, w),
        "switchable": nk.switchable_norm_backward(x, x, logits, logits, w, w),
        "weight_norm": nk.weight_norm_backward(x, x, w, 1),
        "pattern": nk.norm_backward(x, x, "b [c h]", affine="c", weight=w, bias=w),
        "adaptive": nk.adaptive_instance_norm_backward(x, x, x)[:1],
        "local_response": nk.local_response_norm_backward(x, x, 3),
    }
    for name, (dx, *gradients) in backwards.items():
        assert dx.shape == shape, name
        for gradient in gradients:
            assert (gradient == 0).all(), name
    kept = np.full(shape[1], 7, np.float32)
    nk.batch_norm_backward(x, x, *running, w, None, True, grads_out=(kept, None), accumulate=True)
    assert (kept == 7).all()
    checks.COUNT.values += len(forwards) + len(backwards)


def test_content_without_elements_gives_style_no_gradient():
    style = np.ones((2, 3, 5), np.float32)
    content = np.ones((2, 3, 0), np.float32)
    dcontent, dstyle = nk.adaptive_instance_norm_backward(content, content, style)
    assert dcontent.shape == content.shape
    checks.assert_same_bits(dstyle, np.zeros_like(style), "dstyle")
    with pytest.raises(ValueError, match="style"):
        nk.adaptive_instance_norm(style, content)


def test_statistics_of_nothing_are_nan():
    for shape in ((0, 3, 4), (2, 3, 0)):
        x = np.ones(shape, np.float32)
        _, mean, rstd = nk.batch_norm(x, None, None, training=True, return_stats=True)
        assert mean.shape == rstd.shape == (3,) and np.isnan(mean).all() and np.isnan(rstd).all()
        checks.COUNT.values += 6
