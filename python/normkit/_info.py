"""``normkit info``: version, instruction set, threads, memory and build facts, and why they are so."""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
from pathlib import Path
from typing import Any

import normkit
from normkit import _ext

DTYPES = ["float32", "float64", "float16", "bfloat16"]
SYSTEM = Path("/sys")
PEERS = ["numpy", "ml_dtypes", "torch", "jax", "onnxruntime"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``normkit info``."""
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text")


def run(options: argparse.Namespace) -> int:
    """Prints the facts; returns the exit code."""
    facts = collect()
    if options.json:
        print(json.dumps(facts, indent=2))
        return 0
    print(f"normkit {facts['version']} on {facts['machine']}, {facts['python']}")
    print(f"  isa       {facts['isa']} ({facts['isa_reason']})")
    print(f"  threads   {facts['threads']} ({facts['threads_reason']})")
    print(f"  stores    {facts['stores']}")
    print(f"  pages     {facts['huge_pages']} ({facts['huge_pages_reason']})")
    print(f"  pool      {facts['output_pool']['mib']} MiB ({facts['output_pool_reason']})")
    print(f"  cuda      {facts['cuda']}")
    print(f"  dtypes    {', '.join(facts['dtypes'])}")
    print(f"  packages  {', '.join(f'{name} {version}' for name, version in facts['packages'].items())}")
    print(f"  build     {', '.join(f'{name} {value}' for name, value in facts['build'].items())}")
    return 0


def collect() -> dict[str, Any]:
    """Everything that ``normkit info`` tells, as plain data."""
    config = normkit.show_config(mode="dicts")
    isa_available = config["isa available"].split()
    isa, isa_reason = _isa(isa_available)
    threads, threads_reason = _threads()
    pool, pool_reason = _output_pool()
    huge_pages, huge_pages_reason = _huge_pages()
    told = ("version", "isa", "isa available", "threads", "cuda", "machine", "python", "numpy")
    return {
        "version": normkit.__version__,
        "machine": f"{processor_name()} ({platform.system()} {platform.machine()})",
        "python": f"Python {platform.python_version()}",
        "isa": isa,
        "isa_available": isa_available,
        "isa_reason": isa_reason,
        "threads": threads,
        "threads_reason": threads_reason,
        "stores": _stores(),
        "stream_bytes": _ext._stream_bytes(),
        "caches": cache_sizes(),
        "huge_pages": huge_pages,
        "huge_pages_reason": huge_pages_reason,
        "output_pool": pool,
        "output_pool_reason": pool_reason,
        "cuda": config["cuda"],
        "cuda_devices": [
            normkit.cuda.device_properties(i)._asdict() for i in range(normkit.cuda.device_count())
        ],
        "dtypes": DTYPES if importlib.util.find_spec("ml_dtypes") else _dtypes_without_ml_dtypes(),
        "packages": package_versions(PEERS),
        "build": {name: value for name, value in config.items() if name not in told},
    }


def processor_name() -> str:
    """The processor's name as its maker prints it, else the architecture."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def package_versions(names: list[str]) -> dict[str, str]:
    """Versions of those packages that are installed, without importing them."""
    versions = {}
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


def usable_processors() -> int:
    """Processors that this process may run on."""
    return _ext._usable_processors()


def memory_bytes() -> int | None:
    """How much memory this machine has, where the system tells."""
    with contextlib.suppress(AttributeError, OSError, ValueError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return None


def cache_sizes() -> dict[str, str]:
    """Sizes of the first processor's caches as the system tells them, by level: {"L2": "1024K", ...}."""
    sizes = {}
    for folder in sorted(SYSTEM.glob("devices/system/cpu/cpu0/cache/index*")):
        with contextlib.suppress(OSError):
            if (folder / "type").read_text().strip() != "Instruction":
                sizes["L" + (folder / "level").read_text().strip()] = (folder / "size").read_text().strip()
    return sizes


def _isa(available: list[str]) -> tuple[str, str]:
    forced = os.environ.get("NORMKIT_ISA")
    reason = f"NORMKIT_ISA={forced}" if forced else "the best that this build and this processor share"
    return normkit.isa(), f"{reason}; NORMKIT_ISA may name {' or '.join(available)}"


def _threads() -> tuple[int, str]:
    """The reasons are those of cpp/src/threads.cpp, in its order."""
    threads = normkit.get_num_threads()
    expected, reason = 0, ""
    for variable in ("NORMKIT_NUM_THREADS", "OMP_NUM_THREADS"):
        number = re.match(r"\s*\+?(\d+)", os.environ.get(variable, ""))
        if number and 0 < int(number[1]) <= 1024:
            expected, reason = int(number[1]), f"{variable}={os.environ[variable]}"
            break
    else:
        expected, quota = usable_processors(), _ext._processor_quota()
        reason = f"{expected} usable processors"
        if expected < (os.cpu_count() or 1):
            reason += f" of {os.cpu_count()}, by the affinity of the process"
        if 0 < quota < expected:
            expected, reason = quota, f"{reason}, and a quota of {quota} for the control group"
        reason += "; NORMKIT_NUM_THREADS overrides it"
    return threads, reason if threads == expected else "set_num_threads was called"


def _stores() -> str:
    caches = ", ".join(f"{level} {size}" for level, size in cache_sizes().items())
    text = f"past the caches where arrays take {_ext._stream_bytes() >> 20} MiB together"
    return f"{text} ({caches})" if caches else text


def _huge_pages() -> tuple[str, str]:
    """What the system does about transparent huge pages: "always", "madvise", "never" or "unknown"."""
    try:
        modes = (SYSTEM / "kernel/mm/transparent_hugepage/enabled").read_text()
    except OSError:
        return "unknown", "this system does not say whether it has huge pages"
    chosen = re.search(r"\[(\w+)\]", modes)
    mode = chosen[1] if chosen else "unknown"
    if mode == "never":
        return mode, "switched off in the system; large results fault page by page when they are new"
    return mode, "transparent huge pages of the system; large results ask for them"


def _output_pool() -> tuple[dict[str, int], str]:
    mib, kept = normkit.get_output_pool(), _ext._output_pool_kept()
    forced = os.environ.get("NORMKIT_OUTPUT_POOL")
    if mib == 0:
        reason = "off: each large result is new memory"
    else:
        reason = f"kept at most of earlier results' memory, {kept >> 20} MiB now"
    if forced and int(forced) == mib:
        return {"mib": mib, "kept_bytes": kept}, f"{reason}; NORMKIT_OUTPUT_POOL={forced}"
    return {"mib": mib, "kept_bytes": kept}, f"{reason}; NORMKIT_OUTPUT_POOL overrides it"


def _dtypes_without_ml_dtypes() -> list[str]:
    return [*DTYPES[:-1], "bfloat16 (PyTorch and JAX arrays; NumPy needs the package ml_dtypes)"]
