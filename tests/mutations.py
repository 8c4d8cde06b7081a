#!/usr/bin/env python3
"""Do the tests notice a broken kernel? Breaks one on purpose, runs the C++ tests, expects red.

    python3 tests/mutations.py                 every mutation (about half a minute each)
    python3 tests/mutations.py --only NAME     one of them; --list names them
    python3 tests/mutations.py --sample 2 --seed 7 --passed
                                               so many by lot; the tests are known to pass without any

A mutation is a piece of text that stands exactly once in a header, and what replaces it. The tests are the
accuracy, sameness and memory tests (for some kernels their own), header-only; golden hashes, which any
change of a bit turns red, are left out. Prints a table and 'N passed, N failed', a mutation that the tests
catch counting as passed.
"""

import argparse
import random
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HEADERS = Path("cpp/include/normkit/detail")
SOURCES = ["accuracy_test.cpp", "sameness_test.cpp", "memory_test.cpp"]
OWN_SOURCES = {
    "activation.hpp": ["fused_test.cpp"],
    "add_block.hpp": ["fused_test.cpp"],
    "add_norm.hpp": ["fused_test.cpp"],
    "window.hpp": ["window_test.cpp"],
    "window_plan.hpp": ["window_test.cpp"],
    "intrinsics.hpp": ["convert_test.cpp"],
    "columns.hpp": ["sets_test.cpp", "fused_test.cpp"],
    "columns_apply.hpp": ["sets_test.cpp", "fused_test.cpp"],
    "columns_backward.hpp": ["sets_test.cpp"],
    "sets_plan.hpp": ["sets_test.cpp"],
    "switchable.hpp": ["sets_test.cpp"],
    "merge.hpp": [*SOURCES, "scratch_test.cpp"],
    "strips.hpp": ["scratch_test.cpp"],
    "../cuda/lanes.cuh": ["cuda_test.cpp"],
    "../cuda/warp.cuh": ["cuda_test.cpp"],
    "../cuda/packed.cuh": ["cuda_test.cpp"],
    "../cuda/tiles.cuh": ["cuda_test.cpp"],
    "../cuda/backward.cuh": ["cuda_test.cpp"],
    "../cuda/slabs.cuh": ["cuda_test.cpp"],
}
FLAGS = ["-std=c++17", "-O1", "-fopenmp", "-pthread", "-w"]


@dataclass(frozen=True)
class Mutation:
    name: str
    file: str
    old: str
    new: str


