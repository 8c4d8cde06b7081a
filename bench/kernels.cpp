// Micro-benchmarks of the compiled library: every operation x dtype x shape x thread count, forward and
// backward, and memcpy of as many bytes as the line to hold them against. The operations over channels run in
// both layouts.
//
// Memory is reused from call to call: small shapes stay in the cache, the largest does not fit it. The rate
// counts what an operation must read and write: x and y; or dy, x and dx; and weight, bias and their
// gradients.
//
//   normkit_bench_kernels --benchmark_filter='layer_norm/forward/f32/.*/threads:1'
//   normkit_bench_kernels --benchmark_filter='batch_norm/.*/f32/nhwc_'
#include <benchmark/benchmark.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <memory>
#include <string>
#include <vector>

#if defined(__linux__)
#  include <sys/mman.h>
#endif

#include "normkit/normkit.hpp"

namespace {

namespace nk = normkit;

struct NamedShape {
  const char* name;
  int64_t rows;
  int64_t n;
};

constexpr NamedShape kShapes[] = {
    {"one_token", 1, 768},           {"attention_heads", 4096, 128}, {"transformer_layer", 512, 768},
    {"large_model_layer", 64, 4096}, {"beyond_cache", 4096, 4096},
};

struct NamedDType {
  const char* name;
  nk::DType dtype;
};

constexpr NamedDType kDTypes[] = {
    {"f32", nk::DType::kF32}, {"f64", nk::DType::kF64}, {"f16", nk::DType::kF16}, {"bf16", nk::DType::kBF16}};

enum class Operation { kLayerNormForward, kLayerNormBackward, kRmsNormForward, kRmsNormBackward };

struct NamedOperation {
  const char* name;
  Operation operation;
};

constexpr NamedOperation kOperations[] = {{"layer_norm/forward", Operation::kLayerNormForward},
                                          {"layer_norm/backward", Operation::kLayerNormBackward},
                                          {"rms_norm/forward", Operation::kRmsNormForward},
                                          {"rms_norm/backward", Operation::kRmsNormBackward}};

// Memory on its own (huge, where the system has them) pages, as NumPy allocates large arrays.
class Buffer {
 public:
  explicit Buffer(size_t bytes) {
    constexpr size_t kHugePage = size_t{1} << 21;
    const size_t alignment = bytes >= kHugePage ? kHugePage : 64;
    const size_t size = (bytes + alignment - 1) / alignment * alignment;
    data_.reset(aligned_alloc(alignment, size > 0 ? size : alignment));
    if (data_ == nullptr) abort();
#if defined(__linux__)
    if (size >= kHugePage) (void)madvise(data_.get(), size, MADV_HUGEPAGE);
#endif
    memset(data_.get(), 0, size);
  }

  void* data() const { return data_.get(); }

