"""The ends of float64: magnitudes whose squares, sums or reciprocals leave its range, against mpmath.

The exact answer knows no scale: values come from the definitions in 700 digits, gradients from differences of
them.
"""

import checks
import mpmath
import normkit as nk
import numpy as np
import pytest

pytestmark = [pytest.mark.compares, pytest.mark.report("field trial: the ends of float64")]

MAGNITUDES = (1.0, 1.7e308, 1e200, 1e-200, 1e-310)
every_magnitude = pytest.mark.parametrize("magnitude", MAGNITUDES)
SHAPE = (2, 3, 4)


@pytest.fixture(autouse=True)
def digits():
    with mpmath.workdps(700):
        yield


def exact(array):
    return np.vectorize(mpmath.mpf, otypes=[object])(np.asarray(array, np.float64))


root = np.vectorize(mpmath.sqrt, otypes=[object])


def rounded(values):
    return np.vectorize(float, otypes=[np.float64])(values)


def mean(x, axes):
    return x.sum(axis=axes, keepdims=True) / int(np.prod([x.shape[a] for a in axes]))


def variance(x, axes):
    return mean((x - mean(x, axes)) ** 2, axes)


def standard(x, axes, eps, rms=False):
    if rms:
        return x / root(mean(x * x, axes) + mpmath.mpf(eps))
    return (x - mean(x, axes)) / root(variance(x, axes) + mpmath.mpf(eps))


def along(channels, rank=3):
    return exact(channels).reshape((-1,) + (1,) * (rank - 2))


def grouped(x, eps):
    return standard(x.reshape(x.shape[0], 1, *x.shape[1:]), (2, 3), eps).reshape(x.shape)


def softmax(logits):
    powers = [mpmath.e ** mpmath.mpf(float(v)) for v in logits]
    return [p / sum(powers) for p in powers]


def switched(x, logits, eps, running=None):
    means, variances = softmax(logits[0]), softmax(logits[1])
    parts = [((2,), 0), ((1, 2), 1), ((0, 2), 2)]
    m, v = 0, 0
    for axes, k in parts:
        one, two = mean(x, axes), variance(x, axes)
        if k == 2 and running is not None:
            one, two = along(running[0]), along(running[1])
        m, v = m + means[k] * one, v + variances[k] * two
    return (x - m) / root(v + mpmath.mpf(eps))


def power_norm(x, p, axis):
    magnitudes = np.abs(x)
    if p == np.inf:
        return magnitudes.max(axis=axis, keepdims=True)
    if p == -np.inf:
        return magnitudes.min(axis=axis, keepdims=True)
    raised = np.vectorize(lambda v: mpmath.power(v, mpmath.mpf(p)), otypes=[object])(magnitudes)
    total = raised.sum(axis=axis, keepdims=True)
    return np.vectorize(lambda v: mpmath.power(v, 1 / mpmath.mpf(p)), otypes=[object])(total)


def gradient(forward, x, dy):
    """d sum(dy forward(x)) / dx, by central differences far below the rounding of any double."""
    x, dy = exact(x), exact(dy)
    out = np.empty(x.shape, object)
    for index in np.ndindex(x.shape):
        step = abs(x[index]) * mpmath.mpf(10) ** -200
        up, down = x.copy(), x.copy()
        up[index] += step
        down[index] -= step
        out[index] = ((dy * (forward(up) - forward(down))).sum()) / (2 * step)
    return out


def check(what, got, wanted, ulps=16.0, floor=0.01):
    """Every value to some ULP of itself, or of a part of the largest."""
    got, wanted = np.asarray(got), np.asarray(wanted, object)
    assert got.shape == wanted.shape, what
    largest = max(abs(v) for v in wanted.flat)
    for a, b in zip(got.flat, wanted.flat, strict=True):
        unit = max(abs(b), largest * floor) * mpmath.mpf(2) ** -52
        assert np.isfinite(a), (what, a, float(b))
        unit = max(unit, mpmath.mpf(2) ** -1064)  # subnormal statistics
        assert abs(mpmath.mpf(float(a)) - b) <= ulps * unit, (what, a, float(b))
        checks.COUNT.values += 1


def data(magnitude, seed=0, shape=SHAPE):
    """Elements up to the magnitude, of both signs."""
    x = np.random.default_rng(seed).uniform(-1, 1, shape)
    return x * magnitude


