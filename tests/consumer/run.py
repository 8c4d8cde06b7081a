#!/usr/bin/env python3
"""Everything that a user of the C++ part does, done: find_package, add_subdirectory, plain -I, other flags.

    python3 tests/consumer/run.py --build build [--only TEXT]

Checks that need a missing tool (clang++-19, the AArch64 cross compiler, qemu) are skipped and say so.
Prints a line for each check and 'N passed, N failed, N skipped'.
"""

import argparse
import functools
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = ROOT / "tests/consumer"
INCLUDE = ["-I", str(ROOT / "cpp/include")]
INSTALLING = threading.Lock()
X86 = platform.machine() in ("x86_64", "AMD64")


class Skip(Exception):
    pass


def run(*command, **options):
    result = subprocess.run([str(c) for c in command], capture_output=True, text=True, **options)
    if result.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, command))}\n{result.stdout[-800:]}{result.stderr[-1500:]}")
    return result.stdout


def need(tool):
    if shutil.which(tool) is None:
        raise Skip(f"no {tool}")
    return tool


def cpu_has(flag):
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    return re.search(rf"\b{flag}\b", text) is not None


def readme_example():
    return re.search(r"```cpp\n(.*?)```", (ROOT / "README.md").read_text(), re.S).group(1)


PROJECT = """
cmake_minimum_required(VERSION 3.22)
project(consumer LANGUAGES CXX)
{find}
foreach(target IN ITEMS headers normkit)
  add_executable(uses_${{target}} main.cpp)
  target_link_libraries(uses_${{target}} PRIVATE normkit::${{target}})
endforeach()
"""


def configure(source, build, *options):
    run("cmake", "-S", source, "-B", build, *options)


def install(build, prefix):
    with INSTALLING:  # it writes into the build folder
        run("cmake", "--install", build, "--prefix", prefix)


# Those of tests/run.sh, so that a ccache has the library's objects already.
LIBRARY_OPTIONS = ["-DCMAKE_BUILD_TYPE=Release", "-DNORMKIT_WERROR=ON"]


def cmake_project(folder, find, *options):
    (folder / "main.cpp").write_text(readme_example())
    (folder / "CMakeLists.txt").write_text(PROJECT.format(find=find))
    configure(folder, folder / "b", *options)
    run("cmake", "--build", folder / "b", "-j2")
    for target in ("headers", "normkit"):
        run(folder / "b" / f"uses_{target}")


def check_find_package(folder, build):
    install(build, folder / "prefix")
    project = folder / "project"
    project.mkdir()
    cmake_project(project, "find_package(normkit REQUIRED)", f"-DCMAKE_PREFIX_PATH={folder / 'prefix'}")


def check_add_subdirectory(folder, build):
    cmake_project(folder, f'add_subdirectory("{ROOT}" normkit)', *LIBRARY_OPTIONS)


EMPTY = "#include <normkit/normkit.hpp>\nint main() { return 0; }\n"
C_PROGRAM = (ROOT / "cpp/examples/c_interface.c").read_text()
WITHOUT = ["-DCMAKE_DISABLE_FIND_PACKAGE_OpenMP=ON", "-DCMAKE_DISABLE_FIND_PACKAGE_Threads=ON"]


def project(folder, language, source, target, find="find_package(normkit REQUIRED)"):
    """A project in one language with one program that links one target."""
    folder.mkdir()
    name = "main.c" if language == "C" else "main.cpp"
    (folder / name).write_text(source)
    link = f"target_link_libraries(main PRIVATE {target})\n" if target else ""
    (folder / "CMakeLists.txt").write_text(
        f"cmake_minimum_required(VERSION 3.22)\nproject(consumer LANGUAGES {language})\n{find}\n"
        f"add_executable(main {name})\n{link}"
    )
    return folder


def installed(folder, build, kind):
    """Where the library is installed, as an archive or shared."""
    prefix = folder / kind
    if kind == "shared":
        off = [f"-DNORMKIT_{part}=OFF" for part in ("TESTS", "EXAMPLES")]
        configure(ROOT, folder / "build", "-DBUILD_SHARED_LIBS=ON", *off, *LIBRARY_OPTIONS)
        run("cmake", "--build", folder / "build", "-j2")
        build = folder / "build"
    install(build, prefix)
    return f"-DCMAKE_PREFIX_PATH={prefix}"


