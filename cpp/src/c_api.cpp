// The C interface: the same structs, field by field.
#include "normkit/c_api.h"

#include "normkit/normkit.hpp"

namespace {

using namespace normkit;

ConstView input(const normkit_view& v) {
  return {v.data, static_cast<DType>(v.dtype), v.strides};
}
View output(const normkit_view& v) {
  return {v.data, static_cast<DType>(v.dtype), v.strides};
}
RowsShape rows(const normkit_rows_shape* s) {
  return {s->outer, s->inner, s->size};
}
int32_t code(Status status) {
  return static_cast<int32_t>(status);
}

// Fields that both operations over rows have.
template <typename Args>
Args forward(const normkit_rows_forward* from) {
  Args args;
  args.x = input(from->x);
  args.y = output(from->y);
  args.weight = input(from->weight);
  args.bias = input(from->bias);
  args.rstd = output(from->rstd);
  args.eps = from->eps;
  return args;
}

template <typename Args>
Args backward(const normkit_rows_backward* from) {
  Args args;
  args.dy = input(from->dy);
  args.x = input(from->x);
  args.weight = input(from->weight);
  args.rstd = input(from->rstd);
  args.dx = output(from->dx);
  args.dweight = output(from->dweight);
  args.dbias = output(from->dbias);
  args.eps = from->eps;
  args.accumulate = from->accumulate != 0;
  return args;
}

LayerNormBackwardArgs layer_norm_args(const normkit_rows_backward* from) {
  auto args = backward<LayerNormBackwardArgs>(from);
  args.mean = input(from->mean);
  return args;
}

RmsNormBackwardArgs rms_norm_args(const normkit_rows_backward* from) {
  auto args = backward<RmsNormBackwardArgs>(from);
  args.weight_offset = from->weight_offset;
  return args;
}

// A forward call has no argument for the workspace that many axes of their own need. An address space ends at
// 47 axes, of which 6 need none: 8 inputs and 8 outputs with a size and a stride for each.
template <typename Call>
NORMKIT_NOINLINE Status with_axes(const Call& call) {
  alignas(8) unsigned char room[((47 - 6) * 2 * 16 + 1) * sizeof(int64_t)];
  return call(Workspace{room, sizeof(room)});
}

}  // namespace

extern "C" {

int32_t normkit_layer_norm(const normkit_rows_shape* shape, const normkit_rows_forward* from) {
  auto args = forward<LayerNormArgs>(from);
  args.mean = output(from->mean);
  const auto call = [&](Workspace workspace) { return layer_norm(rows(shape), args, workspace); };
  return code(layer_norm_workspace_bytes(rows(shape), args) == 0 ? call({}) : with_axes(call));
}

int32_t normkit_rms_norm(const normkit_rows_shape* shape, const normkit_rows_forward* from) {
  auto args = forward<RmsNormArgs>(from);
  args.weight_offset = from->weight_offset;
  const auto call = [&](Workspace workspace) { return rms_norm(rows(shape), args, workspace); };
  return code(rms_norm_workspace_bytes(rows(shape), args) == 0 ? call({}) : with_axes(call));
}

size_t normkit_layer_norm_backward_workspace_bytes(const normkit_rows_shape* shape,
                                                   const normkit_rows_backward* args) {
  return layer_norm_backward_workspace_bytes(rows(shape), layer_norm_args(args));
}

size_t normkit_rms_norm_backward_workspace_bytes(const normkit_rows_shape* shape,
                                                 const normkit_rows_backward* args) {
  return rms_norm_backward_workspace_bytes(rows(shape), rms_norm_args(args));
}

int32_t normkit_layer_norm_backward(const normkit_rows_shape* shape, const normkit_rows_backward* args,
                                    void* workspace, size_t workspace_bytes) {
  return code(layer_norm_backward(rows(shape), layer_norm_args(args), {workspace, workspace_bytes}));
}

int32_t normkit_rms_norm_backward(const normkit_rows_shape* shape, const normkit_rows_backward* args,
                                  void* workspace, size_t workspace_bytes) {
  return code(rms_norm_backward(rows(shape), rms_norm_args(args), {workspace, workspace_bytes}));
}

const char* normkit_status_message(int32_t status) {
  return status_message(static_cast<Status>(status));
}
const char* normkit_isa(void) {
  return isa();
}
int32_t normkit_get_num_threads(void) {
  return get_num_threads();
}
void normkit_set_num_threads(int32_t threads) {
  set_num_threads(threads);
}

}  // extern "C"
