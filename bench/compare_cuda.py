#!/usr/bin/env python3
"""The CUDA backend beside a device-to-device copy, PyTorch (eager, torch.compile) and Liger, on one GPU.

    python bench/compare_cuda.py [--only TEXT] [--json FILE] [--dry-run]

Needs normkit built with CUDA and PyTorch with CUDA; Liger (liger_kernel) where it is installed. Every call
is captured 20 times into a graph, which is replayed between two events: kernel time without launches.
Warm: all 20 on the same arrays. Cold: on arrays in turn that together are four times the second-level
cache. A line gives medians of 30 replays: GB/s of the bytes that the operation has to move, the share of
the copy's GB/s, time of the peer / time of normkit; eager is the time of one call from Python. First,
normkit's results are compared with its own on the CPU, bit for bit, and a peer's with these to 3 %.

--dry-run: on the CPU and without times, to see that the script itself is sound.
"""

import argparse
import json
import statistics
import sys
import time

import normkit as nk
import torch
import torch.nn.functional as F

LAUNCHES, SAMPLES = 20, 30
DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}


class Case:
    """`make(device)` returns the arrays of a call, which calls take; `moved`: so many like x are moved."""

    def __init__(self, name, dtype, shape, moved, make, ours, peers):
        self.name, self.dtype, self.shape, self.moved = name, dtype, shape, moved
        self.make, self.ours, self.peers = make, ours, peers

    def bytes(self):
        elements = 1
        for size in self.shape:
            elements *= size
        return self.moved * elements * DTYPES[self.dtype].itemsize


def liger(name):
    try:
        if name == "layer_norm":
            from liger_kernel.ops.layer_norm import LigerLayerNormFunction as function
        else:
            from liger_kernel.ops.rms_norm import LigerRMSNormFunction as function
    except ImportError:
        return None
    return function.apply


def compiled(call):
    return torch.compile(call, dynamic=False)


def rows(dtype, n_rows, n):
    shape, kind = (n_rows, n), DTYPES[dtype]

    def make(device):
        generator = torch.Generator(device).manual_seed(1)

        def random(*size):
            return torch.randn(*size, device=device, generator=generator).to(kind)

        return {
            "x": random(*shape),
            "dy": random(*shape),
            "residual": random(*shape),
            "w": random(n),
            "b": random(n),
        }

    def eager(name):
        return {
            "layer_norm": lambda a: F.layer_norm(a["x"], (n,), a["w"], a["b"]),
            "rms_norm": lambda a: F.rms_norm(a["x"], (n,), a["w"], 1e-6),
            "add_rms_norm": lambda a: F.rms_norm(a["x"] + a["residual"], (n,), a["w"], 1e-6),
        }[name]

    def peers(name):
        found = {"PyTorch": eager(name), "compiled": compiled(eager(name))}
        apply = liger(name) if name != "add_rms_norm" else None
        if apply:
            extra = ("w", "b") if name == "layer_norm" else ("w",)
            found["Liger"] = lambda a: apply(
                a["x"], *(a[k] for k in extra), 1e-5 if name == "layer_norm" else 1e-6
            )
        return found

    aten = torch.ops.aten
    cases = [
        ("layer_norm", 2, lambda a: nk.layer_norm(a["x"], (n,), a["w"], a["b"]), peers("layer_norm")),
        ("rms_norm", 2, lambda a: nk.rms_norm(a["x"], (n,), a["w"], 1e-6), peers("rms_norm")),
        (
            "add_rms_norm",
            4,
            lambda a: nk.add_rms_norm(a["x"], a["residual"], (n,), a["w"], 1e-6)[0],
            peers("add_rms_norm"),
        ),
        (
            "layer_norm_backward",
            3,
            lambda a: nk.layer_norm_backward(
                a["dy"], a["x"], (n,), a["w"], a["b"], mean=a["mean"], rstd=a["rstd"]
            )[0],
            {
                "PyTorch": lambda a: aten.native_layer_norm_backward(
                    a["dy"], a["x"], (n,), a["torch mean"], a["torch rstd"], a["w"], a["b"], [True] * 3
                )[0]
            },
        ),
    ]

    def with_statistics(device):
        arrays = make(device)
        _, arrays["mean"], arrays["rstd"] = nk.layer_norm(arrays["x"], (n,), return_stats=True)
        torchs = aten.native_layer_norm(arrays["x"], (n,), arrays["w"], arrays["b"], 1e-5)
        arrays["torch mean"], arrays["torch rstd"] = torchs[1:]
        return arrays

    return [
        Case(name, dtype, shape, moved, with_statistics if "backward" in name else make, ours, others)
        for name, moved, ours, others in cases
    ]