 private:
  struct Free {
    void operator()(void* pointer) const { free(pointer); }
  };
  std::unique_ptr<void, Free> data_;
};

// Vigna's splitmix64.
uint64_t next_random(uint64_t* state) {
  uint64_t z = (*state += 0x9E3779B97F4A7C15u);
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

// An array of random sign and a magnitude in [0.5, 1).
Buffer random_array(nk::DType dtype, int64_t count, uint64_t seed) {
  Buffer buffer(static_cast<size_t>(count * nk::size_of(dtype)));
  for (int64_t i = 0; i < count; ++i) {
    const uint64_t bits = next_random(&seed);
    const uint64_t sign = bits >> 63;
    switch (dtype) {
      case nk::DType::kF32:
        static_cast<uint32_t*>(buffer.data())[i] =
            static_cast<uint32_t>((sign << 31) | 0x3F000000u | (bits & 0x7FFFFF));
        break;
      case nk::DType::kF64:
        static_cast<uint64_t*>(buffer.data())[i] =
            (sign << 63) | 0x3FE0000000000000u | (bits & 0xFFFFFFFFFFFFFu);
        break;
      case nk::DType::kF16:
        static_cast<uint16_t*>(buffer.data())[i] =
            static_cast<uint16_t>((sign << 15) | 0x3800u | (bits & 0x3FF));
        break;
      case nk::DType::kBF16:
        static_cast<uint16_t*>(buffer.data())[i] =
            static_cast<uint16_t>((sign << 15) | 0x3F00u | (bits & 0x7F));
        break;
    }
  }
  return buffer;
}

// An operation of the library: its workspace, and itself.
template <typename Shape, typename Args>
struct Entry {
  size_t (*workspace_bytes)(const Shape&, const Args&) noexcept;
  nk::Status (*call)(const Shape&, const Args&, nk::Workspace, const nk::Executor*) noexcept;
};

// The benchmark loop of one operation; false if the library refused.
template <typename Shape, typename Args>
bool loop(benchmark::State& state, const Shape& shape, const Args& args, Entry<Shape, Args> entry) {
  const Buffer scratch(entry.workspace_bytes(shape, args));
  const nk::Workspace workspace{scratch.data(), entry.workspace_bytes(shape, args)};
  const nk::Executor* executor = nk::default_executor();
  for (auto _ : state) {
    if (entry.call(shape, args, workspace, executor) != nk::Status::kOk) return false;
    benchmark::ClobberMemory();
  }
  return true;
}

#define NORMKIT_BENCH_ENTRY(Shape, Args, name) \
  Entry<nk::Shape, nk::Args> {                 \
    &nk::name##_workspace_bytes, &nk::name     \
  }

// All operands of one shape and dtype.
class Problem {
 public:
  Problem(const NamedShape& shape, nk::DType dtype)
      : dtype_(dtype),
        size_{shape.rows, shape.n},
        item_(nk::size_of(dtype)),
        x_(random_array(dtype, shape.rows * shape.n, 1)),
        dy_(random_array(dtype, shape.rows * shape.n, 2)),
        weight_(random_array(dtype, shape.n, 3)),
        bias_(random_array(dtype, shape.n, 4)),
        y_(static_cast<size_t>(shape.rows * shape.n * item_)),
        dweight_(static_cast<size_t>(shape.n * item_)),
        dbias_(static_cast<size_t>(shape.n * item_)),
        mean_(static_cast<size_t>(shape.rows) * sizeof(double)),
        rstd_(static_cast<size_t>(shape.rows) * sizeof(double)) {
    shape_.outer = 1;
    shape_.inner = 1;
    shape_.size = size_;
  }

  Problem(const Problem&) = delete;
  Problem& operator=(const Problem&) = delete;

  // Runs the benchmark loop of one operation; false if the library refused.
  bool run(Operation operation, benchmark::State& state) const {
    switch (operation) {
      case Operation::kLayerNormForward:
        return loop(state, shape_, layer_norm_args(false),
                    NORMKIT_BENCH_ENTRY(RowsShape, LayerNormArgs, layer_norm));
      case Operation::kLayerNormBackward:
        return loop(state, shape_, layer_norm_backward_args(),
                    NORMKIT_BENCH_ENTRY(RowsShape, LayerNormBackwardArgs, layer_norm_backward));
      case Operation::kRmsNormForward:
        return loop(state, shape_, rms_norm_args(false),
                    NORMKIT_BENCH_ENTRY(RowsShape, RmsNormArgs, rms_norm));
      case Operation::kRmsNormBackward:
        return loop(state, shape_, rms_norm_backward_args(),
                    NORMKIT_BENCH_ENTRY(RowsShape, RmsNormBackwardArgs, rms_norm_backward));
    }
    return false;
  }

  // Computes the statistics that the backward of this operation takes.
  bool save_statistics(Operation operation) const {
    if (operation == Operation::kLayerNormBackward) {
      return nk::layer_norm(shape_, layer_norm_args(true)) == nk::Status::kOk;
    }
    return operation != Operation::kRmsNormBackward ||
           nk::rms_norm(shape_, rms_norm_args(true)) == nk::Status::kOk;
  }

  // What the operation must read and write.
  int64_t bytes(Operation operation) const {
    const bool has_bias =
        operation == Operation::kLayerNormForward || operation == Operation::kLayerNormBackward;
    const bool backward =
        operation == Operation::kLayerNormBackward || operation == Operation::kRmsNormBackward;
    const int64_t large = backward ? 3 : 2;
    const int64_t parameters = (backward ? 2 : 1) + (has_bias ? 1 : 0);
    return item_ * size_[1] * (large * size_[0] + parameters);
  }

 private:
  nk::LayerNormArgs layer_norm_args(bool statistics) const {
    nk::LayerNormArgs args;
    args.x = {x_.data(), dtype_};
    args.y = {y_.data(), dtype_};
    args.weight = {weight_.data(), dtype_};
    args.bias = {bias_.data(), dtype_};
    if (statistics) {
      args.mean = {mean_.data(), nk::DType::kF64};
      args.rstd = {rstd_.data(), nk::DType::kF64};
    }
    return args;
  }

  nk::LayerNormBackwardArgs layer_norm_backward_args() const {
    nk::LayerNormBackwardArgs args;
    args.dy = {dy_.data(), dtype_};
    args.x = {x_.data(), dtype_};
    args.weight = {weight_.data(), dtype_};
    args.mean = {mean_.data(), nk::DType::kF64};
    args.rstd = {rstd_.data(), nk::DType::kF64};
    args.dx = {y_.data(), dtype_};
    args.dweight = {dweight_.data(), dtype_};
    args.dbias = {dbias_.data(), dtype_};
    return args;
  }

  nk::RmsNormArgs rms_norm_args(bool statistics) const {
    nk::RmsNormArgs args;
    args.x = {x_.data(), dtype_};
    args.y = {y_.data(), dtype_};
    args.weight = {weight_.data(), dtype_};
    if (statistics) args.rstd = {rstd_.data(), nk::DType::kF64};
    return args;
  }

  nk::RmsNormBackwardArgs rms_norm_backward_args() const {
    nk::RmsNormBackwardArgs args;
    args.dy = {dy_.data(), dtype_};
    args.x = {x_.data(), dtype_};
    args.weight = {weight_.data(), dtype_};
    args.rstd = {rstd_.data(), nk::DType::kF64};
    args.dx = {y_.data(), dtype_};
    args.dweight = {dweight_.data(), dtype_};
    return args;
  }

  nk::DType dtype_;
  int64_t size_[2];
  int64_t item_;
  nk::RowsShape shape_;
  Buffer x_, dy_, weight_, bias_, y_, dweight_, dbias_, mean_, rstd_;
};

void run_operation(benchmark::State& state, NamedOperation operation, NamedDType dtype, NamedShape shape,
                   int threads) {
  nk::set_num_threads(threads);
  const Problem problem(shape, dtype.dtype);
  if (!problem.save_statistics(operation.operation) || !problem.run(operation.operation, state)) {
    state.SkipWithError("the library refused the arguments");
    return;
  }
  state.SetBytesProcessed(state.iterations() * problem.bytes(operation.operation));
}

struct NamedImage {
  const char* name;
  int64_t size[4];  // N, C, H, W
};

constexpr NamedImage kImages[] = {{"small_batch", {2, 64, 56, 56}}, {"beyond_cache", {32, 64, 56, 56}}};

constexpr const char* kChannelOperations[] = {"batch_norm", "instance_norm", "group_norm"};

// The operands of BatchNorm in training, InstanceNorm and GroupNorm with 32 groups, in one layout.
class ImageProblem {
 public:
  ImageProblem(const NamedImage& image, nk::DType dtype, bool channels_last)
      : size_{image.size[0], image.size[1], image.size[2], image.size[3]},
        strides_{size_[1] * size_[2] * size_[3], channels_last ? 1 : size_[2] * size_[3],
                 channels_last ? size_[1] * size_[3] : size_[3], channels_last ? size_[1] : 1},
        count_(size_[0] * strides_[0]),
        dtype_(dtype),
        item_(nk::size_of(dtype)),
        x_(random_array(dtype, count_, 1)),
        dy_(random_array(dtype, count_, 2)),
        weight_(random_array(dtype, size_[1], 3)),
        bias_(random_array(dtype, size_[1], 4)),
        y_(static_cast<size_t>(count_ * item_)),
        dweight_(static_cast<size_t>(size_[1] * item_)),
        dbias_(static_cast<size_t>(size_[1] * item_)) {
    shape_.rank = 4;
    shape_.size = size_;
  }

  ImageProblem(const ImageProblem&) = delete;
  ImageProblem& operator=(const ImageProblem&) = delete;

  // Runs the benchmark loop; false if the library refused.
  bool run(const std::string& operation, bool backward, benchmark::State& state) const {
    if (operation == "batch_norm") {
      return backward ? loop(state, shape_, backward_args<nk::BatchNormBackwardArgs>(),
                             NORMKIT_BENCH_ENTRY(ChannelsShape, BatchNormBackwardArgs, batch_norm_backward))
                      : loop(state, shape_, args<nk::BatchNormArgs>(),
                             NORMKIT_BENCH_ENTRY(ChannelsShape, BatchNormArgs, batch_norm));
    }
    if (operation == "instance_norm") {
      return backward
                 ? loop(state, shape_, backward_args<nk::InstanceNormBackwardArgs>(),
                        NORMKIT_BENCH_ENTRY(ChannelsShape, InstanceNormBackwardArgs, instance_norm_backward))
                 : loop(state, shape_, args<nk::InstanceNormArgs>(),
                        NORMKIT_BENCH_ENTRY(ChannelsShape, InstanceNormArgs, instance_norm));
    }
    nk::GroupNormArgs forward = args<nk::GroupNormArgs>();
    nk::GroupNormBackwardArgs gradients = backward_args<nk::GroupNormBackwardArgs>();
    forward.groups = gradients.groups = 32;
    return backward
               ? loop(state, shape_, gradients,
                      NORMKIT_BENCH_ENTRY(ChannelsShape, GroupNormBackwardArgs, group_norm_backward))
               : loop(state, shape_, forward, NORMKIT_BENCH_ENTRY(ChannelsShape, GroupNormArgs, group_norm));
  }

  // What the operation must read and write.
  int64_t bytes(bool backward) const { return item_ * ((backward ? 3 : 2) * count_ + 3 * size_[1]); }

 private:
  template <typename Args>
  Args args() const {
    Args args;
    args.x = {x_.data(), dtype_, strides_};
    args.y = {y_.data(), dtype_, strides_};
    args.weight = {weight_.data(), dtype_};
    args.bias = {bias_.data(), dtype_};
    return args;
  }

  // Without saved statistics, which are computed again: the forward's shapes of them differ.
  template <typename Args>
  Args backward_args() const {
    Args args;
    args.dy = {dy_.data(), dtype_, strides_};
    args.x = {x_.data(), dtype_, strides_};
    args.weight = {weight_.data(), dtype_};
    args.dx = {y_.data(), dtype_, strides_};
    args.dweight = {dweight_.data(), dtype_};
    args.dbias = {dbias_.data(), dtype_};
    return args;
  }

  int64_t size_[4], strides_[4];
  int64_t count_;
  nk::DType dtype_;
  int64_t item_;
  nk::ChannelsShape shape_;
  Buffer x_, dy_, weight_, bias_, y_, dweight_, dbias_;
};

void run_image(benchmark::State& state, const char* operation, bool backward, NamedDType dtype,
               NamedImage image, bool channels_last, int threads) {
  nk::set_num_threads(threads);
  const ImageProblem problem(image, dtype.dtype, channels_last);
  if (!problem.run(operation, backward, state)) {
    state.SkipWithError("the library refused the arguments");
    return;
  }
  state.SetBytesProcessed(state.iterations() * problem.bytes(backward));
}

struct CopyJob {
  char* target;
  const char* source;
  int64_t bytes;
  int64_t tasks;
};

void copy_tasks(void* argument, int64_t begin, int64_t end) {
  const CopyJob* job = static_cast<const CopyJob*>(argument);
  const int64_t first = job->bytes / job->tasks * begin;
  const int64_t last = end == job->tasks ? job->bytes : job->bytes / job->tasks * end;
  memcpy(job->target + first, job->source + first, static_cast<size_t>(last - first));
}

// memcpy that reads and writes `bytes` together, each thread its own part.
void run_memcpy(benchmark::State& state, int64_t bytes, int threads) {
  nk::set_num_threads(threads);
  const Buffer source(static_cast<size_t>(bytes / 2)), target(static_cast<size_t>(bytes / 2));
  CopyJob job{static_cast<char*>(target.data()), static_cast<const char*>(source.data()), bytes / 2, threads};
  const nk::Executor* executor = nk::default_executor();
  for (auto _ : state) {
    if (threads == 1 || executor == nullptr) {
      copy_tasks(&job, 0, threads);
    } else {
      executor->parallel_for(executor->context, threads, &copy_tasks, &job);
    }
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(state.iterations() * (bytes / 2 * 2));
}

std::string label(const NamedShape& shape, int threads) {
  return std::string(shape.name) + "_" + std::to_string(shape.rows) + "x" + std::to_string(shape.n) +
         "/threads:" + std::to_string(threads);
}

void register_images(int threads) {
  for (const NamedImage& image : kImages) {
    for (const char* operation : kChannelOperations) {
      for (const bool backward : {false, true}) {
        for (const NamedDType& dtype : kDTypes) {
          for (const bool channels_last : {false, true}) {
            std::string name = std::string(operation) + (backward ? "/backward/" : "/forward/") + dtype.name;
            name += std::string(channels_last ? "/nhwc_" : "/nchw_") + image.name;
            for (int axis = 0; axis < 4; ++axis) {
              name += (axis == 0 ? "_" : "x") + std::to_string(image.size[axis]);
            }
            name += "/threads:" + std::to_string(threads);
            benchmark::RegisterBenchmark(name.c_str(), run_image, operation, backward, dtype, image,
                                         channels_last, threads)
                ->UseRealTime();
          }
        }
      }
    }
  }
}

void register_all() {
  const int all = nk::get_num_threads();
  const std::vector<int> thread_counts = all > 1 ? std::vector<int>{1, all} : std::vector<int>{1};
  for (const int threads : thread_counts) register_images(threads);
  for (const NamedShape& shape : kShapes) {
    for (const int threads : thread_counts) {
      for (const int64_t item : {2, 4, 8}) {
        // As many bytes as a forward of this shape with elements of this size.
        const std::string name = "memcpy/" + std::to_string(item) + "_bytes/" + label(shape, threads);
        benchmark::RegisterBenchmark(name.c_str(), run_memcpy, 2 * item * shape.rows * shape.n, threads)
            ->UseRealTime();
      }
      for (const NamedOperation& operation : kOperations) {
        for (const NamedDType& dtype : kDTypes) {
          const std::string name =
              std::string(operation.name) + "/" + dtype.name + "/" + label(shape, threads);
          benchmark::RegisterBenchmark(name.c_str(), run_operation, operation, dtype, shape, threads)
              ->UseRealTime();
        }
      }
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  if (nk::isa_error() != nullptr) {
    fprintf(stderr, "%s\n", nk::isa_error());
    return 2;
  }
  benchmark::AddCustomContext("isa", nk::isa());
  register_all();
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}
