#!/usr/bin/env python3
"""The same bits on other processors: cross compilers, and qemu in the place of the machine.

    python3 tests/targets.py [--install] [--ci] [--only TEXT]

Each processor runs tests/targets/program.cpp (LayerNorm and RMSNorm, forward and backward, every type,
sizes with tails, subnormals, and a floating-point mode of the caller's that must change nothing and be
kept) and has to print what this machine prints; with an operating system it also meets the golden hashes
of every operation. Other targets are only compiled, without a warning. A check that lacks a tool is
skipped and says so; --install gets them, with apt (as root, or by sudo) and pip. --ci takes what every
change must pass, in a few minutes: big-endian s390x, and a Cortex-M55. Prints a line for each check and
'N passed, N failed, N skipped'.
"""

import argparse
import functools
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HERE = ROOT / "tests/targets"
TOOLS = ROOT / "build/targets"  # where --install puts zig
INCLUDE = ["-std=c++17", "-I", str(ROOT / "cpp/include")]
WARNINGS = ["-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Wsign-conversion", "-Wold-style-cast",
            "-Wdouble-promotion", "-Werror", "-pedantic"]  # fmt: skip
SEMIHOSTING = ["-nographic", "-monitor", "none", "-serial", "none", "-semihosting-config"]


class Skip(Exception):
    pass


def run(*command, **options):
    result = subprocess.run([str(c) for c in command], capture_output=True, text=True, **options)
    if result.returncode != 0:
        text = f"{result.stdout[-800:]}{result.stderr[-1500:]}"
        raise AssertionError(f"{' '.join(map(str, command))}: {result.returncode}\n{text}")
    return result.stdout


def need(tool):
    if shutil.which(tool) is None:
        raise Skip(f"no {tool}")
    return tool


def zig():
    """The command of zig's compiler, which has every target's C library in it."""
    python = TOOLS / "bin/python"
    if python.exists():
        return [str(python), "-m", "ziglang", "c++"]
    return [need("zig"), "c++"]


def compiler_of(command):
    return zig() if command[0] == "zig" else [need(command[0]), *command[1:]]


@functools.cache
def host_prints():
    """What the program prints here, in this machine's own instructions."""
    with tempfile.TemporaryDirectory() as folder:
        run(need("g++"), "-O1", *INCLUDE, HERE / "program.cpp", "-o", Path(folder) / "program")
        lines = run(Path(folder) / "program").splitlines()
    assert len(lines) == 64, lines
    assert not [line for line in lines if "mode" in line], "this machine's own mode is not kept"
    return lines


def compare(lines):
    expected = host_prints()
    wrong = [f"{got!r}, not {want!r}" for got, want in zip(lines, expected, strict=False) if got != want]
    assert len(lines) == len(expected), f"{len(lines)} lines: {lines[:3]}"
    assert not wrong, f"{len(wrong)} of {len(expected)} lines differ: " + "; ".join(wrong[:4])


@dataclass
class Target:
    name: str
    compiler: list
    flags: list
    packages: list
    emulator: str = ""
    ci: bool = False
    golden: bool = False

    def check(self, folder):
        """A program of an operating system, linked statically."""
        emulator = need(self.emulator)
        source = ROOT / "tests/cpp/golden_main.cpp" if self.golden else HERE / "program.cpp"
        command = [*compiler_of(self.compiler), *self.flags, "-static", *INCLUDE]
        run(*command, source, "-o", folder / "program")
        if self.golden:
            assert " 0 failed" in run(emulator, folder / "program")
        else:
            compare(run(emulator, folder / "program").splitlines())


@dataclass
class Board(Target):
    """A Cortex-M without an operating system: a machine of qemu, and where it has code and data."""

    machine: str = ""
    code: int = 0x40  # behind the vectors
    data: int = 0x20000000

    def check(self, folder):
        emulator = need("qemu-system-arm")
        compiler = [need("arm-none-eabi-g++"), *self.flags, "-mthumb", "-mfloat-abi=hard", "-fno-exceptions",
                    "-fno-rtti"]  # fmt: skip
        run(*compiler, *INCLUDE, "-c", HERE / "program.cpp", "-o", folder / "program.o")
        run(*compiler, "-x", "c", "-c", HERE / "start.c", "-o", folder / "start.o")
        places = [
            f"-Wl,--defsym={name}={value}" for name, value in (("code", self.code), ("data", self.data))
        ]
        run(*compiler, "--specs=rdimon.specs", "-nostartfiles", "-T", HERE / "memory.ld", *places,
            folder / "start.o", folder / "program.o", "-o", folder / "program")  # fmt: skip
        compare(run(emulator, "-M", self.machine, *SEMIHOSTING, "enable=on,target=native", "-kernel",
                    folder / "program", timeout=300).splitlines())  # fmt: skip


