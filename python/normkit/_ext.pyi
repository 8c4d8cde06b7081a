from collections.abc import Sequence
from typing import Any, Literal, Protocol, TypeVar, overload

from .moments import GradSums

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
_Axis = int | Sequence[int] | None
_Activation = Literal["relu", "silu", "gelu", "gelu_tanh"] | None
_Grads = tuple[_Array | None, _Array | None] | list[Any] | None

__version__: str
_compiler: str

def isa() -> str: ...
def _isa_available() -> str: ...
def get_num_threads() -> int: ...
def set_num_threads(n: int) -> None: ...
def get_output_pool() -> int: ...
def set_output_pool(mib: int) -> None: ...
def _output_pool_kept() -> int: ...
def _stream_bytes() -> int: ...
def _usable_processors() -> int: ...
def _processor_quota(root: str = ...) -> int: ...
def _cuda_architectures() -> str | None: ...
def _cuda_device_count() -> int: ...
def _cuda_device_properties(device: int) -> tuple[str, tuple[int, int], int, int, int] | None: ...
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
    activation: _Activation = None,
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
    activation: _Activation = None,
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
    activation: _Activation = None,
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
    activation: _Activation = None,
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
    activation: _Activation = None,
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
    activation: _Activation = None,
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
@overload
def add_layer_norm(
    x: _X,
    residual: _Array,
    normalized_shape: _Shape,
    weight: _Array | None = None,
    bias: _Array | None = None,
    eps: float = 1e-05,
    *,
    residual_bias: _Array | None = None,
    sum_precision: Literal["x", "f32"] = "x",
    axis: _Axis = None,
    return_stats: Literal[False] = False,
    out: tuple[_X | None, _X | None] | None = None,
    activation: _Activation = None,
) -> tuple[_X, _X]: ...
@overload
def add_layer_norm(
    x: _X,
    residual: _Array,
    normalized_shape: _Shape,
    weight: _Array | None = None,
    bias: _Array | None = None,
    eps: float = 1e-05,
    *,
    residual_bias: _Array | None = None,
    sum_precision: Literal["x", "f32"] = "x",
    axis: _Axis = None,
    return_stats: Literal[True],
    out: tuple[_X | None, _X | None] | None = None,
    activation: _Activation = None,
) -> tuple[_X, _X, Any, Any]: ...
@overload
def add_layer_norm(
    x: _X,
    residual: _Array,
    normalized_shape: _Shape,
    weight: _Array | None = None,
    bias: _Array | None = None,
    eps: float = 1e-05,
    *,
    residual_bias: _Array | None = None,
    sum_precision: Literal["x", "f32"] = "x",
    axis: _Axis = None,
    return_stats: bool,
    out: tuple[_X | None, _X | None] | None = None,
    activation: _Activation = None,
) -> tuple[_X, _X] | tuple[_X, _X, Any, Any]: ...
def add_layer_norm_backward(
    dy: _Array,
    dsum: _Array | None,
    summed: _X,
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
def add_rms_norm(
    x: _X,
    residual: _Array,
    normalized_shape: _Shape,
    weight: _Array | None = None,
    eps: float | None = None,
    *,
    bias: _Array | None = None,
    weight_offset: float = 0.0,
    residual_bias: _Array | None = None,
    sum_precision: Literal["x", "f32"] = "x",
    axis: _Axis = None,
    return_stats: Literal[False] = False,
    out: tuple[_X | None, _X | None] | None = None,
    activation: _Activation = None,
) -> tuple[_X, _X]: ...
@overload
def add_rms_norm(
    x: _X,
    residual: _Array,
    normalized_shape: _Shape,
    weight: _Array | None = None,
    eps: float | None = None,
    *,
    bias: _Array | None = None,
    weight_offset: float = 0.0,
    residual_bias: _Array | None = None,
    sum_precision: Literal["x", "f32"] = "x",
    axis: _Axis = None,
    return_stats: Literal[True],
    out: tuple[_X | None, _X | None] | None = None,
    activation: _Activation = None,
) -> tuple[_X, _X, Any]: ...
@overload
def add_rms_norm(
    x: _X,
    residual: _Array,
    normalized_shape: _Shape,
    weight: _Array | None = None,
    eps: float | None = None,
    *,
    bias: _Array | None = None,
    weight_offset: float = 0.0,
    residual_bias: _Array | None = None,
    sum_precision: Literal["x", "f32"] = "x",
    axis: _Axis = None,
    return_stats: bool,
    out: tuple[_X | None, _X | None] | None = None,
    activation: _Activation = None,
) -> tuple[_X, _X] | tuple[_X, _X, Any]: ...
def add_rms_norm_backward(
    dy: _Array,
    dsum: _Array | None,
    summed: _X,
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
def fold_batch_norm(
    weight: _X,
    bias: _Array | None,
    running_mean: _Array,
    running_var: _Array,
    bn_weight: _Array | None,
    bn_bias: _Array | None,
    eps: float,
    *,
    transposed: bool = False,
    groups: int = 1,
) -> tuple[_X, _X]: ...
def local_response_norm(
    x: _X,
    size: int,
    alpha: float = 0.0001,
    beta: float = 0.75,
    k: float = 1.0,
    *,
    channel_axis: int = 1,
    out: _X | None = None,
    activation: _Activation = None,
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
@overload
def batch_norm(
    x: _X,
    running_mean: _Array | None,
    running_var: _Array | None,
    weight: _Array | None = None,
    bias: _Array | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-05,
    *,
    channel_axis: int = 1,
    mean: _Array | None = None,
    rstd: _Array | None = None,
    return_stats: Literal[False] = False,
    out: _X | None = None,
    activation: _Activation = None,
) -> _X: ...
@overload
def batch_norm(
    x: _X,
    running_mean: _Array | None,
    running_var: _Array | None,
    weight: _Array | None = None,
    bias: _Array | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-05,
    *,
    channel_axis: int = 1,
    mean: _Array | None = None,
    rstd: _Array | None = None,
    return_stats: Literal[True],
    out: _X | None = None,
    activation: _Activation = None,
) -> tuple[_X, Any, Any]: ...
@overload
def batch_norm(
    x: _X,
    running_mean: _Array | None,
    running_var: _Array | None,
    weight: _Array | None = None,
    bias: _Array | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-05,
    *,
    channel_axis: int = 1,
    mean: _Array | None = None,
    rstd: _Array | None = None,
    return_stats: bool,
    out: _X | None = None,
    activation: _Activation = None,
) -> _X | tuple[_X, Any, Any]: ...
def batch_norm_backward(
    dy: _Array,
    x: _X,
    running_mean: _Array | None,
    running_var: _Array | None,
    weight: _Array | None = None,
    bias: _Array | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-05,
    *,
    channel_axis: int = 1,
    mean: _Array | None = None,
    rstd: _Array | None = None,
    dx_out: _X | None = None,
    grads_out: _Grads = None,
    accumulate: bool = False,
    sums: GradSums | None = None,
) -> tuple[_X, Any, Any]: ...
@overload
def instance_norm(
    x: _X,
    running_mean: _Array | None = None,
    running_var: _Array | None = None,
    weight: _Array | None = None,
    bias: _Array | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-05,
    *,
    channel_axis: int = 1,
    return_stats: Literal[False] = False,
    out: _X | None = None,
    activation: _Activation = None,
) -> _X: ...
@overload
def instance_norm(
    x: _X,
    running_mean: _Array | None = None,
    running_var: _Array | None = None,
    weight: _Array | None = None,
    bias: _Array | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-05,
    *,
    channel_axis: int = 1,
    return_stats: Literal[True],
    out: _X | None = None,
    activation: _Activation = None,
) -> tuple[_X, Any, Any]: ...
@overload
def instance_norm(
    x: _X,
    running_mean: _Array | None = None,
    running_var: _Array | None = None,
    weight: _Array | None = None,
    bias: _Array | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-05,
    *,
    channel_axis: int = 1,
    return_stats: bool,
    out: _X | None = None,
    activation: _Activation = None,
) -> _X | tuple[_X, Any, Any]: ...
def instance_norm_backward(
    dy: _Array,
    x: _X,
    running_mean: _Array | None = None,
    running_var: _Array | None = None,
    weight: _Array | None = None,
    bias: _Array | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-05,
    *,
    channel_axis: int = 1,
    mean: _Array | None = None,
    rstd: _Array | None = None,
    dx_out: _X | None = None,
    grads_out: _Grads = None,
    accumulate: bool = False,
) -> tuple[_X, Any, Any]: ...
@overload
def group_norm(
    x: _X,
    num_groups: int,
    weight: _Array | None = None,
    bias: _Array | None = None,
    eps: float = 1e-05,
    *,
    channel_axis: int = 1,
    return_stats: Literal[False] = False,
    out: _X | None = None,
    activation: _Activation = None,
) -> _X: ...
@overload
def group_norm(
    x: _X,
    num_groups: int,
    weight: _Array | None = None,
    bias: _Array | None = None,
    eps: float = 1e-05,
    *,
    channel_axis: int = 1,
    return_stats: Literal[True],
    out: _X | None = None,
    activation: _Activation = None,
) -> tuple[_X, Any, Any]: ...
@overload
def group_norm(
    x: _X,
    num_groups: int,
    weight: _Array | None = None,
    bias: _Array | None = None,
    eps: float = 1e-05,
    *,
    channel_axis: int = 1,
    return_stats: bool,
    out: _X | None = None,
    activation: _Activation = None,
) -> _X | tuple[_X, Any, Any]: ...
def group_norm_backward(
    dy: _Array,
    x: _X,
    num_groups: int,
    weight: _Array | None = None,
    bias: _Array | None = None,
    eps: float = 1e-05,
    *,
    channel_axis: int = 1,
    mean: _Array | None = None,
    rstd: _Array | None = None,
    dx_out: _X | None = None,
    grads_out: _Grads = None,
    accumulate: bool = False,
) -> tuple[_X, Any, Any]: ...
def switchable_norm(
    x: _X,
    mean_weight: _Array,
    var_weight: _Array,
    weight: _Array | None = None,
    bias: _Array | None = None,
    running_mean: _Array | None = None,
    running_var: _Array | None = None,
    training: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-05,
    *,
    channel_axis: int = 1,
    out: _X | None = None,
    activation: _Activation = None,
) -> _X: ...
def switchable_norm_backward(
    dy: _Array,
    x: _X,
    mean_weight: _Array,
    var_weight: _Array,
    weight: _Array | None = None,
    bias: _Array | None = None,
    running_mean: _Array | None = None,
    running_var: _Array | None = None,
    training: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-05,
    *,
    channel_axis: int = 1,
    dx_out: _X | None = None,
    grads_out: tuple[_Array | None, ...] | list[Any] | None = None,
    accumulate: bool = False,
) -> tuple[_X, Any, Any, Any, Any]: ...
def adaptive_instance_norm(
    content: _X,
    style: _Array,
    eps: float = 1e-05,
    *,
    channel_axis: int = 1,
    out: _X | None = None,
    activation: _Activation = None,
) -> _X: ...
def adaptive_instance_norm_backward(
    dy: _Array,
    content: _X,
    style: _Array,
    eps: float = 1e-05,
    *,
    channel_axis: int = 1,
    dx_out: _X | None = None,
    dstyle_out: _Array | None = None,
) -> tuple[_X, Any]: ...
def normalize(
    x: _X,
    p: float = 2.0,
    axis: _Axis = 1,
    eps: float = 1e-12,
    *,
    out: _X | None = None,
    activation: _Activation = None,
) -> _X: ...
def normalize_backward(
    dy: _Array,
    x: _X,
    p: float = 2.0,
    axis: _Axis = 1,
    eps: float = 1e-12,
    *,
    dx_out: _X | None = None,
) -> tuple[_X]: ...
def weight_norm(v: _X, g: _Array, axis: int | None = 0, *, out: _X | None = None) -> _X: ...
def weight_norm_backward(
    dw: _Array,
    v: _X,
    g: _Array,
    axis: int | None = 0,
    *,
    dx_out: _X | None = None,
    grads_out: tuple[_Array | None] | list[Any] | None = None,
    accumulate: bool = False,
) -> tuple[_X, Any]: ...
def min_max_scale(
    x: _X,
    axis: _Axis = 0,
    feature_range: tuple[float, float] | list[float] | _Array = (0, 1),
    *,
    out: _X | None = None,
) -> _X: ...
def z_score(x: _X, axis: _Axis = 0, *, out: _X | None = None) -> _X: ...
def dynamic_tanh(
    x: _X,
    alpha: float | _Array,
    weight: _Array | None = None,
    bias: _Array | None = None,
    *,
    axis: int = -1,
    out: _X | None = None,
    activation: _Activation = None,
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
def _flag(value: object, name: str) -> bool: ...
def _shape(x: _Array) -> tuple[int, ...]: ...
def _norm(*args: Any) -> Any: ...
def _norm_backward(*args: Any) -> tuple[Any, Any, Any]: ...
def _moments_update(*args: Any) -> tuple[Any, int]: ...
def _grad_sums_update(*args: Any) -> tuple[Any, int]: ...
def _merge_trees(*args: Any) -> tuple[Any, int]: ...
def _finish_trees(*args: Any) -> Any: ...
def _update_running(*args: Any) -> None: ...
