// The geometry of operations over channels, and over any sets.
#include "call.hpp"
#include "signature.hpp"

namespace normkit::python {

ChannelsCall::ChannelsCall(PyObject* x, PyObject* channel_axis, const char* name, Kernels kernels)
    : ArrayCall(x, name, kernels) {
  const Array& array = this->x();
  if (rank() < 2)
    raise(PyExc_ValueError, "%s has shape %U; it should have at least 2 axes, samples and channels", name,
          shape_text(array).ptr());
  const int64_t named = channel_axis == nullptr ? 1 : integer_argument(channel_axis, "channel_axis");
  const int64_t channel = named < 0 ? named + rank() : named;
  if (channel < 1 || channel >= rank())
    raise(PyExc_ValueError,
          "channel_axis is %lld; it should be an axis of %s, which has %d, other than the first",
          static_cast<long long>(named), name, static_cast<int>(rank()));
  add_axis(0, array.sizes[0]);
  add_axis(static_cast<int32_t>(channel), array.sizes[channel]);
  for (int32_t i = 1; i < rank(); ++i)
    if (i != channel) add_axis(i, array.sizes[i]);
}

int64_t ChannelsCall::space() const {
  int64_t count = 1;
  for (int32_t i = 2; i < count_; ++i) count *= sizes_[i];
  return count;
}

ChannelsShape ChannelsCall::another_shape(const Operand& other, int64_t* sizes) const {
  for (int32_t i = 0; i < count_; ++i) sizes[i] = other.array.sizes[axes_[i]];
  return {count_, sizes};
}

void SetsCall::over(PyObject* axis) {
  for (int32_t i = 0; i < rank(); ++i) add_axis(i, x().sizes[i]);
  if (axis == Py_None) {
    normalized_ = ~uint64_t(0);
    return;
  }
  int64_t named[kMaxRank];
  const int32_t count = integer_arguments(axis, "axis", named);
  if (count == 0) raise(PyExc_ValueError, "axis is empty; it should name at least one axis");
  for (int32_t i = 0; i < count; ++i) {
    const int32_t a = axis_number(named[i], "axis");
    if (normalizes(a)) raise(PyExc_ValueError, "axis names axis %d of x twice", static_cast<int>(a));
    normalized_ |= uint64_t(1) << a;
  }
}

void SetsCall::parts(PyObject* description, int32_t run_axes) {
  const Py_ssize_t count = PyTuple_GET_SIZE(description);
  if (count > kMaxRank)
    raise(PyExc_ValueError, "the pattern has %zd axes; it should have at most %d", count,
          static_cast<int>(kMaxRank));
  int64_t part[kMaxRank][4];
  for (Py_ssize_t i = 0; i < count; ++i)
    integer_arguments(PyTuple_GET_ITEM(description, i), "parts", part[i]);
  for (int32_t i = 0; i < count; ++i) {
    int64_t span = 1;  // of what follows it in the same axis
    for (Py_ssize_t j = i + 1; j < count && part[j][0] == part[i][0]; ++j) span *= part[j][1];
    add_axis(static_cast<int32_t>(part[i][0]), part[i][1], span);
    normalized_ |= uint64_t(part[i][2] != 0) << i;
    affine_ |= uint64_t(part[i][3] >= 0) << i;
    weight_axis_[i] = static_cast<int32_t>(part[i][3]);
  }
  run_axes_ = run_axes;
}

int32_t SetsCall::sizes_of(uint64_t mask, int64_t* sizes) const {
  int32_t count = 0;
  for (int32_t i = 0; i < count_; ++i)
    if (mask >> i & 1u) sizes[count++] = sizes_[i];
  return count;
}

}  // namespace normkit::python