@dataclass
class Freestanding(Target):
    """Big-endian AArch64: clang, the little-endian one's headers, freestanding.c for a C library."""

    def check(self, folder):
        emulator, clang = need("qemu-aarch64_be"), need("clang++-19")
        need("ld.lld-19")
        cross = Path("/usr/aarch64-linux-gnu/include")
        cxx = sorted(cross.glob("c++/*"))
        if not cxx:
            raise Skip("no g++-aarch64-linux-gnu")
        target = ["--target=aarch64_be-linux-gnu", "-fno-stack-protector", "-fno-pic"]
        (folder / "gnu").mkdir()
        (folder / "gnu/stubs-lp64_be.h").touch()
        headers = [
            "-nostdinc++",
            "-isystem",
            folder,
            "-isystem",
            cxx[-1],
            "-isystem",
            cxx[-1] / "aarch64-linux-gnu",
            "-isystem",
            cross,
        ]
        run(clang, *target, *self.flags, *headers, "-fno-exceptions", *INCLUDE, "-c", HERE / "program.cpp",
            "-o", folder / "program.o")  # fmt: skip
        run(
            clang,
            *target,
            "-fno-builtin",
            "-O1",
            "-x",
            "c",
            "-c",
            HERE / "freestanding.c",
            "-o",
            folder / "c.o",
        )
        run("ld.lld-19", "-EB", folder / "program.o", folder / "c.o", "-o", folder / "program")
        compare(run(emulator, folder / "program").splitlines())


@dataclass
class Compiled(Target):
    """Only compiled, or only parsed, where there is nothing to run it."""

    def check(self, folder):
        (folder / "all.cpp").write_text("#include <normkit/normkit.hpp>\n")
        output = ["-fsyntax-only"] if self.compiler[0] != "zig" else ["-c", "-O0", "-o", folder / "all.o"]
        run(*compiler_of(self.compiler), *self.flags, *WARNINGS, *INCLUDE, *output, folder / "all.cpp")


@dataclass
class OwnCode(Target):
    """The includer's own a * b + c is fused after normkit's headers as it is without them."""

    def check(self, folder):
        (folder / "own.cpp").write_text(
            "#include <normkit/normkit.hpp>\nfloat own(float a, float b, float c) { return a * b + c; }\n"
        )
        command = [
            *compiler_of(self.compiler),
            *self.flags,
            *INCLUDE,
            "-O2",
            "-S",
            "-o",
            "-",
            folder / "own.cpp",
        ]
        assert " fmadd" in run(*command).replace("\t", " "), (
            "the includer's own arithmetic is no longer fused"
        )


def linux(name, triple, emulator, flags, levels=("-O2",), **options):
    package = "g++-" + triple.replace("_", "-")
    for level in levels:
        yield Target(
            f"{name} {level}", [f"{triple}-g++"], [level, *flags], [package, "qemu-user"], emulator, **options
        )


