// dynamic_tanh and its gradient: argument lists; alpha is a number or an array.
#include "call.hpp"
#include "normkit/normkit.hpp"
#include "ops.hpp"
#include "signature.hpp"

namespace normkit::python {
namespace {

// x with one axis of channels.
class MapCall : public ArrayCall {
 public:
  MapCall(PyObject* x, PyObject* axis) : ArrayCall(x) {
    shape_ = {rank(), this->x().sizes,
              axis_number(axis == nullptr ? -1 : integer_argument(axis, "axis"), "axis")};
  }

  const MapShape& shape() const { return shape_; }
  const Array& alpha() const { return *alpha_; }
  bool alpha_per_channel() const { return per_channel_; }

  // A Python number, an array of one element, or one of shape (C,).
  ConstView read_alpha(PyObject* argument) {
    if (!is_numpy_array(argument) && !PyObject_HasAttrString(argument, "__dlpack__")) {
      value_ = number_argument(argument, "alpha", 0.0);
      number_.name = "alpha";
      number_.data = &value_;
      number_.dtype = DType::kF64;
      number_.count = 1;
      alpha_ = &number_;
      return {&value_};
    }
    Operand& o = add();
    o.array.read(argument, "alpha", Access::kRead);
    alpha_ = &o.array;
    if (o.array.dtype != x().dtype && o.array.dtype != DType::kF32 && o.array.dtype != DType::kF64)
      raise(PyExc_TypeError, "alpha has dtype %s; it should have x's, %s, or be float32 or float64",
            dtype_name(o.array.dtype), dtype_name(x().dtype));
    per_channel_ = o.array.count != 1;
    if (per_channel_ && (o.array.ndim != 1 || o.array.sizes[0] != *channels()))
      raise(PyExc_ValueError,
            "alpha has shape %U; it should be a number, have one element, or have shape %U, one number for "
            "each "
            "channel",
            shape_text(o.array).ptr(), shape_text(channels(), 1).ptr());
    return {o.array.data, o.array.dtype, o.array.strides};
  }

  ConstView per_channel(PyObject* argument, const char* name, const Array** read = nullptr) {
    return parameter(argument, name, channels(), 1, "one number for each channel", read);
  }

 private:
  const int64_t* channels() const { return shape_.size + shape_.axis; }

  MapShape shape_;
  const Array* alpha_ = nullptr;
  Array number_;
  double value_ = 0.0;
  bool per_channel_ = false;
};

constexpr const char* kDynamicTanh =
    "dynamic_tanh(x, alpha, weight=None, bias=None, *, axis=-1, out=None, activation=None)";

PyObject* dynamic_tanh_call(PyObject* const* slots) {
  enum { kX, kAlpha, kWeight, kBias, kAxis, kOut, kActivation };
  MapCall call(slots[kX], slots[kAxis]);
  DynamicTanhArgs args;
  args.activation = activation_argument(slots[kActivation]);
  Operand* y;
  args.x = call.x_view();
  args.alpha = call.read_alpha(slots[kAlpha]);
  args.alpha_per_channel = call.alpha_per_channel();
  args.weight = call.per_channel(slots[kWeight], "weight");
  args.bias = call.per_channel(slots[kBias], "bias");
  args.y = call.result_like_x(slots[kOut], "out", &y);
  call.run(call.shape(), args, &dynamic_tanh_workspace_bytes, &dynamic_tanh_plan);
  return y->finish(call.x()).release().ptr();
}

constexpr const char* kDynamicTanhBackward =
    "dynamic_tanh_backward(dy, x, alpha, weight=None, bias=None, *, axis=-1, dx_out=None, grads_out=None, "
    "accumulate=False)";

PyObject* dynamic_tanh_backward_call(PyObject* const* slots) {
  enum { kDy, kX, kAlpha, kWeight, kBias, kAxis, kDxOut, kGradsOut, kAccumulate };
  static constexpr const char* kNames[] = {"alpha", "weight", "bias", nullptr};
  MapCall call(slots[kX], slots[kAxis]);
  DynamicTanhBackwardArgs args;
  const Array* parameters[3] = {};
  args.x = call.x_view();
  args.dy = call.same_as_x(slots[kDy], "dy");
  args.alpha = call.read_alpha(slots[kAlpha]);
  args.alpha_per_channel = call.alpha_per_channel();
  parameters[0] = &call.alpha();
  args.weight = call.per_channel(slots[kWeight], "weight", &parameters[1]);
  call.per_channel(slots[kBias], "bias", &parameters[2]);
  const Gradients gradients(call, parameters, kNames, slots[kDxOut], slots[kGradsOut], slots[kAccumulate]);
  args.dx = gradients.dx;
  args.dalpha = gradients.parameters[0];
  args.dweight = gradients.parameters[1];
  args.dbias = gradients.parameters[2];
  args.accumulate = gradients.accumulate;
  call.run(call.shape(), args, &dynamic_tanh_backward_workspace_bytes, &dynamic_tanh_backward_plan);
  return gradients.result(call);
}

}  // namespace

void add_map_operations(PyObject* module) {
  Function<dynamic_tanh_call>::add(module, kDynamicTanh, docs::kDynamicTanh);
  Function<dynamic_tanh_backward_call>::add(module, kDynamicTanhBackward, docs::kDynamicTanhBackward);
}

}  // namespace normkit::python
