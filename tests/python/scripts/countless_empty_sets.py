"""Arrays of 2^40 rows, samples or channels and no elements: a call returns at once, or not in a lifetime.

Each shape is every operation's, forward and backward. What would need memory for that many (weights,
statistics) is left out, or refused by the allocator.
"""

import contextlib
import resource
import signal

import normkit as nk
import numpy as np

MANY = 2**40
SECONDS = 20
# No result is larger than a few numbers; what asks for a terabyte is told so at once.
resource.setrlimit(resource.RLIMIT_AS, (2**36, 2**36))


def calls(x):
    """(name, call) of every operation on a 2-D array, and on the same with an axis of space."""
    last = x.shape[-1:]
    for name, f in (("layer_norm", nk.layer_norm), ("rms_norm", nk.rms_norm)):
        for axis in range(x.ndim):
            sizes = x.shape[axis : axis + 1]
            yield f"{name} {axis}", lambda f=f, s=sizes, a=axis: f(x, s, axis=a)
            yield f"{name} {axis} stats", lambda f=f, s=sizes, a=axis: f(x, s, axis=a, return_stats=True)
    one = np.ones(last, x.dtype) if last[0] < MANY else None
    for axis in range(x.ndim):
        sizes = x.shape[axis : axis + 1]
        for name, f in (("layer", nk.layer_norm_backward), ("rms", nk.rms_norm_backward)):
            yield f"{name}_backward {axis}", lambda f=f, s=sizes, a=axis: f(x, x, s, axis=a)
        for name, f in (("layer", nk.add_layer_norm_backward), ("rms", nk.add_rms_norm_backward)):
            yield f"add_{name}_backward {axis}", lambda f=f, s=sizes, a=axis: f(x, x, x, s, axis=a)
        for name, f in (("layer", nk.add_layer_norm), ("rms", nk.add_rms_norm)):
            yield f"add_{name} {axis}", lambda f=f, s=sizes, a=axis: f(x, x, s, axis=a)
        for p in (2, 1, 3, np.inf, 0):
            yield f"normalize {axis} {p}", lambda p=p, a=axis: nk.normalize(x, p, a)
            yield f"normalize_backward {axis} {p}", lambda p=p, a=axis: nk.normalize_backward(x, x, p, a)
        yield f"min_max_scale {axis}", lambda a=axis: nk.min_max_scale(x, a)
        yield f"z_score {axis}", lambda a=axis: nk.z_score(x, a)
        yield f"dynamic_tanh {axis}", lambda a=axis: nk.dynamic_tanh(x, 0.5, axis=a)
        yield f"dynamic_tanh_backward {axis}", lambda a=axis: nk.dynamic_tanh_backward(x, x, 0.5, axis=a)
        yield f"Moments {axis}", lambda a=axis: nk.Moments.of(x, a)
        yield f"Moments {axis} twice", lambda a=axis: nk.Moments.of(x, a).merge(nk.Moments.of(x, a))
        g = np.broadcast_to(x.dtype.type(1), x.shape[axis])
        yield f"weight_norm {axis}", lambda g=g, a=axis: nk.weight_norm(x, g, a)
        yield f"weight_norm_backward {axis}", lambda g=g, a=axis: nk.weight_norm_backward(x, x, g, a)
    yield "layer_norm weight", lambda: nk.layer_norm_backward(x, x, last, one, one)
    for axes in (None, tuple(range(x.ndim))):
        yield f"normalize {axes}", lambda a=axes: nk.normalize(x, axis=a)
    logits = np.ones(3, x.dtype)
    for axis in range(1, x.ndim):
        c = {"channel_axis": axis}
        yield f"batch {axis}", lambda c=c: nk.batch_norm(x, None, None, training=True, **c)
        t = {"training": True} | c
        yield f"batch_backward {axis}", lambda t=t: nk.batch_norm_backward(x, x, None, None, **t)
        yield f"instance {axis}", lambda c=c: nk.instance_norm(x, **c)
        yield f"instance_backward {axis}", lambda c=c: nk.instance_norm_backward(x, x, **c)
        yield f"group {axis}", lambda c=c: nk.group_norm(x, 1, **c)
        yield f"group_backward {axis}", lambda c=c: nk.group_norm_backward(x, x, 1, **c)
        if x.shape[axis] == MANY:
            yield f"groups {axis}", lambda c=c: nk.group_norm(x, MANY, **c)
            yield f"groups_backward {axis}", lambda c=c: nk.group_norm_backward(x, x, MANY, **c)
        yield f"switchable {axis}", lambda c=c: nk.switchable_norm(x, logits, logits, **c)
        yield (
            f"switchable_backward {axis}",
            lambda c=c: nk.switchable_norm_backward(x, x, logits, logits, **c),
        )
        yield f"adaptive {axis}", lambda c=c: nk.adaptive_instance_norm(x, x, **c)
        yield f"adaptive_backward {axis}", lambda c=c: nk.adaptive_instance_norm_backward(x, x, x, **c)
        yield f"local_response {axis}", lambda c=c: nk.local_response_norm(x, 3, **c)
        yield f"local_response_backward {axis}", lambda c=c: nk.local_response_norm_backward(x, x, 3, **c)
    flat = "a b c"[: 2 * x.ndim - 1]
    for k in range(x.ndim):
        pattern = flat.replace(flat[2 * k], f"[{flat[2 * k]}]")
        yield f"norm {pattern}", lambda p=pattern: nk.norm(x, p)
        yield f"norm_backward {pattern}", lambda p=pattern: nk.norm_backward(x, x, p)
    if x.ndim > 1:
        for transposed in (False, True):
            channels = x.shape[transposed]
            of = [np.broadcast_to(x.dtype.type(1), channels)] * 2
            yield (
                f"fold transposed={transposed}",
                lambda of=of, t=transposed: nk.fold_batch_norm(x, None, *of, None, None, 1e-5, transposed=t),
            )


def grad_sums(x):
    for axis in range(x.ndim):
        kept = tuple(size for k, size in enumerate(x.shape) if k != axis)
        of = np.broadcast_to(1.0, kept)
        yield f"GradSums {axis}", lambda of=of, a=axis: nk.GradSums.of(x, x, of, of, a)


SHAPES = ((MANY, 0), (0, MANY), (2, MANY, 0), (2, 0, MANY), (0, 2, MANY), (MANY, 0, 3), (0, MANY, 3))


def main():
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # a kernel that walks does not return: the process ends
    count = 0
    for shape in SHAPES:
        for dtype in (np.float32, np.float64):
            x = np.empty(shape, dtype)
            for name, call in (*calls(x), *grad_sums(x)):
                print(f"{name} of {shape} {dtype.__name__}", flush=True)
                signal.alarm(SECONDS)
                with contextlib.suppress(MemoryError):
                    call()
                signal.alarm(0)
                count += 1
    print(count, "calls")
    print("ok")


main()