MUTATIONS = [
    Mutation(
        "variance as E[x^2] - E[x]^2",
        "reduce.hpp",
        "    const double squares = block.template squares<true>(k);",
        "    const double squares = block.template squares<false>(C(0)) - n * k * (2 * mean - k);",
    ),
    Mutation(
        "tail of a block's sum dropped",
        "reduce.hpp",
        "    sums.add(tail.low, tail.high);\n",
        "",
    ),
    Mutation(
        "masked lanes add k^2",
        "reduce.hpp",
        "a.first = keep_below(a.first - shift, 0, n - i, kStep);",
        "a.first = a.first - shift;",
    ),
    Mutation(
        "sum of a block in float",
        "reduce.hpp",
        "sums.add(widen16(x + i), widen16(x + i + kVecLanes));",
        "sums.add(widen(load16(x + i) + load16(x + i + kVecLanes)), Vec16<double>::zero());",
    ),
    Mutation(
        "the mean of a chain that overflowed",
        "reduce.hpp",
        "const double wide_mean = block.template wide_sum<1>(0.0) / n;",
        "const double wide_mean = mean;",
    ),
    Mutation(
        "lanes of even and odd index folded as halves",
        "reduce.hpp",
        "    return {kByParity ? fold(low) + fold(high) : fold(low, high), 0.0};",
        "    return {fold(low, high), 0.0};",
    ),
    Mutation(
        "row offset in 32 bits",
        "geometry.hpp",
        "    return reinterpret_cast<T*>(data) + outer.offset(r);",
        "    return reinterpret_cast<T*>(data) + static_cast<int32_t>(outer.offset(r));",
    ),
    Mutation(
        "eps outside the root",
        "statistics.hpp",
        "square_root(var + p.eps * kept * kept)",
        "(square_root(var) + p.eps * kept * kept)",
    ),
    Mutation(
        "biased by the batch",
        "statistics.hpp",
        "  const double raw = squares / n, ",
        "  const double raw = squares / (n * (1 + 1e-7 * p.rows)), ",
    ),
    Mutation(
        "low part of the mean dropped",
        "statistics.hpp",
        "static_cast<float>(s.mean - static_cast<double>(hi))",
        "0.0f",
    ),
    Mutation(
        "strides forgotten in the second pass",
        "rows.hpp",
        "const T* x = block_of(p.x, x_row[r], block.begin, length, x_buffer);",
        "const T* x = x_row[r] + block.begin;",
    ),
    Mutation(
        "parameter gradients of a tile dropped",
        "rows_backward.hpp",
        "  if (sums != nullptr) add_columns(p, tile, 0, p.n, buffers, sums->dweight(), sums->dbias());\n",
        "",
    ),
    Mutation(
        "mean of g forgotten",
        "rows_backward.hpp",
        "p.centred() ? sums.first / row.count : 0.0;",
        "0.0;",
    ),
    Mutation(
        "missing rows of a tile counted as ones",
        "grad_sums.hpp",
        "dweight[v] = dbias[v] = Vec::zero();",
        "dweight[v] = dbias[v] = Vec::splat(1);",
    ),
    Mutation(
        "one element written beyond the tail",
        "apply.hpp",
        "    store_tail(y + i, n - i,",
        "    store_tail(y + i, n - i + 1,",
    ),
    Mutation(
        "blocks merge in another order with the tree",
        "merge.hpp",
        "    int rank = 0;\n"
        "    for (; (filled_ >> rank) & 1u; ++rank) partial = merge(level_[rank], partial);\n",
        "    int rank = 0;\n    for (; (filled_ >> rank) & 1u; ++rank) partial = level_[rank];\n",
    ),
    Mutation(
        "round half up",
        "intrinsics.hpp",
        "    bits[i] = bits[i] + 0x7FFFu + ((bits[i] >> 16) & 1u);",
        "    bits[i] = bits[i] + 0x8000u;",
    ),
    Mutation(
        "squares of a column in one long chain",
        "columns.hpp",
        "add_to_lanes(n, width, kChain, buffers.sums, SquareChain<true, T>",
        "add_to_lanes(n, width, n, buffers.sums, SquareChain<true, T>",
    ),
    Mutation(
        "columns out of range applied in float",
        "columns_apply.hpp",
        "is_wide[c] = !in_float_range(wide_mean[c], wide_rstd[c]);",
        "is_wide[c] = false;",
    ),
    Mutation(
        "gradient sums of a column mixed up",
        "columns_backward.hpp",
        "    product.store(lane + kPanelLanes);",
        "    (product + sum).store(lane + kPanelLanes);",
    ),
    Mutation(
        "strides of an operand forgotten",
        "sets_plan.hpp",
        "of_axis[a] = given != nullptr ? given[--k] : step;",
        "of_axis[a] = step;",
    ),
    Mutation(
        "mixture about another mean",
        "switchable.hpp",
        " + m.mean_offset(0) * sums.first;",
        " - m.mean_offset(0) * sums.first;",
    ),
    Mutation(
        "last group of samples: levels in the wrong order",
        "merge.hpp",
        "    for (int k = rank - 1; k >= 0; --k)\n      if ((samples >> k) & 1) tree",
        "    for (int k = 0; k < rank; ++k)\n      if ((samples >> k) & 1) tree",
    ),
    Mutation(
        "strips: chain of the panel before kept",
        "strips.hpp",
        "      memset(chain, 0, sizeof(chain));\n",
        "",
    ),
    Mutation(
        "CUDA: a chain is added at each of its steps",
        "../cuda/lanes.cuh",
        "if (s + 1 == whole) total.add(static_cast<double>(chain));",
        "total.add(static_cast<double>(chain));",
    ),
    Mutation(
        "CUDA: a team's last partial not merged",
        "../cuda/warp.cuh",
        "lane() + gap < count) partial",
        "lane() + gap < count - 1) partial",
    ),
    Mutation(
        "CUDA: panels beyond the first 512 start anew",
        "../cuda/tiles.cuh",
        "      tree.push(merge_lanes(own,",
        "      tree = {}, tree.push(merge_lanes(own,",
    ),
    Mutation(
        "CUDA: a tile forgets the chain of its panel",
        "../cuda/tiles.cuh",
        "before[c] = __ldcg(to + c * step)",
        "before[c] = C(0)",
    ),
    Mutation(
        "CUDA: terms of a tile summed before all are there",
        "../cuda/tiles.cuh",
        "        __syncthreads();\n        sums.add(",
        "        sums.add(",
    ),
    Mutation(
        "CUDA: packed rows take each other's sums",
        "../cuda/packed.cuh",
        "return (upper ? second : first) +",
        "return (upper ? first : second) +",
    ),
    Mutation(
        "CUDA: blocks of a set in shared memory merged in reverse",
        "../cuda/slabs.cuh",
        "return slab.partials[i]; }",
        "return slab.partials[count - 1 - i]; }",
    ),
    Mutation(
        "CUDA: a set in shared memory forgets that its gradients leave float",
        "../cuda/slabs.cuh",
        "slab.partials[i] = {sums, overflows ? 1.0 : 0.0};",
        "slab.partials[i] = {sums, 0.0};",
    ),
    Mutation(
        "CUDA: channels of a set added in reverse",
        "../cuda/backward.cuh",
        "total = merge(total, from_lane(own, c));",
        "total = merge(total, from_lane(own, n - 1 - c));",
    ),
    Mutation(
        "window shifted by one for even sizes",
        "window_plan.hpp",
        "p.before = size / 2 < channels ? size / 2 : channels - 1;",
        "p.before = (size - 1) / 2 < channels ? (size - 1) / 2 : channels - 1;",
    ),
    Mutation(
        "divisor clipped with the window",
        "window_plan.hpp",
        "p.scale = args.alpha / static_cast<double>(args.size);",
        "p.scale = args.alpha / static_cast<double>(args.size < rows.n ? args.size : rows.n);",
    ),
    Mutation(
        "windows beyond the last channel count",
        "window.hpp",
        "if (real < n) clear(",
        "if (false) clear(",
    ),
    Mutation(
        "window summed backwards in one layout",
        "window.hpp",
        "load(values + w * lanes)",
        "load(values + (lanes == 1 ? window - 1 - w : w) * lanes)",
    ),
    Mutation(
        "tiles left out where tasks share scratch",
        "window.hpp",
        "tile += p.tasks)",
        "tile += p.tasks + 1)",
    ),
    Mutation(
        "e^v without its power of two where v is negative",
        "activation.hpp",
        "  return times_power<kShort>(quotient, negative ? e.k : Part{});",
        "  return quotient;",
    ),
    Mutation(
        "Phi's tail for both signs of x",
        "activation.hpp",
        "  const Part result = negative ? scaled : x * (one - scaled);",
        "  const Part result = negative ? scaled : x * scaled;",
    ),
    Mutation(
        "columns without their activation",
        "columns_apply.hpp",
        "    if (activation != Activation::kNone) activate_runs(",
        "    if (activation == Activation::kRelu) activate_runs(",
    ),
    Mutation(
        "the tail of a sum takes x twice",
        "add_block.hpp",
        "    const Vec low = canonical((a.low + b.low) + c.low);",
        "    const Vec low = canonical((a.low + a.low) + c.low);",
    ),
    Mutation(
        "missing lanes of a sum's total count the bias",
        "add_block.hpp",
        "total.add(keep_below(low, 0, n - i), keep_below(high, kVecLanes, n - i))",
        "total.add(low, high)",
    ),
    Mutation(
        "a tile's sum stops one row early",
        "add_norm.hpp",
        "    for (int r = 0; r < count; ++r) {",
        "    for (int r = 0; r + 1 < count; ++r) {",
    ),
]