def targets():
    arm = ["gcc-arm-none-eabi", "libstdc++-arm-none-eabi-newlib", "qemu-system-arm"]
    m4 = {"machine": "mps2-an386"}
    m55 = {"machine": "mps3-an547", "code": 0x01000000, "data": 0x21000000}
    yield from linux("s390x (big-endian)", "s390x-linux-gnu", "qemu-s390x", [], ("-O1",), ci=True)
    yield Board("Cortex-M55 -O2", [], ["-O2", "-mcpu=cortex-m55"], arm, ci=True, **m55)
    # With MVE, GCC 12 at -Os places constants too far from a load, and its assembler refuses.
    yield Board("Cortex-M55 -Os, no MVE", [], ["-Os", "-mcpu=cortex-m55+nomve"], arm, **m55)
    for level in ("-O2", "-Os"):
        yield Board(f"Cortex-M4F {level}", [], [level, "-mcpu=cortex-m4"], arm, **m4)
    systems = [
        ("s390x (big-endian)", "s390x-linux-gnu", "qemu-s390x", []),
        ("32-bit ARM", "arm-linux-gnueabihf", "qemu-arm", []),
        ("32-bit ARM, NEON", "arm-linux-gnueabihf", "qemu-arm", ["-mfpu=neon"]),
        ("RISC-V 64", "riscv64-linux-gnu", "qemu-riscv64", []),
        ("i686, SSE2", "i686-linux-gnu", "qemu-i386", ["-msse2", "-mfpmath=sse"]),
        ("POWER (big-endian)", "powerpc64-linux-gnu", "qemu-ppc64", []),
        ("MIPS (big-endian)", "mips-linux-gnu", "qemu-mips", []),
    ]
    for system in systems:
        yield from linux(*system)
        yield from linux(f"{system[0]}, golden", *system[1:3], [*system[3]], ("-O1",), golden=True)
    tools = ["clang-19", "lld-19", "g++-aarch64-linux-gnu", "qemu-user"]
    yield Freestanding("AArch64 (big-endian), clang -O2", ["clang++-19"], ["-O2"], tools)
    # The NEON that flushes subnormals: clang takes it for vectors, GCC does not.
    neon = ["-O2", "-march=armv7-a", "-mfpu=neon", "--target=arm-linux-gnueabihf"]
    tools = ["clang-19", "g++-arm-linux-gnueabihf", "qemu-user"]
    yield Target("32-bit ARM, NEON, clang", ["clang++-19"], neon, tools, "qemu-arm")
    for triple, flags in (
        ("i386-linux-gnu", ["-march=pentium4"]),
        ("armv7-linux-gnueabihf", []),
        ("aarch64-linux-gnu", []),
        ("riscv64-linux-gnu", []),
    ):
        for clang in ("clang++-19", "clang++-14"):
            package = clang.replace("++", "")
            yield Compiled(f"{clang} {triple}, parsed", [clang], [f"--target={triple}", *flags], [package])
    for triple in ("aarch64-linux-gnu", "riscv64-linux-gnu"):
        for clang in ("clang++-19", "clang++-14"):
            packages = [clang.replace("++", "")]
            flags = ["-ffp-contract=on", f"--target={triple}"]
            yield OwnCode(f"{clang} {triple}, own arithmetic", [clang], flags, packages)
    wasm = ["clang-19", "libc++-19-dev-wasm32", "wasi-libc"]
    yield Compiled("clang++-19 wasm32, parsed", ["clang++-19"], ["--target=wasm32-wasi"], wasm)
    for triple in (
        "x86_64-linux-musl",
        "aarch64-macos",
        "x86_64-windows-gnu",
        "x86-windows-gnu",
        "wasm32-wasi",
    ):
        yield Compiled(f"zig {triple}, compiled", ["zig"], ["-target", triple], [])


def install(chosen):
    packages = sorted({package for target in chosen for package in target.packages})
    root = [] if os.geteuid() == 0 else ["sudo"]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    query = ["dpkg-query", "-W", "-f=${Status}"]
    missing = [
        p
        for p in packages
        if "ok installed" not in subprocess.run([*query, p], capture_output=True, text=True).stdout
    ]
    if missing:
        subprocess.run([*root, "apt-get", "update", "-qq"], env=environment, check=False)
    for package in missing:
        command = [*root, "apt-get", "install", "-y", "-qq", "--no-install-recommends", package]
        if subprocess.run(command, env=environment, capture_output=True).returncode != 0:
            print(f"not installed: {package}", file=sys.stderr)
    if any(target.compiler[:1] == ["zig"] for target in chosen) and not (TOOLS / "bin/python").exists():
        run(sys.executable, "-m", "venv", TOOLS)
        run(TOOLS / "bin/python", "-m", "pip", "install", "--quiet", "ziglang")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--install", action="store_true", help="get what the checks need")
    parser.add_argument("--ci", action="store_true", help="only what every change must pass")
    parser.add_argument("--only", default="", help="checks whose name has this text")
    arguments = parser.parse_args()
    chosen = [t for t in targets() if (t.ci or not arguments.ci) and arguments.only in t.name]
    if arguments.install:
        install(chosen)
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    for target in chosen:
        with tempfile.TemporaryDirectory() as folder:
            try:
                target.check(Path(folder))
                state, detail = "passed", ""
            except Skip as reason:
                state, detail = "skipped", str(reason)
            except (AssertionError, subprocess.TimeoutExpired) as error:
                state, detail = "failed", str(error)
        counts[state] += 1
        print(f"{state:8} {target.name} {detail}", flush=True)
    print(", ".join(f"{count} {state}" for state, count in counts.items()))
    return 1 if counts["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
