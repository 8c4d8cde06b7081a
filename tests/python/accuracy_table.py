"""The worst error of every operation beside PyTorch's on the same data: the table in the README.

    python tests/python/accuracy_table.py [--dtype float32] [--rows 200]

Errors are in ULP of the output type where the exact value exceeds 0.1; "all" means that no digit is right.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / "python")]

from checks import to_numpy  # noqa: E402
from reference.families import families_of, make  # noqa: E402
from reference.operations import OPERATIONS  # noqa: E402
from reference.wide import DTYPES, FORMAT, ulp, wide  # noqa: E402

SIZES = (5, 64, 768, 4097)


def worst_ulp(y, exact, dtype):
    """The largest error in ULP where |exact| > 0.1; infinite where NaN or infinity came out."""
    large = np.abs(exact) > 0.1
    if not large.any():
        return None
    with np.errstate(invalid="ignore"):
        error = np.abs(wide(y) - exact)[large] / ulp(exact, dtype)[large]
    return float(np.where(np.isfinite(error), error, np.inf).max())


def text(error, dtype):
    if error is None:
        return "-"
    if error >= 2.0 ** (FORMAT[dtype][0] - 1):
        return "all"
    return f"{error:.2f}" if error < 1000 else f"{error:.1e}"


def to_torch(array):
    import torch

    if array.dtype.name == "bfloat16":
        return torch.tensor(array.view(np.int16)).view(torch.bfloat16)
    return torch.tensor(array)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dtype", choices=DTYPES, action="append")
    parser.add_argument("--rows", type=int, default=50, help="rows of each family and size")
    options = parser.parse_args()
    try:
        import torch
    except ImportError:
        torch = None
    print(
        "| operation | type | inputs | eps | normkit | "
        + (f"PyTorch {torch.__version__} |" if torch else "-- |")
    )
    print("|---|---|---|---|---|---|")
    for op in OPERATIONS:
        for dtype in options.dtype or DTYPES:
            for family in families_of(dtype):
                for eps in (1e-5, 0.0):
                    ours, theirs = [], []
                    for n in SIZES:
                        case = op.make_case(options.rows, n)
                        x = case.from_sets(make(family, options.rows, n, dtype, seed=5))
                        exact = op.reference(x, case, eps).xhat
                        ours.append(worst_ulp(op.forward(x, case, eps=eps), exact, dtype))
                        if torch:
                            y = op.torch_forward(to_torch(x), case, eps=eps)
                            theirs.append(worst_ulp(to_numpy(y), exact, dtype))
                    cells = [
                        text(max((e for e in errors if e is not None), default=None), dtype)
                        for errors in (ours, theirs)
                    ]
                    print(f"| {op} | {dtype} | {family} | {eps:g} | {cells[0]} | {cells[1]} |", flush=True)


if __name__ == "__main__":
    main()