def build_and_run(folder, *options):
    configure(folder, folder / "b", *options)
    run("cmake", "--build", folder / "b", "-j2")
    return run(folder / "b/main")


def check_packages(folder, build):
    """For projects in C alone, without OpenMP, of another compiler; the archive and the shared library."""
    clang = shutil.which("clang++-19")
    failed = []
    for kind in ("static", "shared"):
        prefix = installed(folder, build, kind)
        tries = {
            "C alone": ("C", C_PROGRAM, "normkit::normkit", [f"-DCMAKE_C_COMPILER={need('gcc')}"]),
            "library without OpenMP": ("CXX", readme_example(), "normkit::normkit", WITHOUT),
            "headers without OpenMP": ("CXX", EMPTY, "normkit::headers", WITHOUT),
        }
        if clang:
            options = [f"-DCMAKE_CXX_COMPILER={clang}", *WITHOUT]
            tries["library, clang without libomp"] = ("CXX", readme_example(), "normkit::normkit", options)
            tries["headers, clang without libomp"] = ("CXX", EMPTY, "normkit::headers", options)
        for name, (language, source, target, options) in tries.items():
            try:
                build_and_run(project(folder / f"{kind} {name}", language, source, target), prefix, *options)
            except AssertionError as error:
                failed.append(f"{kind}, {name}: {error}")
    assert not failed, "\n".join(failed)


def check_package_for_pointers_of_another_size(folder, build):
    prefix = installed(folder, build, "static")
    other = "set(CMAKE_SIZEOF_VOID_P 4)\n"
    find = other + "find_package(normkit REQUIRED)"
    build_and_run(project(folder / "headers", "CXX", EMPTY, "normkit::headers", find), prefix)
    find = other + "find_package(normkit REQUIRED COMPONENTS library)"
    try:
        configure(project(folder / "library", "CXX", EMPTY, "", find), folder / "library/b", prefix)
    except AssertionError as error:
        assert "pointers of 8 bytes" in str(error), error
    else:
        raise AssertionError("a library of 64 bits is found for 32")


def check_subproject_keeps_to_itself(folder, build):
    find = f'set(SKBUILD ON)\nadd_subdirectory("{ROOT}" normkit)\ninstall(FILES main.cpp DESTINATION share)'
    parent = project(folder / "parent", "CXX", EMPTY, "normkit::headers", find)
    build_and_run(parent)
    objects = [path.name for path in (parent / "b").rglob("*.o") if "main" not in path.name]
    assert not objects, f"built with `all`: {objects}"
    kind = re.search(r"CMAKE_BUILD_TYPE:STRING=(.*)", (parent / "b/CMakeCache.txt").read_text()).group(1)
    assert kind == "", f"the parent's CMAKE_BUILD_TYPE became {kind}"
    run("cmake", "--install", parent / "b", "--prefix", folder / "prefix")
    files = [str(path.relative_to(folder / "prefix")) for path in (folder / "prefix").rglob("*.*")]
    assert files == ["share/main.cpp"], f"installed with the parent: {files[:4]}"


def check_fast_math_with_the_library(folder, build):
    """Nothing of the library's arithmetic is compiled with the user's flags."""
    flags = ["-O2", "-DNORMKIT_COMPILED", "-fopenmp", "-pthread"]
    for header in sorted((ROOT / "cpp/include/normkit").glob("*.hpp")):
        read = run("g++", "-std=c++17", *flags, *INCLUDE, "-M", header)
        for name in set(re.findall(r"normkit/detail/(\S+)", read)) - {"config.hpp"}:
            text = (ROOT / "cpp/include/normkit/detail" / name).read_text()
            assert "NORMKIT_BEGIN_NAMESPACE" not in text, f"{header.name} reads the kernels' {name}"
    hashes = []
    for math in ("-fno-fast-math", "-ffast-math"):
        program = [HERE / "program.cpp", libraries(folder, build)[0], "-o", folder / "program"]
        run("g++", "-std=c++17", *flags, math, *INCLUDE, *program)
        hashes.append(run(folder / "program").split()[0])
    assert hashes[0] == hashes[1], hashes


