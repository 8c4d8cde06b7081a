"""``normkit info``: version, instruction set, threads, dtypes and build facts, and why they are so."""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import importlib.util
import json
import os
import platform
from typing import Any

import normkit

DTYPES = ["float32", "float64", "float16", "bfloat16"]
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
    told = ("version", "isa", "isa available", "threads", "machine", "python", "numpy")
    return {
        "version": normkit.__version__,
        "machine": f"{processor_name()} ({platform.system()} {platform.machine()})",
        "python": f"Python {platform.python_version()}",
        "isa": isa,
        "isa_available": isa_available,
        "isa_reason": isa_reason,
        "threads": threads,
        "threads_reason": threads_reason,
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
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _isa(available: list[str]) -> tuple[str, str]:
    forced = os.environ.get("NORMKIT_ISA")
    reason = f"NORMKIT_ISA={forced}" if forced else "the best that this build and this processor share"
    return normkit.isa(), f"{reason}; NORMKIT_ISA may name {' or '.join(available)}"


def _threads() -> tuple[int, str]:
    threads = normkit.get_num_threads()
    for variable in ("NORMKIT_NUM_THREADS", "OMP_NUM_THREADS"):
        if os.environ.get(variable):
            return threads, f"{variable}={os.environ[variable]}"
    return threads, f"{usable_processors()} usable processors; NORMKIT_NUM_THREADS overrides it"


def _dtypes_without_ml_dtypes() -> list[str]:
    return [*DTYPES[:-1], "bfloat16 (PyTorch and JAX arrays; NumPy needs the package ml_dtypes)"]
