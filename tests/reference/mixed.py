"""References of the operations that are no plain standardization, in longdouble, from their formulas.

`x` and friends are arrays of any element type; `axes` are normalized together. Gradients come with the sum of
the magnitudes that they are made of (see operations.standardize_backward for what is a term).
"""

from types import SimpleNamespace

import numpy as np

from .wide import WIDE, centre, sum_wide, wide


def norm_of(x, p, axes):
    """The norm of order p, and dN/dx where it exists (0 at x = 0 for finite p)."""
    a = np.abs(wide(x))
    if np.isinf(p):
        norm = (a.max if p > 0 else a.min)(axis=axes, keepdims=True)
        ties = (a == norm).sum(axis=axes, keepdims=True)
        return norm, np.where(a == norm, np.sign(wide(x)), 0) / ties
    if p == 0:
        return (a != 0).sum(axis=axes, keepdims=True).astype(WIDE), np.zeros_like(a)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore", under="ignore"):
        leading = a.max(axis=axes, keepdims=True) if p > 0 else a.min(axis=axes, keepdims=True)
        scale = np.where(leading > 0, leading, WIDE(1))
        powers = (a / scale) ** WIDE(p) if p != 2 else (a / scale) * (a / scale)
        total = sum_wide(powers, axes)
        norm = scale * (np.sqrt(total) if p == 2 else total ** (1 / WIDE(p)))
        norm = np.where(leading == 0, WIDE(0), norm)
        slope = np.where(a == 0, 0, np.sign(wide(x)) * (a / norm) ** (WIDE(p) - 1))
    return norm, slope


def normalize(x, p, axes, eps, dy=None):
    norm, slope = norm_of(x, p, axes)
    limit = np.maximum(norm, WIDE(eps))
    with np.errstate(divide="ignore", invalid="ignore"):
        xhat = wide(x) / limit
        if dy is None:
            return SimpleNamespace(y=xhat)
        slope = np.where(norm < eps, 0, slope)
        rstd = np.where((norm == 0) & (eps > 0), 0, 1 / limit)
        products = wide(dy) * xhat
        return SimpleNamespace(
            y=xhat,
            dx=(wide(dy) - slope * sum_wide(products, axes)) * rstd,
            dx_terms=(np.abs(wide(dy)) + np.abs(slope) * sum_wide(np.abs(products), axes)) * rstd,
        )


def weight_norm(v, g, axes, dw):
    """g keeps v's rank with ones."""
    norm, _ = norm_of(v, 2, axes)
    vhat, g, dw = wide(v) / norm, wide(g), wide(dw)
    products = g * dw * vhat
    return SimpleNamespace(
        w=vhat * g,
        dv=(g * dw - vhat * sum_wide(products, axes)) / norm,
        dv_terms=(np.abs(g * dw) + np.abs(vhat) * sum_wide(np.abs(products), axes)) / norm,
        dg=sum_wide(dw * vhat, axes),
        dg_terms=sum_wide(np.abs(dw * vhat), axes),
    )


def min_max_scale(x, axes, low=0, high=1):
    x = wide(x)
    least, largest = x.min(axis=axes, keepdims=True), x.max(axis=axes, keepdims=True)
    spread = np.where(largest > least, largest - least, WIDE(1))
    return (x - least) / spread * (WIDE(high) - WIDE(low)) + WIDE(low)