def gradients_of(magnitude, seed=1, shape=SHAPE):
    """dy for which dx can be represented."""
    dy = np.random.default_rng(seed).uniform(-1, 1, shape)
    return dy * (1e-6 if magnitude < 1e-300 else 1.0)


W = np.array([0.7, -1.3, 2.0])
B = np.array([0.1, 0.2, -0.3])

# name: (call, backward call, exact forward); eps by keyword.
SETS = {
    "layer": (
        lambda x, eps: nk.layer_norm(x, x.shape[1:], eps=eps),
        lambda dy, x, eps, **k: nk.layer_norm_backward(dy, x, x.shape[1:], eps=eps, **k)[0],
        lambda x, eps: standard(x, (1, 2), eps),
    ),
    "rms": (
        lambda x, eps: nk.rms_norm(x, x.shape[1:], eps=eps),
        lambda dy, x, eps, **k: nk.rms_norm_backward(dy, x, x.shape[1:], eps=eps, **k)[0],
        lambda x, eps: standard(x, (1, 2), eps, rms=True),
    ),
    "batch": (
        lambda x, eps: nk.batch_norm(x, None, None, W, B, True, eps=eps),
        lambda dy, x, eps, **k: nk.batch_norm_backward(dy, x, None, None, W, B, True, eps=eps, **k)[0],
        lambda x, eps: standard(x, (0, 2), eps) * along(W) + along(B),
    ),
    "instance": (
        lambda x, eps: nk.instance_norm(x, None, None, W, B, eps=eps),
        lambda dy, x, eps, **k: nk.instance_norm_backward(dy, x, None, None, W, B, eps=eps, **k)[0],
        lambda x, eps: standard(x, (2,), eps) * along(W) + along(B),
    ),
    "group": (
        lambda x, eps: nk.group_norm(x, 1, W, B, eps=eps),
        lambda dy, x, eps, **k: nk.group_norm_backward(dy, x, 1, W, B, eps=eps, **k)[0],
        lambda x, eps: grouped(x, eps) * along(W) + along(B),
    ),
    "group, channels last": (
        lambda x, eps: nk.group_norm(last(x), 1, W, B, eps=eps),
        lambda dy, x, eps, **k: nk.group_norm_backward(last(dy), last(x), 1, W, B, eps=eps, **k)[0],
        lambda x, eps: grouped(x, eps) * along(W) + along(B),
    ),
    "norm": (
        lambda x, eps: nk.norm(x, "b [c] s", eps=eps),
        lambda dy, x, eps, **k: nk.norm_backward(dy, x, "b [c] s", eps=eps, **k)[0],
        lambda x, eps: standard(x, (1,), eps),
    ),
    "add": (
        lambda x, eps: nk.add_layer_norm(x, np.zeros_like(x), x.shape[1:], eps=eps)[0],
        lambda dy, x, eps, **k: nk.add_layer_norm_backward(dy, None, x, x.shape[1:], eps=eps, **k)[0],
        lambda x, eps: standard(x, (1, 2), eps),
    ),
}
every_set = pytest.mark.parametrize("name", SETS)


def last(x):
    """The same values in channels-last memory."""
    return np.ascontiguousarray(x.transpose(0, 2, 1)).transpose(0, 2, 1)


def eps_of(magnitude):
    """None, the default, and one that counts as much as the variance does."""
    square = magnitude * magnitude
    return [0.0, 1e-5] + ([square / 3] if np.isfinite(square) and square > 1e-322 else [])


@every_set
@every_magnitude
def test_sets(name, magnitude):
    call, backward, forward = SETS[name]
    x, dy = data(magnitude), gradients_of(magnitude)
    for eps in eps_of(magnitude):
        check(f"y, eps {eps}", call(x, eps), forward(exact(x), eps))
        check(f"dx, eps {eps}", backward(dy, x, eps), gradient(lambda v, e=eps: forward(v, e), x, dy), 64, 1)


@every_magnitude
def test_saved_and_recomputed_statistics(magnitude):
    """Backward has the same bits either way, also where rstd is no normal number."""
    x, dy = data(magnitude), gradients_of(magnitude)
    _, m, r = nk.layer_norm(x, (3, 4), eps=0.0, return_stats=True)
    saved = nk.layer_norm_backward(dy, x, (3, 4), eps=0.0, mean=m, rstd=r)[0]
    checks.assert_same_bits(saved, nk.layer_norm_backward(dy, x, (3, 4), eps=0.0)[0], "layer")
    _, m, r = nk.batch_norm(x, None, None, W, B, True, eps=0.0, return_stats=True)
    saved = nk.batch_norm_backward(dy, x, None, None, W, B, True, eps=0.0, mean=m, rstd=r)
    found = nk.batch_norm_backward(dy, x, None, None, W, B, True, eps=0.0)
    for a, b, what in zip(saved, found, ("dx", "dweight", "dbias"), strict=True):
        checks.assert_same_bits(a, b, what)


