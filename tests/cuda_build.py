#!/usr/bin/env python3
"""The CUDA backend, compiled: nothing that would change bits, no spilled registers.

    python3 tests/cuda_build.py [--all] [--build DIR] [--jobs N]

The oldest architecture alone, whose PTX all others come from, and machine code of float and bfloat16 only
(kernels are templates over the type); with --all everything (12 minutes). Needs nvcc, no GPU; without nvcc it
says so and passes. Prints a line for each check and 'N passed, N failed'.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# What runs for contiguous arrays (Spacing::kOne), and how many bytes may be spilled; the general variants may
# spill. A tile has dy and x of a row in 64 of 128 registers.
MAIN = {
    "forward_sets<PlainSource<{type}, 0>": 0,
    "forward_packed<PlainSource<{type}, 0>": 0,
    "forward_slabs<PlainSource<{type}, 0>": 0,
    "backward_tiles<{type}": 256,
    "backward_slabs<{type}": 0,
    "apply_sets<PlainSource<{type}, 0>": 0,
}
TYPES = {"f32": "float", "f16": "normkit::Float16", "bf16": "normkit::BFloat16"}


def find_nvcc():
    for candidate in (os.environ.get("CUDACXX"), shutil.which("nvcc"), "/usr/local/cuda/bin/nvcc"):
        if candidate and Path(candidate).exists():
            return candidate
    return None


def run(*command):
    result = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    if result.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}\n{result.stdout[-3000:]}{result.stderr[-3000:]}")
    return result.stdout + result.stderr


def kernels(log):
    """(architecture, demangled name, registers, spilled bytes) of each entry function in ptxas' report."""
    found, entry, arch, spilled = [], None, None, {}
    for line in log.splitlines():
        if match := re.search(r"Compiling entry function '(\S+)' for '(\S+)'", line):
            entry, arch = match.groups()
        elif match := re.search(r"Function properties for (\S+)", line):
            function = match.group(1)
        elif match := re.search(r"(\d+) bytes spill stores", line):
            spilled[function] = int(match.group(1))
        elif (match := re.search(r"Used (\d+) registers", line)) and entry:
            found.append((arch, entry, int(match.group(1)), spilled.get(entry, 0)))
            entry = None
    names = run("c++filt", *[f[1] for f in found]).splitlines()
    extra = r"\([\w:]*Spacing\)|normkit::device::detail::(gpu::)?|\((?![\w:]*Spacing\)).*"
    short = [re.sub(extra, "", n).removeprefix("void ") for n in names]
    return [(a, n, r, s) for (a, _, r, s), n in zip(found, short, strict=True)]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--all", action="store_true", help="every architecture")
    parser.add_argument("--build", type=Path)
    parser.add_argument("--jobs", default=str(os.cpu_count()))
    options = parser.parse_args()
    nvcc = find_nvcc()
    if nvcc is None:
        print("no nvcc: the CUDA backend is not compiled")
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        build = options.build or Path(temporary)
        kept = build / "kept"
        kept.mkdir(parents=True, exist_ok=True)
        wanted = (ROOT / "cpp/src/cuda/CMakeLists.txt").read_text()
        wanted = re.search(r"NORMKIT_CUDA_ARCHITECTURES ([\d ]+) CACHE", wanted).group(1).split()
        types = dict(TYPES)
        without_code = []
        if not options.all:
            del wanted[1:]
            del types["f16"]
            without_code = ["f64", "f16"]
        settings = {
            "NORMKIT_CUDA": "ON",
            "NORMKIT_TESTS": "OFF",
            "NORMKIT_WERROR": "ON",
            "NORMKIT_CUDA_ARCHITECTURES": ";".join(wanted),
            "NORMKIT_CUDA_PTX_ONLY": ";".join(without_code),
            "CMAKE_CUDA_COMPILER": nvcc,
            "CMAKE_CUDA_FLAGS": f"--keep --keep-dir={kept} -Xptxas=-v",
        }
        run("cmake", "-S", ROOT, "-B", build, "-G", "Ninja", *(f"-D{k}={v}" for k, v in settings.items()))
        print(f"compiling four element types for {', '.join(wanted)}: minutes", flush=True)
        log = run("cmake", "--build", build, "-j", options.jobs, "-v", "--target", "example_layer_norm_cuda")
        print(run(build / "cpp/examples/example_layer_norm_cuda").strip())

        passed = failed = 0

        def check(what, good, note=""):
            nonlocal passed, failed
            passed, failed = passed + bool(good), failed + (not good)
            print(f"{'ok  ' if good else 'FAIL'} {what}{': ' + note if note else ''}")

        found = kernels(log)
        for arch in wanted:
            count = sum(a == f"sm_{arch}" for a, *_ in found)
            check(f"kernels for sm_{arch}", count > 0, str(count))
        ptx = sorted(kept.glob("kernels_*.ptx"))
        check("PTX of every element type", len(ptx) == 4, str(len(ptx)))
        for file in ptx:
            text = file.read_text()
            bad = sorted(set(re.findall(r"\b(?:fma|mad)\.\S*f(?:32|64)|\S*\.approx\S*|\S*\.ftz\S*", text)))
            check(f"exact arithmetic in {file.name}", "add.rn.f64" in text and not bad, " ".join(bad))
        for kind, name in types.items():
            for pattern, allowed in MAIN.items():
                start = pattern.format(type=name)
                main_kernels = [k for k in found if k[1].startswith(start)]
                worst = max((k[3] for k in main_kernels), default=0)
                most = max((k[2] for k in main_kernels), default=0)
                check(
                    f"{start}...> ({kind}), {len(main_kernels)} kernels",
                    main_kernels and worst <= allowed,
                    f"at most {most} registers, {worst} bytes spilled",
                )
        print(f"{passed} passed, {failed} failed")
        return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
