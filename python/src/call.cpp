#include "call.hpp"

#include <new>

#include "cuda_backend.hpp"

namespace normkit::python {
namespace {

bool same_view(const Array& a, const Array& b) {
  if (a.data != b.data || a.ndim != b.ndim || a.dtype != b.dtype) return false;
  for (int32_t i = 0; i < a.ndim; ++i) {
    if (a.sizes[i] != b.sizes[i] || (a.sizes[i] > 1 && a.strides[i] != b.strides[i])) return false;
  }
  return true;
}

}  // namespace

Operand& Call::add() {
  if (used_ == kMaxOperands) raise(PyExc_SystemError, "an operation has too many operands");
  Operand& added = *new (&operand(used_++)) Operand();
  added.array.place = &place_;
  return added;
}

void Call::run_accepted(const Plan& plan) {
  try {
    on_device() ? run_on_device(plan) : run_plan(plan);
  } catch (...) {
    count_writes();  // Ctrl-C leaves arrays partly written
    throw;
  }
  count_writes();
}

void Call::count_writes() const {
  for (int i = 0; i < used_; ++i) {
    const Operand& written = operand(i);
    if (written.used && written.array.kind == Kind::kTorch) count_torch_write(written.array.object);
  }
}

void Call::run_on_device(const Plan& plan) {
  const size_t bytes = cuda_backend::workspace_bytes(plan);
  const int64_t count = static_cast<int64_t>(bytes + sizeof(double) - 1) / int64_t{sizeof(double)};
  // It goes back to its library before the kernels have run. That is safe: allocators of streams lend memory
  // again only on the stream that it was lent on, so that its next use comes behind these kernels, and
  // cudaFree waits for the device.
  Operand workspace;
  workspace.array.place = &place_;
  if (bytes > 0) workspace.make_on_device("the workspace", DType::kF64, &count, 1);
  const Status status = enqueue_plan(plan, {workspace.array.data, bytes}, place_.stream());
  if (status != Status::kOk) fail(status);
  // Another library may lend its array's memory again, or read what was written, on streams of its own.
  if (place_.has_guests() && !cuda_backend::synchronize(place_.stream())) fail(Status::kDeviceError);
}

void Call::fail_overlap() const {
  for (int i = 0; i < used_; ++i) {
    const Operand& out = operand(i);
    if (!out.output || out.array.count == 0) continue;
    for (int j = 0; j < used_; ++j) {
      const Operand& other = operand(j);
      if (j == i || !other.array.present() || !extent_of(out.array).overlaps(extent_of(other.array)))
        continue;
      const bool may_be_same = out.in_place && other.in_place && !other.output;
      if (may_be_same && same_view(out.array, other.array)) continue;
      raise(PyExc_ValueError, "%s shares memory with %s; it should be %s", out.array.name, other.array.name,
            may_be_same ? "the very same view of it or separate memory" : "separate memory");
    }
  }
  for (int i = 0; i < used_; ++i) {
    const Operand& out = operand(i);
    // The caller's arrays alone can have odd strides.
    if (out.output && out.array.count > 1 && !out.array.is_c_contiguous())
      raise(PyExc_ValueError,
            "%s overlaps itself: its strides make elements share memory; it should be an array whose "
            "elements are all distinct",
            out.array.name);
  }
  raise(PyExc_ValueError, "%s", status_message(Status::kOverlap));
}

void Call::check_aligned() const {
  for (int i = 0; i < used_; ++i) {
    const Array& array = operand(i).array;
    const uintptr_t item = static_cast<uintptr_t>(size_of(array.dtype));
    if (array.present() && reinterpret_cast<uintptr_t>(array.data) % item != 0)
      raise(PyExc_ValueError,
            "%s lies at an address that is not a multiple of its item size, %d bytes; it should be "
            "aligned (a copy is)",
            array.name, static_cast<int>(item));
  }
}

void Call::fail(Status status) const {
  if (status == Status::kOverlap) fail_overlap();
  if (status == Status::kMisaligned) check_aligned();
  if (status == Status::kUnsupported) Place::raise_no_kernels(operand(0).array, place_.device());
  if (status == Status::kDeviceError)
    raise(PyExc_RuntimeError, "CUDA device %d refused to start a kernel: %s",
          static_cast<int>(place_.device()), cuda_backend::last_error());
  if (status == Status::kTooManyAxes) {
    const Array& x = operand(0).array;
    raise(
        PyExc_ValueError,
        "too many axes for a device: neighbouring axes that run through memory in one stride are merged, and "
        "for x of shape %U and the arrays that go with it more than %d are left; they should be laid out so "
        "that more axes merge (a contiguous copy does)",
        shape_text(x).ptr(), kMaxAxes);
  }
  raise(PyExc_ValueError, "%s", status_message(status));
}

PyObject* result_tuple(const Array& x, Operand* const* operands, int count) {
  nb::object tuple = nb::steal(PyTuple_New(count));
  if (!tuple.is_valid()) nb::raise_python_error();
  for (int i = 0; i < count; ++i) {
    nb::object result = operands[i] != nullptr ? operands[i]->finish(x) : nb::borrow(Py_None);
    PyTuple_SET_ITEM(tuple.ptr(), i, result.release().ptr());
  }
  return tuple.release().ptr();
}

}  // namespace normkit::python