@every_magnitude
def test_parameter_gradients(magnitude):
    x, dy = data(magnitude), gradients_of(1.0)
    xhat = standard(exact(x), (0, 2), 0.0)
    _, dw, db = nk.batch_norm_backward(dy, x, None, None, W, B, True, eps=0.0)
    check("dweight", dw, (exact(dy) * xhat).sum(axis=(0, 2)), 64)
    check("dbias", db, exact(dy).sum(axis=(0, 2)), 64)
    ones = np.ones((3, 4))
    _, dw, db = nk.layer_norm_backward(dy, x, (3, 4), ones, ones, eps=0.0)
    check("dweight", dw, (exact(dy) * standard(exact(x), (1, 2), 0.0)).sum(axis=0), 64)


@pytest.mark.parametrize("value", (1.7976931348623157e308, -1.4e300, 2.0**997, 1e200, 1e-310, 5e-324, 0.0))
@pytest.mark.parametrize("n", (1, 2, 4, 33, 1000, 3001))
def test_constants(value, n):
    """Whatever the size of a constant, and of a single element, y is the bias and dx 0."""
    x, dy = np.full((2, 3, n), value), data(1.0, 2, (2, 3, n))
    w, b = np.full((3, n), 0.5), np.full((3, n), 0.25)
    results = {
        "layer": nk.layer_norm(x, (3, n), w, b),
        "layer, 1 element": nk.layer_norm(x.reshape(-1, 1), (1,), w[:1, 0], b[:1, 0]),
        "batch": nk.batch_norm(x, None, None, W, np.full(3, 0.25), True),
        "group": nk.group_norm(x, 3, W, np.full(3, 0.25)),
        "norm": nk.norm(x, "b c [s]", W, np.full(3, 0.25)),
        "switchable": nk.switchable_norm(x, np.zeros(3), np.ones(3), W, np.full(3, 0.25)),
        "add": nk.add_layer_norm(x, np.zeros_like(x), (3, n), w, b)[0],
        "adaptive": nk.adaptive_instance_norm(x, np.full((2, 3, 5), 0.25)),
        "adaptive, style": nk.adaptive_instance_norm(x, x),
    }
    if n > 1:
        results["instance"] = nk.instance_norm(x, None, None, W, np.full(3, 0.25))
    for name, y in results.items():
        assert (y == (value if name == "adaptive, style" else 0.25)).all(), name
        checks.COUNT.values += y.size
    assert (nk.z_score(x) == 0).all()
    gradients = {
        "layer": nk.layer_norm_backward(dy, x, (3, n), w, b)[0],
        "batch": nk.batch_norm_backward(dy, x, None, None, W, W, True)[0],
        "group": nk.group_norm_backward(dy, x, 3, W, W)[0],
    }
    for name, dx in gradients.items():
        assert np.isfinite(dx).all(), name
    m = nk.Moments.of(x, (0, 2))
    assert (m.mean == value).all() and (m.var() == 0).all()
    assert (m.rstd(1e-5) == 1 / np.sqrt(1e-5)).all()


@every_magnitude
@pytest.mark.parametrize("training", (True, False))
def test_switchable(magnitude, training):
    x, dy = data(magnitude), gradients_of(magnitude)
    logits = [np.array([0.3, -0.2, 0.5]), np.array([-0.4, 0.1, 0.2])]
    running = (
        None if training else (np.array([0.1, 0.2, -0.3]) * magnitude, np.full(3, min(magnitude, 1e300)))
    )
    arguments = (
        dict(running_mean=None, running_var=None)
        if training
        else dict(running_mean=running[0], running_var=running[1])
    )
    for eps in eps_of(magnitude):
        keywords = dict(arguments, training=training, eps=eps)

        def forward(v, e=eps):
            return switched(v, logits, e, running) * along(W) + along(B)

        check(f"y, eps {eps}", nk.switchable_norm(x, *logits, W, B, **keywords), forward(exact(x)))
        dx, dmw, dvw, dw, _ = nk.switchable_norm_backward(dy, x, *logits, W, B, **keywords)
        wanted = gradient(forward, x, dy)
        check(f"dx, eps {eps}", dx, wanted, 256, 1)
        xhat = switched(exact(x), logits, eps, running)
        check("dweight", dw, (exact(dy) * xhat).sum(axis=(0, 2)), 64)
        for which, got in ((0, dmw), (1, dvw)):
            for k in range(3):
                h = mpmath.mpf(10) ** -150

                def moved(sign, which=which, k=k, h=h):
                    out = [[mpmath.mpf(float(v)) for v in row] for row in logits]
                    out[which][k] += sign * h
                    return out

                up, down = (mpswitched(exact(x), moved(sign), eps, running) * along(W) for sign in (1, -1))
                slope = (exact(dy) * (up - down)).sum() / (2 * h)
                size = max(abs(mpmath.mpf(float(v))) for v in got)
                assert abs(mpmath.mpf(float(got[k])) - slope) <= mpmath.mpf(1e-12) * max(size, 1e-9), (
                    which,
                    k,
                )