def _statistics(x, axes):
    d, mean, low = centre(wide(x), axes)
    n = WIDE(x.size // mean.size)
    return d, mean + low, sum_wide(d * d, axes) / n


def adaptive_instance_norm(content, style, eps, axes, dy):
    """`axes` are those of space, in both."""
    d, _, var = _statistics(content, axes)
    e, style_mean, style_var = _statistics(style, axes)
    rstd, std = 1 / np.sqrt(var + WIDE(eps)), np.sqrt(style_var + WIDE(eps))
    xhat, style_hat, dy = d * rstd, e / std, wide(dy)
    n, m = WIDE(d.size // rstd.size), WIDE(e.size // std.size)
    padded = np.abs(xhat) + np.sqrt(sum_wide(xhat * xhat, axes) / n) / 8
    style_padded = np.abs(style_hat) + np.sqrt(sum_wide(style_hat * style_hat, axes) / m) / 8
    g = dy * std

    def total(values):
        return sum_wide(values, axes)

    return SimpleNamespace(
        y=xhat * std + style_mean,
        y_terms=padded * std + np.abs(style_mean),
        dcontent=((g - total(g) / n) - xhat * total(g * xhat) / n) * rstd,
        dcontent_terms=(np.abs(g) + total(np.abs(g)) / n + padded * total(np.abs(g) * padded) / n) * rstd,
        dstyle=style_hat * total(dy * xhat) / m + total(dy) / m,
        dstyle_terms=style_padded * total(np.abs(dy) * padded) / m + total(np.abs(dy)) / m,
    )


def softmax(logits):
    e = np.exp(wide(logits) - wide(logits).max())
    return e / e.sum()


def switchable_norm(x, mean_weight, var_weight, weight, bias, eps, dy, running=None):
    """x: (N, C, S). `running`: (mean, var) of shape (C,) instead of the batch's."""
    w = wide(weight)[None, :, None]
    parts = [_statistics(x, axes)[1:] for axes in ((2,), (1, 2), (0, 2))]
    if running is not None:
        parts[2] = tuple(wide(value)[None, :, None] for value in running)
    shape = (x.shape[0], x.shape[1], 1)
    means, variances = ([np.broadcast_to(part[i], shape) for part in parts] for i in (0, 1))
    a, c = softmax(mean_weight), softmax(var_weight)
    mean = sum(k * m for k, m in zip(a, means, strict=True))
    var = sum(k * v for k, v in zip(c, variances, strict=True))
    rstd = 1 / np.sqrt(var + WIDE(eps))
    d, dy = wide(x) - mean, wide(dy)
    xhat, g = d * rstd, dy * w
    padded = np.abs(xhat) + np.sqrt(sum_wide(xhat * xhat, (2,)) / x.shape[2]) / 8 + np.abs(mean) * rstd / 64
    dmean, dvar = -rstd * sum_wide(g, (2,)), -(rstd**3) * sum_wide(g * d, (2,)) / 2
    dmean_terms = rstd * sum_wide(np.abs(g), (2,))
    dvar_terms = rstd**2 * sum_wide(np.abs(g) * padded, (2,)) / 2
    dx, dx_terms = g * rstd, np.abs(g) * rstd
    for k, axes in enumerate(((), (1,), (0,))):
        if k == 2 and running is not None:
            continue
        n = WIDE(x.shape[2] * (x.shape[axes[0]] if axes else 1))

        def over(values, axes=axes):
            return values if not axes else sum_wide(values, axes)

        dx = dx + (a[k] * over(dmean) + 2 * c[k] * over(dvar) * (wide(x) - means[k])) / n
        spread = np.abs(wide(x) - means[k]) + np.abs(means[k] - mean) + 1 / rstd / 8
        dx_terms = dx_terms + (a[k] * over(dmean_terms) + 2 * c[k] * over(dvar_terms) * spread) / n
    result = SimpleNamespace(
        y=xhat * w + wide(bias)[None, :, None],
        y_terms=padded * np.abs(w) + np.abs(wide(bias))[None, :, None],
        dx=dx,
        dx_terms=dx_terms,
        dweight=sum_wide(dy * xhat, (0, 2)).reshape(-1),
        dweight_terms=sum_wide(np.abs(dy) * padded, (0, 2)).reshape(-1),
        dbias=sum_wide(dy, (0, 2)).reshape(-1),
        dbias_terms=sum_wide(np.abs(dy), (0, 2)).reshape(-1),
        batch_mean=parts[2][0].reshape(-1),
        batch_var=parts[2][1].reshape(-1),
    )
    for name, k, weights, d_own, terms, values, mixed in (
        ("dmean_weight", 0, a, dmean, dmean_terms, means, mean),
        ("dvar_weight", 1, c, dvar, dvar_terms, variances, var),
    ):
        del k
        gradient = [weights[i] * (d_own * (values[i] - mixed)).sum() for i in range(3)]
        magnitude = [
            weights[i] * (terms * (np.abs(values[i] - mixed) + np.abs(values[i]) / 64)).sum()
            for i in range(3)
        ]
        setattr(result, name, np.array(gradient))
        setattr(result, name + "_terms", np.array(magnitude))
    return result
