from typing import Any, Literal, Protocol, TypeVar, overload

class _Array(Protocol):
    """A NumPy array, a PyTorch tensor, a JAX array, or any other array with DLPack."""

    @property
    def shape(self) -> Any: ...
    @property
    def dtype(self) -> Any: ...
    def __dlpack__(self, *args: Any, **kwargs: Any) -> Any: ...
    def __dlpack_device__(self) -> Any: ...

_X = TypeVar("_X", bound=_Array)
_Shape = int | list[int] | tuple[int, ...]
_Axis = int | list[int] | tuple[int, ...] | None
_Grads = tuple[_Array | None, _Array | None] | list[Any] | None

__version__: str
_compiler: str

def isa() -> str: ...
def _isa_available() -> str: ...
def get_num_threads() -> int: ...
def set_num_threads(n: int) -> None: ...
def _may_share_memory(a: _Array, b: _Array) -> bool: ...
@overload
def layer_norm(
    x: _X,
    normalized_shape: _Shape,
    weight: _Array | None = None,
    bias: _Array | None = None,
    eps: float = 1e-05,
    *,
    axis: _Axis = None,
    return_stats: Literal[False] = False,
    out: _X | None = None,
) -> _X: ...
@overload
def layer_norm(
    x: _X,
    normalized_shape: _Shape,
    weight: _Array | None = None,
    bias: _Array | None = None,
    eps: float = 1e-05,
    *,
    axis: _Axis = None,
    return_stats: Literal[True],
    out: _X | None = None,
) -> tuple[_X, Any, Any]: ...
@overload
def layer_norm(
    x: _X,
    normalized_shape: _Shape,
    weight: _Array | None = None,
    bias: _Array | None = None,
    eps: float = 1e-05,
    *,
    axis: _Axis = None,
    return_stats: bool,
    out: _X | None = None,
) -> _X | tuple[_X, Any, Any]: ...
def layer_norm_backward(
    dy: _Array,
    x: _X,
    normalized_shape: _Shape,
    weight: _Array | None = None,
    bias: _Array | None = None,
    eps: float = 1e-05,
    *,
    axis: _Axis = None,
    mean: _Array | None = None,
    rstd: _Array | None = None,
    dx_out: _X | None = None,
    grads_out: _Grads = None,
    accumulate: bool = False,
) -> tuple[_X, Any, Any]: ...
@overload
def rms_norm(
    x: _X,
    normalized_shape: _Shape,
    weight: _Array | None = None,
    eps: float | None = None,
    *,
    bias: _Array | None = None,
    weight_offset: float = 0.0,
    axis: _Axis = None,
    return_stats: Literal[False] = False,
    out: _X | None = None,
) -> _X: ...
@overload
def rms_norm(
    x: _X,
    normalized_shape: _Shape,
    weight: _Array | None = None,
    eps: float | None = None,
    *,
    bias: _Array | None = None,
    weight_offset: float = 0.0,
    axis: _Axis = None,
    return_stats: Literal[True],
    out: _X | None = None,
) -> tuple[_X, Any]: ...
@overload
def rms_norm(
    x: _X,
    normalized_shape: _Shape,
    weight: _Array | None = None,
    eps: float | None = None,
    *,
    bias: _Array | None = None,
    weight_offset: float = 0.0,
    axis: _Axis = None,
    return_stats: bool,
    out: _X | None = None,
) -> _X | tuple[_X, Any]: ...
def rms_norm_backward(
    dy: _Array,
    x: _X,
    normalized_shape: _Shape,
    weight: _Array | None = None,
    eps: float | None = None,
    *,
    bias: _Array | None = None,
    weight_offset: float = 0.0,
    axis: _Axis = None,
    rstd: _Array | None = None,
    dx_out: _X | None = None,
    grads_out: _Grads = None,
    accumulate: bool = False,
) -> tuple[_X, Any, Any]: ...
def local_response_norm(
    x: _X,
    size: int,
    alpha: float = 0.0001,
    beta: float = 0.75,
    k: float = 1.0,
    *,
    channel_axis: int = 1,
    out: _X | None = None,
) -> _X: ...
def local_response_norm_backward(
    dy: _Array,
    x: _X,
    size: int,
    alpha: float = 0.0001,
    beta: float = 0.75,
    k: float = 1.0,
    *,
    channel_axis: int = 1,
    dx_out: _X | None = None,
) -> tuple[_X]: ...
def dynamic_tanh(
    x: _X,
    alpha: float | _Array,
    weight: _Array | None = None,
    bias: _Array | None = None,
    *,
    axis: int = -1,
    out: _X | None = None,
) -> _X: ...
def dynamic_tanh_backward(
    dy: _Array,
    x: _X,
    alpha: float | _Array,
    weight: _Array | None = None,
    bias: _Array | None = None,
    *,
    axis: int = -1,
    dx_out: _X | None = None,
    grads_out: tuple[_Array | None, _Array | None, _Array | None] | list[Any] | None = None,
    accumulate: bool = False,
) -> tuple[_X, Any, Any, Any]: ...