def check_threads_of_an_engine(folder, build):
    """With nullptr for an executor, as in the README's first program, an engine keeps to its own threads."""
    if not Path("/proc/self/task").exists():
        raise Skip("no /proc")
    assert "args, {}, nullptr)" in readme_example()
    flags = ["-O1", "-DNORMKIT_COMPILED", "-fopenmp", "-pthread"]
    archive, _ = libraries(folder, build)
    run("g++", "-std=c++17", *flags, *INCLUDE, HERE / "engine.cpp", archive, "-o", folder / "engine")
    environment = {**os.environ, "NORMKIT_NUM_THREADS": "8"}
    assert run(folder / "engine", "own", env=environment) == "9\n"
    assert int(run(folder / "engine", "default", env=environment)) > 9


def check_readme_example(folder, build):
    (folder / "main.cpp").write_text(readme_example())
    for compiler in ["g++"] + (["clang++-19"] if shutil.which("clang++-19") else []):
        for standard in ("c++17", "c++20", "c++23"):
            run(compiler, f"-std={standard}", "-O0", *INCLUDE, folder / "main.cpp", "-o", folder / "main")
            run(folder / "main")


def check_each_header_alone(folder, build):
    flags = [
        "-std=c++17",
        "-Wall",
        "-Wextra",
        "-Wconversion",
        "-Wshadow",
        "-Werror",
        "-fno-exceptions",
        "-fno-rtti",
    ]
    for header in sorted((ROOT / "cpp/include/normkit").glob("*.hpp")):
        source = folder / f"{header.stem}.cpp"
        source.write_text(f"#include <normkit/{header.name}>\n")
        openmp = ["-fopenmp"] if "openmp" in header.name else []
        run("g++", *flags, *openmp, *INCLUDE, "-c", source, "-o", folder / "o.o")


def check_fast_math_is_refused(folder, build):
    source = folder / "fast.cpp"
    source.write_text("#include <normkit/normkit.hpp>\n")
    result = subprocess.run(
        ["g++", "-std=c++17", "-ffast-math", *INCLUDE, "-c", str(source), "-o", str(folder / "o.o")],
        capture_output=True,
        text=True,
    )
    assert result.returncode != 0 and "without -ffast-math" in result.stderr


def hash_of(folder, compiler, *flags, runner=()):
    program = folder / "program"
    run(compiler, "-std=c++17", *flags, *INCLUDE, HERE / "program.cpp", "-o", program)
    return run(*runner, program).split()


@functools.cache
def plain_hash():
    with tempfile.TemporaryDirectory() as folder:
        return hash_of(Path(folder), "g++", "-O0")[0]


def check_same_bits_in_any_flags(folder, build):
    expected = plain_hash()
    variants = [("g++", "-O3"), ("g++", "-O2", "-DNORMKIT_FORCE_SCALAR")]
    if X86:
        variants += [("g++", "-O1", "-mavx2", "-mf16c")]
        if cpu_has("avx512bw"):
            variants += [("g++", "-O3", "-march=x86-64-v4", "-mf16c")]
    if shutil.which("clang++-19"):
        variants += [("clang++-19", "-O0"), ("clang++-19", "-O3")]
    for variant in variants:
        got, _ = hash_of(folder, *variant)
        assert got == expected, f"{variant}: {got}, not {expected}"


def check_own_arithmetic_still_fuses(folder, build):
    if not X86 or not cpu_has("fma"):
        raise Skip("no FMA here")
    expected = plain_hash()
    compilers = ["g++"] + (["clang++-19"] if shutil.which("clang++-19") else [])
    for compiler in compilers:
        got, own = hash_of(folder, compiler, "-O3", "-march=haswell")
        assert got == expected, f"{compiler}: {got}, not {expected}"
        assert own == "fused", f"{compiler}: the consumer's own a * b + c is {own}"


def check_aarch64(folder, build):
    compiler, emulator = need("aarch64-linux-gnu-g++"), need("qemu-aarch64")
    expected = plain_hash()
    for level in ("-O0", "-O3"):
        got, _ = hash_of(folder, compiler, level, "-static", runner=[emulator])
        assert got == expected, f"{level}: {got}, not {expected}"
    program = folder / "golden"
    run(compiler, "-std=c++17", "-O2", "-static", *INCLUDE, ROOT / "tests/cpp/golden_main.cpp", "-o", program)
    assert " 0 failed" in run(emulator, program)


