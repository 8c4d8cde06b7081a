"""Arrays on CUDA devices without one: NumPy memory that says it lies on a device.

Together with an extension built with NORMKIT_CUDA_ON_HOST, whose kernels run on the host, they take every
step that real ones take: devices, streams, DLPack, allocation by their own library. The libraries are
stand-ins for CuPy, PyTorch and JAX, put where those would be imported from.
"""

import contextlib
import ctypes
import sys
import types

import ml_dtypes
import normkit
import numpy as np

CUDA = 2  # DLPack's number of the device type
GUARD = 64  # bytes behind every allocation that nothing may write
_LIBRARY = ctypes.CDLL(normkit._ext.__file__)


def symbol(name, kind=ctypes.c_int):
    """A variable of tests/cpp/cuda_backend_on_host.cpp."""
    return kind.in_dll(_LIBRARY, f"normkit_test_{name}")


class _Capsules:
    """NumPy's capsules, changed to lie on a device."""

    get_pointer = ctypes.pythonapi.PyCapsule_GetPointer
    get_pointer.restype = ctypes.c_void_p
    get_pointer.argtypes = (ctypes.py_object, ctypes.c_char_p)

    @classmethod
    def of(cls, array, device, keywords):
        bfloat16 = array.dtype == ml_dtypes.bfloat16
        capsule = (array.view(np.uint16) if bfloat16 else array).__dlpack__(**keywords)
        # Its name, and where the DLTensor lies in what it points to.
        name, at = (b"dltensor_versioned", 32) if "max_version" in keywords else (b"dltensor", 0)
        tensor = cls.get_pointer(capsule, name) + at
        ctypes.c_int32.from_address(tensor + 8).value, ctypes.c_int32.from_address(tensor + 12).value = device
        if bfloat16:
            ctypes.c_uint8.from_address(tensor + 20).value = 4
        return capsule


class DeviceArray:
    """A NumPy array on a device; `streams` are those that it was asked for with."""

    versioned = True

    def __init__(self, array, device=0, kind=CUDA):
        self.array, self.id, self.kind, self.streams = array, device, kind, []
        self.shape, self.dtype = array.shape, array.dtype

    def __dlpack_device__(self):
        return (self.kind, self.id)

    def __dlpack__(self, *, stream, **keywords):
        if keywords and not self.versioned:
            raise TypeError("__dlpack__() got an unexpected keyword argument 'max_version'")
        assert type(stream) is int and stream != 0, "DLPack: 0 is no stream of CUDA's"
        self.streams.append(stream)
        return _Capsules.of(self.array, (self.kind, self.id), keywords)

    def __array__(self, dtype=None, copy=None):
        raise AssertionError("a device's memory was read on the host")


class Library(types.ModuleType):
    """What both libraries are: a current device, a current stream on each, and memory."""

    def __init__(self, name, array_type):
        super().__init__(name)
        self.current, self.streams, self.lent = 0, {0: 0, 1: 0x2000}, []
        self.array_type = array_type
        for dtype in ("float32", "float64", "float16"):
            setattr(self, dtype, np.dtype(dtype))

    @contextlib.contextmanager
    def on(self, device):
        before, self.current = self.current, device
        yield
        self.current = before

    def allocate(self, shape, strides, dtype, array_type=None):
        """Memory full of garbage, with a guard behind it."""
        dtype = np.dtype(dtype)
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        memory = np.full(size + GUARD, 0xA5, np.uint8)
        array = np.ndarray(shape, dtype, memory[:size], strides=strides)
        self.lent.append((array, memory, self.current))
        return (array_type or self.array_type)(array, self.current)

    def empty_like(self, x):
        return self.allocate(x.shape, np.empty_like(x.array).strides, x.dtype, type(x))

    def full(self, shape, value, **keywords):
        made = self.empty(shape, **keywords)
        made.array[...] = value
        return made

    def guards_hold(self):
        return all((memory[-GUARD:] == 0xA5).all() for _, memory, _ in self.lent)


class CupyArray(DeviceArray):
    pass


class OldTensor(DeviceArray):
    """A tensor of a PyTorch that has no exchange table."""

    requires_grad = False
    version = 0

    def is_neg(self):
        return False

    def detach(self):
        return self


class _DLTensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device", ctypes.c_int32 * 2),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


@ctypes.CFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.POINTER(_DLTensor))
def _borrow(tensor, out):
    """The entry of PyTorch's exchange table that hands memory out, with no regard to streams."""
    array, sizes = tensor.array, ctypes.c_int64 * tensor.array.ndim
    tensor.borrowed = sizes(*array.shape), sizes(*(stride // array.itemsize for stride in array.strides))
    code = 4 if array.dtype == ml_dtypes.bfloat16 else 2
    out[0] = _DLTensor(
        array.ctypes.data,
        (tensor.kind, tensor.id),
        array.ndim,
        code,
        8 * array.itemsize,
        1,
        *tensor.borrowed,
        0,
    )
    return 0


# Version 1.1, no earlier table, three functions that normkit asks for on the host alone, and no streams.
_TABLE = (ctypes.c_void_p * 7)(
    1 | 1 << 32, None, None, None, None, ctypes.cast(_borrow, ctypes.c_void_p), None
)
_TABLE_NAME = b"dlpack_exchange_api"  # which a capsule only points to
_new_capsule = ctypes.pythonapi.PyCapsule_New
_new_capsule.restype = ctypes.py_object
_new_capsule.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)


class Tensor(OldTensor):
    __dlpack_c_exchange_api__ = _new_capsule(ctypes.addressof(_TABLE), _TABLE_NAME, None)


class Cupy(Library):
    def __init__(self):
        super().__init__("cupy", CupyArray)
        self.ndarray = CupyArray
        self.cuda = types.SimpleNamespace(
            Device=self.on,
            get_current_stream=lambda: types.SimpleNamespace(ptr=self.streams[self.current]),
        )

    def empty(self, shape, dtype):
        return self.allocate(shape, None, dtype)


class Torch(Library):
    def __init__(self):
        super().__init__("torch", Tensor)
        self.Tensor, self.bfloat16 = OldTensor, np.dtype(ml_dtypes.bfloat16)
        self.is_grad_enabled = lambda: True
        self.cuda = types.SimpleNamespace(
            device=self.on,
            current_stream=lambda: types.SimpleNamespace(cuda_stream=self.streams[self.current]),
        )

    def empty(self, shape, *, dtype, device):
        assert device == "cuda" and isinstance(dtype, np.dtype)
        return self.allocate(shape, None, dtype)


class Standard(Library):
    """A library of the array API standard, which knows no streams."""

    def __init__(self):
        super().__init__("standard", StandardArray)

    def empty(self, shape, *, dtype, device):
        with self.on(int(device.removeprefix("device "))):
            return self.allocate(shape, None, dtype)

    def empty_like(self, x):
        with self.on(x.id):
            return super().empty_like(x)


class StandardArray(DeviceArray):
    @property
    def device(self):
        return f"device {self.id}"

    def __array_namespace__(self):
        return standard


class JaxArray(StandardArray):
    pass


def increment_version(tensor):
    tensor.version += 1


cupy, torch, standard = Cupy(), Torch(), Standard()
sys.modules |= {
    "cupy": cupy,
    "torch": torch,
    "torch.autograd.graph": types.SimpleNamespace(increment_version=increment_version),
    "jax": types.SimpleNamespace(Array=JaxArray),
}
