"""PyTorch's and CuPy's arrays on a real CUDA device: the CPU's bits, on the stream that is current.

Collected only where this build has CUDA kernels and there is a device.
"""

import checks
import normkit as nk
import numpy as np
import pytest
from cuda_calls import calls
from reference.wide import DTYPES

pytestmark = pytest.mark.compares


class Torch:
    """How tests move arrays to a library and back."""

    def __init__(self):
        self.torch = pytest.importorskip("torch", reason="PyTorch is not installed")
        # A device is there (conftest.py), but PyTorch may be the CPU's; CuPy's half then still runs.
        if not self.torch.cuda.is_available():
            pytest.skip("this PyTorch has no CUDA")

    def there(self, array):
        if array.dtype.name == "bfloat16":
            return self.torch.tensor(array.view(np.int16)).view(self.torch.bfloat16).cuda()
        return self.torch.tensor(array).cuda()

    def back(self, array):
        assert array.is_cuda
        return checks.to_numpy(array.cpu())

    def stream(self):
        return self.torch.cuda.stream(self.torch.cuda.Stream())

    def busy(self):
        self.torch.cuda._sleep(20_000_000)


class Cupy:
    def __init__(self):
        self.cupy = pytest.importorskip("cupy", reason="CuPy is not installed")

    def there(self, array):
        if array.dtype.name == "bfloat16":
            # PyTorch's half covers the type.
            pytest.skip("not every CuPy has bfloat16")
        return self.cupy.asarray(array)

    def back(self, array):
        assert isinstance(array, self.cupy.ndarray)
        return array.get()

    def stream(self):
        return self.cupy.cuda.Stream(non_blocking=True)

    def busy(self):
        matrix = self.cupy.ones((4096, 4096), np.float32)
        for _ in range(20):
            matrix = matrix @ matrix


@pytest.fixture(params=(Torch, Cupy))
def library(request):
    return request.param()


def run(library, name, arguments, keywords):
    there = [library.there(a) if isinstance(a, np.ndarray) else a for a in arguments]
    named = {key: library.there(a) if isinstance(a, np.ndarray) else a for key, a in keywords.items()}
    results = getattr(nk, name)(*there, **named)
    return results if isinstance(results, tuple) else (results,)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_bits_of_the_cpu(library, dtype):
    for name, arguments, keywords in calls(dtype):
        expected = getattr(nk, name)(*arguments, **keywords)
        expected = expected if isinstance(expected, tuple) else (expected,)
        for k, (a, e) in enumerate(zip(run(library, name, arguments, keywords), expected, strict=True)):
            assert (a is None) == (e is None)
            if e is not None:
                checks.assert_same_bits(library.back(a), e, f"{name} result {k}")


def test_in_the_order_of_the_current_stream(library):
    """x is written late on a stream of its own; the call neither waits for it nor reads too early."""
    x = np.random.default_rng(0).standard_normal((512, 1024), np.float32)
    expected = nk.layer_norm(x, 1024)
    source = library.there(x)
    late = library.there(np.zeros_like(x))
    nk.layer_norm(late, 1024)
    with library.stream():
        library.busy()
        late[...] = source
        y = nk.layer_norm(late, 1024)
        checks.assert_same_bits(library.back(y), expected)