def check_golden_in_haswell_flags(folder, build):
    if not X86 or not cpu_has("avx2"):
        raise Skip("no AVX2 here")
    for compiler in ["g++"] + (["clang++-19"] if shutil.which("clang++-19") else []):
        program = folder / "golden"
        flags = ["-std=c++17", "-O3", "-march=haswell"]
        run(compiler, *flags, *INCLUDE, ROOT / "tests/cpp/golden_main.cpp", "-o", program)
        assert " 0 failed" in run(program)


def library_objects(build):
    """The library's units, and which of them are compiled for an instruction set: (paths, {isa: path})."""
    objects = sorted((Path(build) / "cpp/src").glob("CMakeFiles/normkit*.dir/*.o"))
    kernels = {p.name.removeprefix("kernels_").split(".")[0]: p for p in objects if "kernels_" in p.name}
    assert kernels and len(objects) > len(kernels), f"no objects of the library in {build}"
    return objects, kernels


def libraries(folder, build):
    """The same library as an archive and as a shared object."""
    objects, _ = library_objects(build)
    archive, shared = folder / "libnormkit.a", folder / "libnormkit.so"
    run("ar", "rcs", archive, *objects)
    run("g++", "-shared", "-fopenmp", "-pthread", *objects, "-o", shared)
    return archive, shared


def symbols(path, *options):
    """(kind, mangled name) of every symbol."""
    lines = run("nm", *options, path).splitlines()
    return [(line[17], line[19:]) for line in lines if len(line) > 19]


def shared_code(*groups):
    """Functions and data of which the linker keeps one, where several of these groups of units have them."""
    weak = [
        {name for path in group for kind, name in symbols(path) if kind in "WVu"}
        - {"DW.ref.__gxx_personality_v0"}
        for group in groups
    ]
    common = {name for i, names in enumerate(weak) for others in weak[:i] for name in names & others}
    return sorted(common)


def check_mixed_instruction_sets(folder, build):
    if not X86 or not cpu_has("avx2"):
        raise Skip("needs x86 with AVX2")
    second = ["-march=x86-64-v4", "-mf16c", "-O2"] if cpu_has("avx512bw") else ["-O2"]
    units = [folder / "first.o", folder / "second.o"]
    for part, flags in (("first", ["-O0", "-mavx2", "-mf16c"]), ("second", second)):
        flags = ["-std=c++17", "-fopenmp", f"-DPART={part}", *flags, *INCLUDE]
        run("g++", *flags, "-c", HERE / "part.cpp", "-o", folder / f"{part}.o")
    run(
        "g++", "-std=c++17", "-DNORMKIT_COMPILED", *INCLUDE, "-c", HERE / "mixed.cpp", "-o", folder / "main.o"
    )
    objects, _ = library_objects(build)
    common = shared_code([units[0]], [units[1]], [folder / "main.o"], objects)
    assert not common, f"the linker may mix {common[:5]}"
    for lib in libraries(folder, build):
        for order in ([*units, lib], [*reversed(units), lib], [lib, *units, lib]):
            run("g++", folder / "main.o", *order, "-fopenmp", "-pthread", "-o", folder / "mixed")
            run(folder / "mixed", env={"LD_LIBRARY_PATH": str(folder)})


def check_newer_units_beside_older_ones(folder, build):
    """Of a unit for plain x86-64 and one for a newer processor, in either order, the first runs anywhere."""
    if not X86:
        raise Skip("needs x86")
    emulator = need("qemu-x86_64")
    for name, flags in (("plain", []), ("newer", ["-march=sandybridge"])):
        # Without optimization nothing is inlined but what must be.
        common = ["-std=c++17", "-O0", f"-DPART={name}", *flags, *INCLUDE]
        run("g++", *common, "-c", HERE / "part.cpp", "-o", folder / f"{name}.o")
        compiled = ["-DNORMKIT_COMPILED", "-DPREFIX=library_third_of_"]
        run("g++", *common, *compiled, "-c", HERE / "part.cpp", "-o", folder / f"{name}_caller.o")
    run("g++", "-std=c++17", "-O0", *INCLUDE, "-c", HERE / "older.cpp", "-o", folder / "main.o")
    plain, newer = ([folder / f"{n}.o", folder / f"{n}_caller.o"] for n in ("plain", "newer"))
    common = shared_code(plain, newer)
    assert not common, f"the linker may mix {common[:5]}"
    for lib in libraries(folder, build):
        for units in ([*plain, *newer], [*newer, *plain]):
            run("g++", *units, folder / "main.o", lib, "-fopenmp", "-pthread", "-o", folder / "older")
            run(emulator, "-cpu", "Nehalem", "-E", f"LD_LIBRARY_PATH={folder}", folder / "older")


