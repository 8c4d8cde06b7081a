"""Every operation on a thread with a stack of so many KiB, or, as "least", of the least that is not refused.

Prints "refused" or "right" for each operation, and the least.
"""

import sys
import threading

import normkit as nk
import numpy as np


def calls(x):
    """(name, a call without arguments): every operation, of x of shape (N, C, H, W)."""
    samples, channels = x.shape[:2]
    like = dict(dtype=x.dtype)
    weight, bias = np.ones(channels, **like), np.zeros(channels, **like)
    mixture = np.ones(3, **like)
    inner, last = x.shape[1:], np.ascontiguousarray(np.moveaxis(x, 1, -1))
    alpha = np.ones(1, **like)
    mean, var = np.zeros(channels), np.ones(channels)
    running = [mean, var]
    content = x[:, :, ::2]
    norms = {
        "layer_norm": (inner,),
        "rms_norm": (inner,),
        "batch_norm": (None, None),
        "instance_norm": (),
        "group_norm": (2,),
        "normalize": (2.0,),
        "dynamic_tanh": (alpha,),
        "local_response_norm": (5,),
        "switchable_norm": (mixture, mixture),
        "adaptive_instance_norm": (content,),
    }
    training = {"batch_norm": {"training": True}}
    for name, arguments in norms.items():
        forward, backward = getattr(nk, name), getattr(nk, name + "_backward")
        keywords = training.get(name, {})
        yield name, lambda f=forward, a=arguments, k=keywords: f(x, *a, **k)
        yield name + "_backward", lambda f=backward, a=arguments, k=keywords: f(x, x, *a, **k)
    for axis, array in ((1, x), (-1, last)):
        yield (
            "layer_norm of channels",
            lambda a=array, i=axis: nk.layer_norm(a, (channels,), weight, bias, axis=i),
        )
        yield (
            "layer_norm_backward of channels",
            lambda a=array, i=axis: nk.layer_norm_backward(a, a, (channels,), weight, bias, axis=i),
        )
    of_last = {"channel_axis": -1}
    yield "batch_norm, last", lambda: nk.batch_norm(last, *running, weight, bias, True, **of_last)
    yield (
        "batch_norm_backward, last",
        lambda: nk.batch_norm_backward(last, last, None, None, weight, bias, True, **of_last),
    )
    yield "instance_norm, last", lambda: nk.instance_norm(last, *running, weight, bias, **of_last)
    yield "instance_norm_backward, last", lambda: nk.instance_norm_backward(last, last, **of_last)
    yield "group_norm, last", lambda: nk.group_norm(last, 2, weight, bias, **of_last)
    yield "group_norm_backward, last", lambda: nk.group_norm_backward(last, last, 2, weight, bias, **of_last)
    mixtures = (mixture, mixture, weight, bias)
    yield "switchable_norm, last", lambda: nk.switchable_norm(last, *mixtures, *running, **of_last)
    yield (
        "switchable_norm_backward, last",
        lambda: nk.switchable_norm_backward(last, last, *mixtures, **of_last),
    )
    yield "add_layer_norm", lambda: nk.add_layer_norm(x, x, inner, activation="gelu")
    yield "add_layer_norm_backward", lambda: nk.add_layer_norm_backward(x, x, x, inner)
    yield "add_rms_norm", lambda: nk.add_rms_norm(x, x, inner)
    yield "norm", lambda: nk.norm(x, "b (g [c]) [h w]", weight, bias, g=2)
    yield "norm_backward", lambda: nk.norm_backward(x, x, "b (g [c]) [h w]", weight, bias, g=2)
    yield "normalize, p = 3", lambda: nk.normalize(x, 3.0)
    yield "normalize_backward, p = 3", lambda: nk.normalize_backward(x, x, 3.0)
    yield "weight_norm", lambda: nk.weight_norm(x, np.ones(samples, **like))
    yield "weight_norm_backward", lambda: nk.weight_norm_backward(x, x, np.ones(samples, **like))
    yield "min_max_scale", lambda: nk.min_max_scale(x)
    yield "z_score", lambda: nk.z_score(x)
    yield "Moments", lambda: nk.Moments.of(x, (0, 2, 3))
    yield "layer_norm, strided", lambda: nk.layer_norm(x[:, :, ::2, ::-1], x[:, :, ::2].shape[1:])


def on_thread(kib, function):
    """What the function returned on a thread of this stack, or the RuntimeError that it raised."""
    result = []

    def body():
        try:
            result.append(function())
        except RuntimeError as error:
            result.append(error)

    threading.stack_size(kib * 1024)
    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    return result[0]


def parts(result):
    if isinstance(result, tuple):
        return [part for part in result if part is not None]
    return [result.mean] if isinstance(result, nk.Moments) else [result]


def main(kib):
    small = np.ones((2, 4), np.float32)
    if kib == "least":
        kib = 64
        while isinstance(on_thread(kib, lambda: nk.layer_norm(small, 4)), RuntimeError):
            kib += 4
        print("least", kib)
    kib = int(kib)
    for name in ("float32", "float64", "float16"):
        x = np.random.default_rng(1).standard_normal((3, 20, 9, 10)).astype(name)
        for operation, call in calls(x):
            result = on_thread(kib, call)
            if isinstance(result, RuntimeError):
                print(name, operation, "refused:", result)
                continue
            pairs = zip(parts(result), parts(call()), strict=True)
            same = all(a.tobytes() == b.tobytes() for a, b in pairs)
            print(name, operation, "right" if same else "WRONG")
    on_thread(kib, nk.get_num_threads)


if __name__ == "__main__":
    main(sys.argv[1])
