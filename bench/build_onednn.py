"""Builds the oneDNN contender of ``normkit bench``: bench/libnormkit_bench_onednn.so from onednn.cpp.

oneDNN comes from ``pip install onednn-cpu-gomp onednn-devel-cpu-gomp`` (in this interpreter's environment;
not the SYCL build named ``onednn``), from the system (Debian: libdnnl-dev), or from ``--prefix``.
``normkit bench`` finds the library here, or where the environment variable NORMKIT_BENCH_ONEDNN says.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
HEADER = Path("include/oneapi/dnnl/dnnl.hpp")


def main() -> int:
    """Compiles and links; the exit code is the compiler's, 2 if oneDNN is not there."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--prefix", type=Path, help="folder with oneDNN's include/ and lib/")
    parser.add_argument("--output", type=Path, default=HERE / "libnormkit_bench_onednn.so")
    options = parser.parse_args()
    prefixes = [options.prefix] if options.prefix else [Path(sys.prefix), Path("/usr/local"), Path("/usr")]
    prefix = next((folder for folder in prefixes if (folder / HEADER).exists()), None)
    if prefix is None:
        print(f"{HEADER} is in none of {', '.join(map(str, prefixes))}; see --help", file=sys.stderr)
        return 2
    command = shlex.split(os.environ.get("CXX", "c++"))
    command += ["-std=c++17", "-O2", "-fopenmp", "-shared", "-fPIC", str(HERE / "onednn.cpp")]
    command += ["-o", str(options.output)]
    if prefix != Path("/usr"):
        command += [f"-I{prefix / 'include'}", f"-L{prefix / 'lib'}", f"-Wl,-rpath,{prefix / 'lib'}"]
    command.append("-ldnnl")
    print(shlex.join(command))
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
