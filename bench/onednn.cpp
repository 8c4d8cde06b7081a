// oneDNN behind a C interface of its own, so that `normkit bench` can call it in its process on its arrays.
// Built by bench/build_onednn.py; not part of normkit.
//
// A handle is one primitive with its memory bound: LayerNorm over the last axis of a [rows, n] matrix, or
// BatchNorm of an [N, C, H, W] tensor in NCHW or NHWC order. Weight, bias, statistics and the gradients of
// weight and bias are float32 here, whatever x is: oneDNN has no other. Every function that can fail returns
// null or non-zero and leaves a text in nk_onednn_error().
#include <omp.h>
#include <stdint.h>

#include <exception>
#include <memory>
#include <oneapi/dnnl/dnnl.hpp>
#include <string>
#include <unordered_map>

namespace {

using dnnl::memory;
using dnnl::normalization_flags;
using dnnl::prop_kind;

constexpr int kLayerNorm = 0;
constexpr int kForward = 0, kBackward = 1, kInference = 2;

thread_local std::string last_error;

struct Handle {
  dnnl::engine engine{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream{engine};
  dnnl::primitive primitive;
  std::unordered_map<int, memory> arguments;
  std::string implementation;

  void bind(int argument, const memory::desc& description, void* data) {
    arguments.emplace(argument, memory(description, engine, data));
  }
};

memory::data_type data_type(int dtype) {
  constexpr memory::data_type kTypes[] = {memory::data_type::f32, memory::data_type::bf16,
                                          memory::data_type::f16};
  return kTypes[dtype];
}

memory::desc tensor(const int64_t* size, int rank, int dtype, bool channels_last) {
  const memory::format_tag tag = rank == 2       ? memory::format_tag::ab
                                 : channels_last ? memory::format_tag::nhwc
                                                 : memory::format_tag::nchw;
  return {memory::dims(size, size + rank), data_type(dtype), tag};
}

}  // namespace

extern "C" {

// Operands of a handle; null where the pass has none. y is dx in a backward.
struct nk_onednn_arrays {
  void *x, *dy, *y, *weight, *bias, *mean, *variance, *dweight, *dbias;
};

const char* nk_onednn_error() {
  return last_error.c_str();
}

const char* nk_onednn_version() {
  static const std::string text = [] {
    const dnnl_version_t* version = dnnl_version();
    return std::to_string(version->major) + "." + std::to_string(version->minor) + "." +
           std::to_string(version->patch);
  }();
  return text.c_str();
}

// Threads of primitives made and run from now on by the calling thread.
void nk_onednn_set_threads(int count) {
  omp_set_num_threads(count);
}

// operation: 0 LayerNorm, 1 BatchNorm. pass: 0 forward (in training), 1 backward, 2 forward with given
// statistics. dtype: 0 f32, 1 bf16, 2 f16.
void* nk_onednn_create(int operation, int pass, int dtype, int channels_last, int rank, const int64_t* size,
                       double epsilon, const nk_onednn_arrays* arrays) {
  try {
    auto handle = std::make_unique<Handle>();
    const memory::desc data = tensor(size, rank, dtype, channels_last != 0);
    const memory::desc vector{{size[1]}, memory::data_type::f32, memory::format_tag::a};
    const float eps = static_cast<float>(epsilon);
    normalization_flags flags = normalization_flags::use_scale | normalization_flags::use_shift;
    memory::desc statistics = vector;
    const auto take = [&](const auto& description, auto make) {
      handle->implementation = description.impl_info_str();
      handle->primitive = make(description);
    };
    const prop_kind kind = pass == kInference ? prop_kind::forward_inference : prop_kind::forward_training;
    if (pass == kInference) flags = flags | normalization_flags::use_global_stats;
    if (operation == kLayerNorm) {
      using Forward = dnnl::layer_normalization_forward;
      using Backward = dnnl::layer_normalization_backward;
      statistics = {{size[0]}, memory::data_type::f32, memory::format_tag::a};
      const prop_kind alone = pass == kForward ? prop_kind::forward_inference : kind;
      const Forward::primitive_desc forward(handle->engine, alone, data, data, statistics, eps, flags);
      if (pass != kBackward) {
        take(forward, [](const auto& description) { return Forward(description); });
      } else {
        take(Backward::primitive_desc(handle->engine, prop_kind::backward, data, data, data, statistics, eps,
                                      flags, forward),
             [](const auto& description) { return Backward(description); });
      }
    } else {
      using Forward = dnnl::batch_normalization_forward;
      using Backward = dnnl::batch_normalization_backward;
      const Forward::primitive_desc forward(handle->engine, kind, data, data, eps, flags);
      if (pass != kBackward) {
        take(forward, [](const auto& description) { return Forward(description); });
      } else {
        take(Backward::primitive_desc(handle->engine, prop_kind::backward, data, data, data, eps, flags,
                                      forward),
             [](const auto& description) { return Backward(description); });
      }
    }
    handle->bind(DNNL_ARG_SRC, data, arrays->x);
    handle->bind(DNNL_ARG_SCALE, vector, arrays->weight);
    // BatchNorm's backward alone refuses a shift.
    if (pass != kBackward || operation == kLayerNorm) {
      handle->bind(DNNL_ARG_SHIFT, vector, arrays->bias);
    }
    if (arrays->mean != nullptr) {
      handle->bind(DNNL_ARG_MEAN, statistics, arrays->mean);
      handle->bind(DNNL_ARG_VARIANCE, statistics, arrays->variance);
    }
    if (pass == kBackward) {
      handle->bind(DNNL_ARG_DIFF_DST, data, arrays->dy);
      handle->bind(DNNL_ARG_DIFF_SRC, data, arrays->y);
      handle->bind(DNNL_ARG_DIFF_SCALE, vector, arrays->dweight);
      handle->bind(DNNL_ARG_DIFF_SHIFT, vector, arrays->dbias);
    } else {
      handle->bind(DNNL_ARG_DST, data, arrays->y);
    }
    return handle.release();
  } catch (const std::exception& error) {
    last_error = error.what();
    return nullptr;
  }
}

int nk_onednn_run(void* opaque) {
  Handle* handle = static_cast<Handle*>(opaque);
  try {
    handle->primitive.execute(handle->stream, handle->arguments);
    handle->stream.wait();
    return 0;
  } catch (const std::exception& error) {
    last_error = error.what();
    return 1;
  }
}

// The name of the kernel that oneDNN chose.
const char* nk_onednn_implementation(const void* handle) {
  return static_cast<const Handle*>(handle)->implementation.c_str();
}

void nk_onednn_destroy(void* handle) {
  delete static_cast<Handle*>(handle);
}

}  // extern "C"