def images(dtype, shape, last):
    kind, channels = DTYPES[dtype], shape[1]
    layout = torch.channels_last if last else torch.contiguous_format

    def make(device):
        generator = torch.Generator(device).manual_seed(2)
        x = torch.randn(*shape, device=device, generator=generator).to(kind).contiguous(memory_format=layout)
        return {
            "x": x,
            "w": torch.ones(channels, device=device, dtype=kind),
            "b": torch.zeros(channels, device=device, dtype=kind),
        }

    def peers(call):
        return {"PyTorch": call, "compiled": compiled(call)}

    return [
        Case(f"{name} {'nhwc' if last else 'nchw'}", dtype, shape, 2, make, ours, peers(theirs))
        for name, ours, theirs in [
            (
                "batch_norm",
                lambda a: nk.batch_norm(a["x"], None, None, a["w"], a["b"], True),
                lambda a: F.batch_norm(a["x"], None, None, a["w"], a["b"], True),
            ),
            (
                "group_norm",
                lambda a: nk.group_norm(a["x"], 32, a["w"], a["b"]),
                lambda a: F.group_norm(a["x"], 32, a["w"], a["b"]),
            ),
            (
                "instance_norm",
                lambda a: nk.instance_norm(a["x"], weight=a["w"], bias=a["b"]),
                lambda a: F.instance_norm(a["x"], weight=a["w"], bias=a["b"]),
            ),
        ]
    ]


def all_cases(small):
    row_sizes = [(64, 256)] if small else [(1, 4096), (4096, 256), (4096, 4096), (16384, 4096), (262144, 256)]
    image_sizes = [(2, 64, 7, 7)] if small else [(2, 64, 56, 56), (32, 64, 56, 56), (32, 512, 14, 14)]
    cases = [c for dtype in ("f32", "bf16") for size in row_sizes for c in rows(dtype, *size)]
    return cases + [c for size in image_sizes for last in (False, True) for c in images("f32", size, last)]


def graph_time(calls):
    """Microseconds of one call: 20 of them, taken in turn from `calls`, replayed as a graph."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for call in calls[:3]:
            call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for i in range(LAUNCHES):
            calls[i % len(calls)]()
    samples = []
    for _ in range(SAMPLES):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        samples.append(start.elapsed_time(end) * 1e3 / LAUNCHES)
    return statistics.median(samples)


def eager_time(call):
    """Microseconds that Python takes for one call."""
    samples = []
    for _ in range(SAMPLES):
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(LAUNCHES):
            call()
        samples.append((time.perf_counter() - start) * 1e6 / LAUNCHES)
    torch.cuda.synchronize()
    return statistics.median(samples)


def check(case, arrays):
    result = case.ours(arrays)
    on_cpu = case.ours({k: v.cpu() for k, v in arrays.items()})
    if not torch.equal(result.cpu(), on_cpu):
        sys.exit(f"{case.name} {case.dtype} {case.shape}: not the CPU's bits")
    wide = on_cpu.double()
    wrong = []
    for name, peer in case.peers.items():
        if name == "compiled" and result.device.type == "cpu":
            continue
        error = (peer(arrays).cpu().double() - wide).abs().max().item() / wide.abs().max().item()
        if error > 0.03:
            wrong.append(name)
    return wrong


def measure(case, dry_run):
    device = "cpu" if dry_run else "cuda"
    arrays = case.make(device)
    line = {"case": case.name, "dtype": case.dtype, "shape": list(case.shape), "wrong": check(case, arrays)}
    if dry_run:
        return line
    cache = torch.cuda.get_device_properties(0).L2_cache_size
    copies = min(LAUNCHES, max(1, -(-4 * cache // case.bytes())))
    sets = [arrays] + [case.make(device) for _ in range(copies - 1)]
    to = torch.empty_like(arrays["x"])
    calls = {"copy": lambda a: to.copy_(a["x"]), "normkit": case.ours, **case.peers}
    for regime, using in (("warm", sets[:1]), ("cold", sets)):
        times = {name: graph_time([lambda a=a, f=f: f(a) for a in using]) for name, f in calls.items()}
        moved = case.bytes() / 1e3
        copied = 2 * arrays["x"].numel() * arrays["x"].element_size() / 1e3 / times["copy"]
        line[regime] = {
            "us": times["normkit"],
            "GB/s": moved / times["normkit"],
            "of copy": moved / times["normkit"] / copied,
            **{name: times[name] / times["normkit"] for name in case.peers},
        }
    line["eager us"] = eager_time(lambda: case.ours(arrays))
    return line


def text_of(line):
    parts = [f"{line['case']:22} {line['dtype']:5} {'x'.join(map(str, line['shape'])):14}"]
    for regime in ("warm", "cold"):
        if regime in line:
            numbers = " ".join(f"{name} {value:.3g}" for name, value in line[regime].items())
            parts.append(f"{regime}: {numbers}")
    if "eager us" in line:
        parts.append(f"eager {line['eager us']:.1f} us")
    if line["wrong"]:
        parts.append("wrong results: " + ", ".join(line["wrong"]))
    return " | ".join(parts)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--json", help="all numbers, to a file")
    parser.add_argument("--dry-run", action="store_true")
    options = parser.parse_args()
    if not options.dry_run and not (torch.cuda.is_available() and nk.cuda.is_available()):
        sys.exit("bench/cuda.py needs a CUDA device, PyTorch with CUDA and normkit built with CUDA")
    if not options.dry_run:
        print(torch.cuda.get_device_name(0), "torch", torch.__version__, flush=True)
    lines = []
    for case in all_cases(options.dry_run):
        if options.only in case.name:
            lines.append(measure(case, options.dry_run))
            print(text_of(lines[-1]), flush=True)
    if options.json:
        with open(options.json, "w") as file:
            json.dump(lines, file, indent=1)


if __name__ == "__main__":
    main()
