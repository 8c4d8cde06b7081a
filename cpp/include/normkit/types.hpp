// Plain data that crosses every boundary of normkit: status, element types, shapes and views.
//
// Nothing here depends on the instruction set, so these types lie outside the ISA namespace: a program may
// mix header-only and compiled use and pass the same structs to both.
#ifndef NORMKIT_TYPES_HPP_
#define NORMKIT_TYPES_HPP_

#pragma push_macro("Status")  // X11 has one
#undef Status

#include <stddef.h>
#include <stdint.h>

#include "normkit/detail/config.hpp"

namespace normkit {

// Result of every operation. On anything but kOk nothing was written; but kDeviceError may come between the
// kernels of a call. Where a macro of another header takes the name (X11 has one), compare with 0.
enum class Status : int32_t {
  kOk = 0,
  kNullPointer,        // a required array (x, y, dy, ...) is missing while the shape has elements
  kInvalidShape,       // a negative size or rank, or an element count that does not fit int64
  kTooManyAxes,        // more than kMaxAxes axes are left after merging, and no workspace is lent for them
  kInvalidDType,       // an element type that does not exist, or a combination that is not supported
  kInvalidEps,         // eps is NaN or negative, or weight_offset, alpha, beta or k NaN or not supported
  kOverlap,            // an output overlaps itself, another output, or an input other than as the same view
  kMisaligned,         // a pointer is not a multiple of its element size
  kMissingStatistics,  // only one of mean and rstd was given, or running statistics with them
  kWorkspaceTooSmall,  // see the operation's *_workspace_bytes
  kInvalidActivation,  // an activation that does not exist
  kUnsupported,        // the operation has no kernels for this device
  kDeviceError,        // the device refused a launch
};

// Applied to y as it would be returned, rounded to its element type; the result is rounded to that type
// again. Formulas: detail/activation.hpp. A backward pass knows no activation: its dy is the gradient before
// it.
enum class Activation : int32_t { kNone = 0, kRelu, kSilu, kGelu, kGeluTanh };

enum class DType : int32_t { kF32 = 0, kF64 = 1, kF16 = 2, kBF16 = 3 };

// IEEE binary16 and bfloat16 as storage only: arithmetic happens in float.
struct Float16 {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

template <typename T>
struct DTypeOf;
template <>
struct DTypeOf<float> {
  static constexpr DType value = DType::kF32;
};
template <>
struct DTypeOf<double> {
  static constexpr DType value = DType::kF64;
};
template <>
struct DTypeOf<Float16> {
  static constexpr DType value = DType::kF16;
};
template <>
struct DTypeOf<BFloat16> {
  static constexpr DType value = DType::kBF16;
};

NORMKIT_INLINE constexpr bool is_dtype(DType dtype) noexcept {
  return static_cast<int32_t>(dtype) >= 0 && static_cast<int32_t>(dtype) <= 3;
}

NORMKIT_INLINE constexpr bool is_activation(Activation activation) noexcept {
  return static_cast<int32_t>(activation) >= 0 && static_cast<int32_t>(activation) <= 4;
}

NORMKIT_INLINE constexpr int64_t size_of(DType dtype) noexcept {
  return dtype == DType::kF64 ? 8 : dtype == DType::kF32 ? 4 : 2;
}

// The largest number of a type, and whether a number lies within its range.
NORMKIT_INLINE constexpr double largest_of(DType dtype) noexcept {
  return dtype == DType::kF16    ? 65504.0
         : dtype == DType::kBF16 ? 0x1.FEp127
         : dtype == DType::kF32  ? 0x1.FFFFFEp127
                                 : 0x1.FFFFFFFFFFFFFp1023;
}
NORMKIT_INLINE constexpr bool fits(DType dtype, double value) noexcept {
  return value >= -largest_of(dtype) && value <= largest_of(dtype);
}

// Rows, and the elements of a row, have as many axes of their own at hand, after neighbouring axes that run
// through memory in one stride are merged. Where more are left, they lie in the workspace, and elements are
// found one by one: right, and slow.
constexpr int kMaxAxes = 6;
// Axes that a caller may pass.
constexpr int kMaxRank = 64;

// The loop axes of an operation over rows: the first `outer` axes enumerate the rows, the last `inner` axes
// are normalized together, both numbered in C order.
struct RowsShape {
  int32_t outer = 0;
  int32_t inner = 0;
  const int64_t* size = nullptr;  // outer + inner sizes
  NORMKIT_DEFAULT_CONSTRUCTOR(RowsShape)
};

// A strided operand. `strides` are in elements, one for each axis on which the operand is defined (all of the
// shape for x, y, dy, dx; the inner axes for weight, bias and their gradients; the outer axes for mean and
// rstd); any sign, 0 broadcasts (inputs only); null means C-contiguous. data == nullptr means absent.
struct ConstView {
  const void* data = nullptr;
  DType dtype = DType::kF32;
  const int64_t* strides = nullptr;

  NORMKIT_INLINE constexpr ConstView() noexcept = default;
  NORMKIT_INLINE constexpr ConstView(const void* data_, DType dtype_,
                                     const int64_t* strides_ = nullptr) noexcept
      : data(data_), dtype(dtype_), strides(strides_) {}
  template <typename T>
  NORMKIT_INLINE constexpr ConstView(const T* data_, const int64_t* strides_ = nullptr) noexcept
      : data(data_), dtype(DTypeOf<T>::value), strides(strides_) {}
};

struct View {
  void* data = nullptr;
  DType dtype = DType::kF32;
  const int64_t* strides = nullptr;

  NORMKIT_INLINE constexpr View() noexcept = default;
  NORMKIT_INLINE constexpr View(void* data_, DType dtype_, const int64_t* strides_ = nullptr) noexcept
      : data(data_), dtype(dtype_), strides(strides_) {}
  template <typename T>
  NORMKIT_INLINE constexpr View(T* data_, const int64_t* strides_ = nullptr) noexcept
      : data(data_), dtype(DTypeOf<T>::value), strides(strides_) {}
};

// Scratch memory lent by the caller for the duration of one call; any alignment.
struct Workspace {
  void* data = nullptr;
  size_t bytes = 0;
  NORMKIT_DEFAULT_CONSTRUCTOR(Workspace)
};

NORMKIT_BEGIN_INLINE

// A sentence for people; never null.
inline const char* status_message(Status status) noexcept {
  switch (status) {
    case Status::kOk:
      return "ok";
    case Status::kNullPointer:
      return "a required array is missing";
    case Status::kInvalidShape:
      return "a size or rank is negative or too large";
    case Status::kTooManyAxes:
      return "more than 6 axes are left after merging, and no workspace is lent for them";
    case Status::kInvalidDType:
      return "unsupported element type or combination of element types";
    case Status::kInvalidEps:
      return "eps is NaN or negative, or weight_offset, alpha, beta or k is NaN or not supported";
    case Status::kOverlap:
      return "an output overlaps itself or partly overlaps another array";
    case Status::kMisaligned:
      return "a pointer is not aligned to its element size";
    case Status::kMissingStatistics:
      return "mean and rstd must be given together, and running statistics without them";
    case Status::kWorkspaceTooSmall:
      return "the workspace is too small";
    case Status::kInvalidActivation:
      return "an activation that does not exist";
    case Status::kUnsupported:
      return "the operation has no kernels for this device";
    case Status::kDeviceError:
      return "the device refused to start a kernel";
  }
  return "unknown status";
}

NORMKIT_END_INLINE

}  // namespace normkit

#pragma pop_macro("Status")

#endif  // NORMKIT_TYPES_HPP_
