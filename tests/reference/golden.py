"""Golden hashes: the bits that every machine, compiler, instruction set and version must produce.

python tests/reference/golden.py            prints them, as JSON, for the normkit that is installed
python tests/reference/golden.py --write    replaces golden.json; only when a promise is changed on purpose
"""

import json
import sys
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    __package__ = "reference"

from reference.operations import OPERATIONS
from reference.recipe import KINDS, fingerprint, values
from reference.wide import DTYPES

FILE = Path(__file__).with_name("golden.json")
SHAPES = ((1, 1), (5, 3), (4, 31), (7, 33), (9, 64), (70, 100), (3, 768), (2, 1025), (130, 17), (1, 5000))


def compute():
    """{"operation dtype kind rows x n": [hash of the forward, hash of the backward]}"""
    hashes = {}
    for op in OPERATIONS:
        for dtype in DTYPES:
            for kind in KINDS:
                for sets, n in SHAPES:
                    if n < op.smallest:
                        continue
                    case = op.make_case(sets, n)
                    x = case.from_sets(values((sets, n), dtype, kind, seed=1))
                    dy = case.from_sets(values((sets, n), dtype, "plain", seed=2))
                    weight = values(case.parameter_shape, dtype, "plain", seed=3)
                    bias = values(case.parameter_shape, dtype, "plain", seed=4)
                    forward = op.forward(x, case, eps=2.0**-17, return_stats=True)
                    affine = op.forward(x, case, weight=weight, bias=bias, eps=2.0**-17)
                    backward = op.backward(dy, x, case, weight=weight, bias=bias, eps=2.0**-17)
                    key = f"{op} {dtype} {kind} {sets}x{n}"
                    hashes[key] = [fingerprint(*forward, affine), fingerprint(*backward)]
    return hashes


def load():
    return json.loads(FILE.read_text())


if __name__ == "__main__":
    import normkit

    result = compute()
    if "--write" in sys.argv[1:]:
        FILE.write_text(json.dumps(result, indent=0) + "\n")
        print(f"{len(result)} entries written to {FILE.name}")
    else:
        json.dump({"isa": normkit.isa(), "hashes": result}, sys.stdout)