def check_symbols_of_each_instruction_set(folder, build):
    objects, kernels = library_objects(build)
    for path in objects:
        isa = next((name for name, unit in kernels.items() if unit == path), None)
        exported, instances = [], 0
        for kind, symbol in symbols(path, "-C"):
            if kind in "WVu":
                # Names that no unit but the library's has.
                mine = f"normkit::library_{isa}_" if isa else "library_"
                personality = symbol == "DW.ref.__gxx_personality_v0"
                assert mine in symbol or (personality and not isa), f"{path.name}: {kind} {symbol}"
                instances += 1
            elif isa and kind == "U":
                assert symbol in ("memcpy", "memset", "memmove", "_GLOBAL_OFFSET_TABLE_"), f"{isa}: {symbol}"
            elif isa and kind.isupper():
                assert kind == "T", f"{isa}: {kind} {symbol}"
                exported.append(symbol)
        if isa:
            assert exported == [f"normkit_table_{isa}"], f"{isa} exports {exported}"
            text = run("size", path).splitlines()[1].split()[0]
            print(f"      {isa}: {instances} functions of its own, {text} bytes of code and constants")
    _, shared = libraries(folder, build)
    for kind, symbol in symbols(shared, "-D", "--defined-only", "-C"):
        assert kind == "T", f"the shared library exports {kind} {symbol}"


def check_argument_structs_are_aggregates(folder, build):
    """Structs are filled by position and by name, as before, and pass between units of any flags."""
    (folder / "aggregate.cpp").write_text(
        "#include <normkit/normkit.hpp>\n#include <type_traits>\n"
        "static_assert(std::is_aggregate_v<normkit::LayerNormArgs>);\n"
        "static_assert(std::is_aggregate_v<normkit::BatchNormArgs>);\n"
        "normkit::Status f(float* x, const normkit::RowsShape& shape) {\n"
        "  return normkit::layer_norm(shape, {x, x, {}, {}, 1e-6});\n}\n"
        "#if __cplusplus >= 202002L\n"
        "const normkit::RmsNormArgs args = {.eps = 1e-6};\n#endif\n"
    )
    for compiler in ["g++"] + (["clang++-19"] if shutil.which("clang++-19") else []):
        for standard in ("c++17", "c++20"):
            run(compiler, f"-std={standard}", *INCLUDE, "-fsyntax-only", folder / "aggregate.cpp")


def check_macros_of_other_headers(folder, build):
    for compiler in ["g++"] + (["clang++-19"] if shutil.which("clang++-19") else []):
        flags = ["-std=c++17", "-Wall", "-Wextra", "-Werror", "-fopenmp", "-fsyntax-only", *INCLUDE]
        run(compiler, *flags, HERE / "foreign_macros.cpp")
        run(compiler, *flags, "-DNORMKIT_COMPILED", HERE / "foreign_macros.cpp")


CHECKS = {
    name.removeprefix("check_").replace("_", " "): function
    for name, function in list(globals().items())
    if name.startswith("check_")
}


def result_of(check, build):
    """(state, detail, seconds)"""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        try:
            check(Path(folder), build)
            state, detail = "passed", ""
        except Skip as reason:
            state, detail = "skipped", str(reason)
        except AssertionError as error:
            state, detail = "failed", str(error)
    return state, detail, time.monotonic() - started


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", default=str(ROOT / "build"), help="a CMake build folder of normkit")
    parser.add_argument("--jobs", type=int, default=2, help="checks at the same time")
    parser.add_argument("--only", default="", help="checks whose name has this text")
    arguments = parser.parse_args()
    checks = {name: check for name, check in CHECKS.items() if arguments.only in name}
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    with ThreadPoolExecutor(arguments.jobs) as pool:
        results = pool.map(lambda check: result_of(check, Path(arguments.build).resolve()), checks.values())
        for name, (state, detail, seconds) in zip(checks, results, strict=True):
            counts[state] += 1
            print(f"{state:8} {name} ({seconds:.0f} s) {detail}", flush=True)
    print(", ".join(f"{count} {state}" for state, count in counts.items()))
    return 1 if counts["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