def run(command, **options):
    return subprocess.run(command, capture_output=True, text=True, errors="replace", **options)


def mutated_tree(folder, mutation):
    """A copy of what the tests compile, broken."""
    for part in ("cpp/include", "cpp/src", "tests/cpp", "tests/reference"):
        shutil.copytree(ROOT / part, folder / part)
    if mutation is not None:
        path = folder / HEADERS / mutation.file
        path.write_text(path.read_text().replace(mutation.old, mutation.new))


def sources_of(mutation):
    return OWN_SOURCES.get(mutation.file, SOURCES)


def one_unit(names):
    """The kernels, which every test file would compile again, once: as tests/cpp/CMakeLists.txt does it."""
    if len(names) == 1:
        return f'#include "{names[0]}"\n'
    text = "".join(
        f'#include "{h}"\n' for h in ("gtest/gtest.h", "data.hpp", "operations.hpp", "problem.hpp")
    )
    for name in names:
        scope = name.removesuffix(".cpp") + "s"
        text += f"namespace {scope} {{ using namespace tests; }}\n#define tests {scope}\n"
        text += f'#include "{name}"\n#undef tests\n'
    return text


def outcome(mutation, names):
    """('caught', which test), ('survived', '') or ('error', why), of the tests in these sources."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        mutated_tree(folder, mutation)
        program = folder / "tests/mutant"
        unit = folder / "tests/cpp/mutant.cpp"
        unit.write_text(one_unit(names))
        include = ["-I", str(folder / "cpp/include")]
        built = run(["g++", *FLAGS, *include, str(unit), "-lgtest", "-lgtest_main", "-o", str(program)])
        if built.returncode != 0:
            return "error", "does not compile: " + built.stderr[-300:]
        result = run([str(program), "--gtest_fail_fast", "--gtest_brief=1"], timeout=600)
        if result.returncode == 0:
            return "survived", ""
        failed = [line for line in result.stdout.splitlines() if "FAILED" in line]
        return "caught", failed[0].split("]")[1].split(",")[0].strip() if failed else "crash"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", help="the mutation of this name")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--sample", type=int, help="so many of them")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--passed", action="store_true", help="the tests pass without a mutation; not tried again"
    )
    arguments = parser.parse_args()
    chosen = MUTATIONS
    if arguments.list:
        print("\n".join(m.name for m in MUTATIONS))
        return 0
    if arguments.only:
        chosen = [m for m in MUTATIONS if m.name == arguments.only]
        if not chosen:
            parser.error(f"no such mutation: {arguments.only}; see --list")
    elif arguments.sample:
        chosen = random.Random(arguments.seed).sample(MUTATIONS, arguments.sample)

    for mutation in MUTATIONS:  # also those that are not chosen: no text may have moved away unnoticed
        count = (ROOT / HEADERS / mutation.file).read_text().count(mutation.old)
        if count != 1:
            print(f"{mutation.name}: its text stands {count} times in {mutation.file}, not once")
            return 1
    if not arguments.passed:
        names = dict.fromkeys(name for m in chosen for name in sources_of(m))
        state, detail = outcome(None, list(names))
        if state != "survived":
            print(f"the tests fail without any mutation: {detail}")
            return 1
    passed = 0
    with ThreadPoolExecutor(2) as pool:
        for mutation, (state, detail) in zip(
            chosen, pool.map(outcome, chosen, map(sources_of, chosen)), strict=True
        ):
            passed += state == "caught"
            print(f"{state:9} {mutation.name:45} {detail}", flush=True)
    print(f"{passed} passed, {len(chosen) - passed} failed")
    return 0 if passed == len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main())
