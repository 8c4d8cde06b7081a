"""Forward and backward of one operation and dtype with every array against a page that may not be touched.

    guard_pages.py OPERATION DTYPE [overrun]

`overrun` hands out an input one element longer than its memory: the process must die.
"""

import ctypes
import mmap
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from reference.operations import OPERATIONS
from reference.recipe import values

PAGE = mmap.PAGESIZE
NONE, READ, WRITE = 0, mmap.PROT_READ, mmap.PROT_WRITE
libc = ctypes.CDLL(None, use_errno=True)
libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


class Guarded:
    """Pages for one array between two forbidden ones."""

    def __init__(self, size):
        self.inner = (size + PAGE - 1) // PAGE * PAGE
        self.map = mmap.mmap(-1, self.inner + 2 * PAGE)
        self.start = ctypes.addressof(ctypes.c_char.from_buffer(self.map)) + PAGE
        self.protect(READ | WRITE)
        for address in (self.start - PAGE, self.start + self.inner):
            assert libc.mprotect(address, PAGE, NONE) == 0

    def protect(self, how):
        assert libc.mprotect(self.start, self.inner, how) == 0

    def array(self, shape, dtype, at_end, extra=0):
        size = int(np.prod(shape)) * dtype.itemsize
        start = self.start + (self.inner - size if at_end else 0) + extra * dtype.itemsize
        raw = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(start))
        return raw.view(dtype).reshape(shape)


def main(name, dtype_name, overrun=False):
    op = next(op for op in OPERATIONS if op.name == name)
    rows = 3
    pool = [Guarded(rows * 200 * 8) for _ in range(9)]
    for n in range(op.smallest, 201):
        case = op.make_case(rows, n)
        sources = [
            case.from_sets(values((rows, n), dtype_name, k, s)) for k, s in (("spread", 1), ("plain", 2))
        ]
        sources += [values(case.parameter_shape, dtype_name, "plain", s) for s in (3, 4)]
        keywords = {"weight": sources[2], "bias": sources[3]}
        expected = [
            op.forward(sources[0], case, **keywords),
            *op.backward(sources[1], sources[0], case, **keywords),
        ]
        for at_end in (True, False):
            for memory in pool:
                memory.protect(READ | WRITE)
            inputs = []
            for memory, source in zip(pool, sources, strict=False):
                array = memory.array(source.shape, source.dtype, at_end)
                array[...] = source
                memory.protect(READ)
                inputs.append(
                    memory.array(source.shape, source.dtype, at_end, extra=1 if overrun and at_end else 0)
                )
            x, dy, weight, bias = inputs
            outputs = [m.array(e.shape, e.dtype, at_end) for m, e in zip(pool[4:], expected, strict=False)]
            for output in outputs:
                output.view(np.uint8)[...] = 0x55
            op.forward(x, case, weight=weight, bias=bias, out=outputs[0])
            op.backward(
                dy, x, case, weight=weight, bias=bias, dx_out=outputs[1], grads_out=(outputs[2], outputs[3])
            )
            for k, (output, wanted) in enumerate(zip(outputs, expected, strict=True)):
                assert output.tobytes() == wanted.tobytes(), f"n={n}, result {k}, at_end={at_end}"
            work = pool[8].array(sources[0].shape, sources[0].dtype, at_end)  # in place
            work[...] = sources[0]
            op.forward(work, case, weight=weight, bias=bias, out=work)
            assert work.tobytes() == expected[0].tobytes(), f"n={n} in place"
            back = tuple(slice(None, None, -1) for _ in x.shape)
            reversed_x, reversed_dy = (a[back] for a in (x, dy))  # backwards to the guard
            op.backward(reversed_dy, reversed_x, case, weight=weight[::-1], bias=bias[::-1])
            op.forward(reversed_x, case, weight=weight[::-1], bias=bias[::-1], out=outputs[0])
            assert op.forward(x[..., ::-1], case).shape == x.shape
    print("ok")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], overrun="overrun" in sys.argv[3:])