def mpswitched(x, logits, eps, running):
    global softmax
    plain, softmax = softmax, lambda row: [mpmath.e**v / sum(mpmath.e**u for u in row) for v in row]
    try:
        return switched(x, logits, eps, running)
    finally:
        softmax = plain


@every_magnitude
def test_adaptive(magnitude):
    for style_magnitude in (magnitude, 1.0):
        content, style = data(magnitude, 3), data(min(style_magnitude, 1e307), 4, (2, 3, 5))
        dy = data(1e-3 if magnitude > 1 else 1e-9, 5)

        def forward(c, s):
            return standard(c, (2,), 1e-5) * root(variance(s, (2,)) + mpmath.mpf(1e-5)) + mean(s, (2,))

        check("y", nk.adaptive_instance_norm(content, style), forward(exact(content), exact(style)), 32)
        dcontent, dstyle = nk.adaptive_instance_norm_backward(dy, content, style)
        fixed = exact(style)
        check("dcontent", dcontent, gradient(lambda v, s=fixed: forward(v, s), content, dy), 256, 1)
        fixed = exact(content)
        check("dstyle", dstyle, gradient(lambda v, c=fixed: forward(c, v), style, dy), 256, 1)


@every_magnitude
@pytest.mark.parametrize("p", (0.5, 1.0, 1.5, 2.0, 3.0, 20.0, 300.0, np.inf, -1.0, -np.inf))
def test_normalize(magnitude, p):
    x, dy = data(magnitude, 6, (3, 4)), gradients_of(magnitude, 7, (3, 4))
    for eps in (0.0, 1e-12):
        if magnitude < 1e-12 and eps:
            continue
        check("y", nk.normalize(x, p, 1, eps), exact(x) / power_norm(exact(x), p, 1), 64)
        wanted = gradient(lambda v: v / power_norm(v, p, 1), x, dy)
        check(
            "dx",
            nk.normalize_backward(dy, x, p, 1, eps)[0],
            wanted,
            512 * max(1, abs(p) if abs(p) < 1e9 else 1),
            1,
        )


@pytest.mark.report("field trial: p = 20 of subnormals")
@pytest.mark.parametrize("p", (0.25, 0.5, 1.0, 2.0, 3.0, 20.0, 1000.0, np.inf))
@pytest.mark.parametrize(
    "values", ([1e-322, -1e-322], [5e-324, 0.0], [4e-320, 5e-324, -1e-321], [2.0**-1030, 1e-308])
)
def test_normalize_of_subnormals(p, values):
    x = np.array([values])
    check("y", nk.normalize(x, p=p, eps=0.0), exact(x) / power_norm(exact(x), p, 1), 64)
    if 0.0 not in values:
        dy = np.array([[3e-30, -1e-30, 2e-30][: len(values)]])
        wanted = gradient(lambda v: v / power_norm(v, p, 1), x, dy)
        check("dx", nk.normalize_backward(dy, x, p=p, eps=0.0)[0], wanted, 2048, 1)


@every_magnitude
def test_weight_norm(magnitude):
    v, dw = data(magnitude, 8, (3, 4)), gradients_of(magnitude, 9, (3, 4))
    g = np.array([0.5, 2.0, -1.0])

    def forward(u):
        return u / root((u * u).sum(axis=1, keepdims=True)) * exact(g)[:, None]

    check("w", nk.weight_norm(v, g), forward(exact(v)), 16)
    dv, dg = nk.weight_norm_backward(dw, v, g)
    check("dv", dv, gradient(forward, v, dw), 64, 1)
    check("dg", dg, (exact(dw) * forward(exact(v)) / exact(g)[:, None]).sum(axis=1), 64)


@every_magnitude
def test_z_score_and_min_max(magnitude):
    x = data(magnitude, 10, (7, 3))
    check("z", nk.z_score(x), standard(exact(x), (0,), 0.0))
    low, high = x.min(axis=0), x.max(axis=0)
    wanted = (exact(x) - exact(low)) / (exact(high) - exact(low))
    check("range", nk.min_max_scale(x), wanted)


@every_magnitude
def test_moments(magnitude):
    """Pieces of a batch, each with its own magnitude, and what is normalized with their statistics."""
    parts = [data(magnitude, 11), data(magnitude * 0.1, 12), np.zeros(SHAPE), data(magnitude, 13)]
    parts.insert(0, np.full(SHAPE, magnitude / 2))
    one, other = nk.Moments((0, 2)), nk.Moments((0, 2))
    for i, part in enumerate(parts):
        (one if i < 3 else other).update(part)
    moments = one.merge(other)
    whole = np.concatenate(parts)
    check("mean", moments.mean, mean(exact(whole), (0, 2)).ravel(), 64)
    var = variance(exact(whole), (0, 2)).ravel()
    with np.errstate(over="ignore"):
        checks.assert_same_bits(np.isinf(moments.var()), rounded(var) == np.inf, "var")
    rstd = 1 / root(var)
    if magnitude > 1e-308:
        check("rstd", moments.rstd(0.0), rstd, 64)
        y = nk.batch_norm(parts[1], None, None, mean=moments.mean, rstd=moments.rstd(0.0))
        check("y", y, (exact(parts[1]) - mean(exact(whole), (0, 2))) * along(rounded(rstd)), 64)
        sums = nk.GradSums.of(gradients_of(1.0), parts[1], moments.mean, moments.rstd(0.0), (0, 2))
        assert np.isfinite(sums.sum_dy_xhat).all()


@pytest.mark.parametrize("magnitude", (1e-160, 1e-200, 1e-300, 1e-320))
def test_eps_counts_beside_moments_of_small_sets(magnitude):
    """It overflows in the scale that the squares need."""
    x = data(magnitude, 16)
    rstd = nk.batch_norm(x, None, None, training=True, return_stats=True)[2]
    checks.assert_same_bits(nk.Moments.of(x, (0, 2)).rstd(1e-5), rstd, "rstd")
    checks.assert_same_bits(np.isinf(nk.Moments.of(x, (0, 2)).rstd(np.inf)), np.zeros(3, bool), "eps inf")


@pytest.mark.parametrize("value", (1e200, 1e298, -1.7e308))
@pytest.mark.parametrize("eps", (1e-300, 1e-200, 1e-5))
def test_switchable_norm_of_constants(value, eps):
    y = nk.switchable_norm(np.full((2, 2, 4), value), np.zeros(3), np.zeros(3), eps=eps)
    checks.assert_same_bits(np.abs(y), np.zeros((2, 2, 4)), "y")


@pytest.mark.parametrize("p", (1.0, 2.0, 3.0, np.inf))
def test_normalize_below_a_large_eps(p):
    """eps is infinite in the scale that the norm needs."""
    x, dy = np.array([[1e-307, 2e-307]]), np.array([[1.0, 2.0]])
    checks.assert_within(nk.normalize_backward(dy, x, p, eps=1e10)[0], dy / 1e10, 1e-15, "dx")
    checks.assert_within(nk.normalize(x * 1e20, p, eps=1e30), x * 1e20 / 1e30, 1e-15, "y")


def test_moments_of_everything():
    x = np.arange(6.0).reshape(2, 3)
    moments = nk.Moments.of(x, (0, 1))
    sums = nk.GradSums.of(x, x, moments.mean, moments.rstd(), (0, 1))
    checks.assert_same_bits(np.asarray(sums.sum_dy), np.array(15.0), "sum dy")


def test_weight_norm_begins_with_each_rows_own_norm():
    module = nk.nn.WeightNorm(
        np.array([[1e200, 1e200], [1.0, 1.0], [np.nan, 1.0], [np.inf, 1.0], [0.0, 0.0]])
    )
    checks.assert_within(module()[:2], np.array([[1e200, 1e200], [1.0, 1.0]]), 1e-15, "weight")
    assert np.isnan(module.weight_g[2, 0]) and np.isinf(module.weight_g[3, 0]) and module.weight_g[4, 0] == 0
    whole = nk.nn.WeightNorm(np.array([[3.0, 0.0], [0.0, 4.0]]), dim=None)
    checks.assert_within(whole.weight_g, np.array(5.0), 1e-15, "one norm")


@pytest.mark.parametrize("k, alpha, beta", ((-1.0, 1.0, 1.0), (1.0, -30.0, 1.0), (1.0, -30.0, 2.0)))
def test_local_response_of_negative_bases(k, alpha, beta):
    """Whole powers of them are numbers."""
    x = np.random.default_rng(17).standard_normal((2, 7, 3))
    padded = np.pad(x, ((0, 0), (1, 1), (0, 0))) ** 2
    base = k + alpha / 3 * (padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:])
    assert (base < 0).any()
    checks.assert_within(nk.local_response_norm(x, 3, alpha, beta, k), x / base**beta, 1e-13, "y")


def test_local_response_of_a_small_base():
    """dy d^-1 is 1e300 and x s 1e61: their product would not be a number."""
    one, x = np.ones((1, 1, 1)), np.full((1, 1, 1), 1e-150)
    (dx,) = nk.local_response_norm_backward(one, x, 1, 1e-4, 1.0, 1e-300)
    d = mpmath.mpf(1e-300) + mpmath.mpf(1e-4) * mpmath.mpf(1e-150) ** 2
    wanted = 1 / d - 2 * mpmath.mpf(1e-4) * mpmath.mpf(1e-150) ** 2 / d**2
    check("dx", dx, np.full(x.shape, wanted, object))


def test_given_statistics():
    """x - mean overflows where y does not."""
    x, m = np.full((1, 1, 2), 1.7e308), np.array([-1.7e308])
    r = np.array([1e-160])
    wanted = (exact(x) - exact(m)) * exact(r)
    check("rstd", nk.batch_norm(x, None, None, mean=m, rstd=r), wanted)
    check(
        "var", nk.batch_norm(x, m, np.array([1e308]), eps=0.0), (exact(x) - exact(m)) / root(exact([1e308]))
    )
    dx = nk.batch_norm_backward(np.ones_like(x), x, m, np.array([1e308]), eps=0.0)[0]
    check("dx", dx, np.full(x.shape, 1 / mpmath.sqrt(mpmath.mpf(1e308)), object))


@pytest.mark.parametrize("beta", (0.75, 0.6))
@pytest.mark.parametrize("magnitude", (1.0, 1.7e308, 1e200, 1e-200, 1e-310))
def test_local_response(magnitude, beta):
    """Also where ordinary channels follow extreme ones."""
    large = magnitude >= 1.0
    x = np.random.default_rng(14).uniform(0.2, 1, (1, 20, 1)) * magnitude
    x[:, 10:] /= magnitude if magnitude < 1e300 and magnitude > 1e-300 else 1.0
    k, alpha, size = (1.0 if large else 0.0), 0.3, 3
    power = mpmath.mpf(magnitude) ** (2 * beta)
    dy = np.random.default_rng(15).uniform(0.2, 1, x.shape) * float(min(power, mpmath.mpf(1e290)))
    dy[:, 9:] = 1.0  # where dx would overflow

    def forward(v):
        squares = v * v
        sums = sum(
            np.concatenate(
                [
                    np.zeros((1, max(-s, 0), 1), object),
                    squares[:, max(s, 0) : 20 + min(s, 0)],
                    np.zeros((1, max(s, 0), 1), object),
                ],
                1,
            )
            for s in (-1, 0, 1)
        )
        bases = mpmath.mpf(k) + mpmath.mpf(alpha) / size * sums
        return v / np.vectorize(lambda b: b ** mpmath.mpf(beta), otypes=[object])(bases)

    wanted = forward(exact(x))
    got = nk.local_response_norm(x, size, alpha, beta, k)
    for part in (slice(0, 9), slice(11, 20)):
        if max(abs(v) for v in wanted[:, part].flat) < 1e308:
            check("y", got[:, part], wanted[:, part], 32)
    wanted = gradient(forward, x, dy)
    got = nk.local_response_norm_backward(dy, x, size, alpha, beta, k)[0]
    for part in (slice(0, 8), slice(12, 20)):
        if max(abs(v) for v in wanted[:, part].flat) < 1e308:
            check("dx", got[:, part], wanted[:, part], 128, 1)
