// The extension module normkit._ext.
#include <climits>
#include <stdexcept>

#include "array.hpp"
#include "memory.hpp"
#include "normkit/normkit.hpp"
#include "ops.hpp"
#include "output.hpp"
#include "processors.hpp"
#include "signature.hpp"

#define NORMKIT_TEXT_(x) #x
#define NORMKIT_TEXT(x) NORMKIT_TEXT_(x)

namespace normkit::python {
namespace {

constexpr const char* kVersion = NORMKIT_TEXT(NORMKIT_VERSION_MAJOR) "." NORMKIT_TEXT(
    NORMKIT_VERSION_MINOR) "." NORMKIT_TEXT(NORMKIT_VERSION_PATCH);

#if defined(__clang__)
constexpr const char* kCompiler = "clang " __clang_version__;
#elif defined(__GNUC__)
constexpr const char* kCompiler = "gcc " __VERSION__;
#elif defined(_MSC_VER)
constexpr const char* kCompiler = "msvc " NORMKIT_TEXT(_MSC_VER);
#else
constexpr const char* kCompiler = "unknown";
#endif

// An integer from `lowest` to `highest`; `what` says of what.
int64_t integer_between(PyObject* n, const char* name, int64_t lowest, int64_t highest, const char* what) {
  const nb::object index = nb::steal(PyBool_Check(n) ? nullptr : PyNumber_Index(n));
  if (!index.is_valid()) {
    PyErr_Clear();
    raise(PyExc_TypeError, "%s is %R; it should be an integer", name, n);
  }
  int overflow = 0;
  const long long value = PyLong_AsLongLongAndOverflow(index.ptr(), &overflow);
  if (overflow != 0 || value < lowest || value > highest)
    raise(PyExc_ValueError, "%s is %R; it should be %s from %lld to %lld", name, n, what,
          static_cast<long long>(lowest), static_cast<long long>(highest));
  return value;
}

PyObject* set_threads(PyObject* const* slots) {
  set_num_threads(static_cast<int>(integer_between(slots[0], "n", 1, INT_MAX, "a number of threads")));
  Py_RETURN_NONE;
}

PyObject* set_output_pool(PyObject* const* slots) {
  const int64_t mib = integer_between(slots[0], "mib", 0, kLargestPoolMib, "a number of MiB");
  set_output_pool_limit(static_cast<size_t>(mib) << 20);
  Py_RETURN_NONE;
}

PyObject* get_output_pool(PyObject* const*) {
  return PyLong_FromSize_t(output_pool_limit() >> 20);
}

PyObject* output_pool_kept_bytes(PyObject* const*) {
  return PyLong_FromSize_t(output_pool_kept());
}

PyObject* get_threads(PyObject* const*) {
  return PyLong_FromLong(get_num_threads());
}

PyObject* usable_processors_value(PyObject* const*) {
  return PyLong_FromLong(usable_processors());
}

PyObject* processor_quota_value(PyObject* const* slots) {
  const char* const root = slots[0] != nullptr ? PyUnicode_AsUTF8(slots[0]) : "";
  if (root == nullptr) nb::raise_python_error();
  return PyLong_FromLong(processor_quota(root));
}

PyObject* isa_name(PyObject* const*) {
  return PyUnicode_FromString(isa());
}

PyObject* isa_names(PyObject* const*) {
  return PyUnicode_FromString(isa_available());
}

PyObject* stream_bytes_value(PyObject* const*) {
  return PyLong_FromLongLong(stream_bytes());
}

PyObject* share_memory(PyObject* const* slots) {
  // The place of each: they need not be on one device.
  Place places[] = {Place(Kernels::kHostAndCuda), Place(Kernels::kHostAndCuda)};
  Array a, b;
  a.place = &places[0];
  b.place = &places[1];
  a.read(slots[0], "a", Access::kRead);
  b.read(slots[1], "b", Access::kRead);
  return PyBool_FromLong(places[0].device() == places[1].device() && extent_of(a).overlaps(extent_of(b)));
}

PyObject* flag_of(PyObject* const* slots) {
  const char* name = PyUnicode_AsUTF8(slots[1]);
  if (name == nullptr) nb::raise_python_error();
  return PyBool_FromLong(flag_argument(slots[0], name, false));
}

PyObject* shape_of(PyObject* const* slots) {
  Place place(Kernels::kHostAndCuda);
  Array x;
  x.place = &place;
  x.read(slots[0], "x", Access::kRead);
  return shape_tuple(x.sizes, x.ndim).release().ptr();
}

}  // namespace
}  // namespace normkit::python

NB_MODULE(_ext, m) {
  using namespace normkit::python;
  // nanobind makes this the ImportError's own message; a Python error would only become its cause.
  if (const char* error = normkit::isa_error()) throw std::runtime_error(error);
  if (const char* error = normkit::num_threads_error()) throw std::runtime_error(error);
  if (const char* error = read_output_pool_variable()) throw std::runtime_error(error);
  import_numpy();
  m.doc() = "normkit's compiled half; use the names of the package normkit.";
  m.attr("__version__") = kVersion;
  m.attr("_compiler") = kCompiler;

  add_buffer_type(m);
  add_rows_operations(m.ptr());
  add_add_norm_operations(m.ptr());
  add_channels_operations(m.ptr());
  add_sets_operations(m.ptr());
  add_moments_operations(m.ptr());
  add_window_operations(m.ptr());
  add_map_operations(m.ptr());
  add_fold_operations(m.ptr());
  add_cuda_functions(m.ptr());
  Function<share_memory, Work::kLookUp>::add(m.ptr(), "_may_share_memory(a, b)",
                                             "Whether the memory ranges of two arrays overlap.");

  Function<flag_of, Work::kLookUp>::add(m.ptr(), "_flag(value, name)",
                                        "A flag as a bool; TypeError where it is none.");
  Function<shape_of, Work::kLookUp>::add(m.ptr(), "_shape(x)", "The shape of an array of any kind.");
  Function<isa_name, Work::kLookUp>::add(
      m.ptr(), "isa()",
      "Name of the instruction set in use: 'baseline', 'avx2', 'avx512' or 'neon'.\n\n"
      "The environment variable NORMKIT_ISA chooses another one; results are the same "
      "bits with all of them.");
  Function<isa_names, Work::kLookUp>::add(
      m.ptr(), "_isa_available()",
      "Instruction sets compiled in that this processor has, separated by spaces.");
  Function<get_threads, Work::kLookUp>::add(
      m.ptr(), "get_num_threads()",
      "Number of threads that a call may use.\n\n"
      "At first NORMKIT_NUM_THREADS (a number up to 1024), else OMP_NUM_THREADS, else "
      "the processors that this process may use: its affinity and the quota of its\n"
      "control groups.");
  Function<set_threads, Work::kLookUp>::add(
      m.ptr(), "set_num_threads(n)",
      "Set the number of threads that a call may use, in the whole process; more than 1024 are 1024.\n\n"
      "Results never depend on it. A forked child uses one thread if its parent had several, whoever\n"
      "had started them: OpenMP's do not survive a fork.");
  Function<usable_processors_value, Work::kLookUp>::add(
      m.ptr(), "_usable_processors()",
      "Processors that this process may run on, by its affinity or OpenMP's.");
  Function<processor_quota_value, Work::kLookUp>::add(
      m.ptr(), "_processor_quota(root='')",
      "Processors that the quotas of this process's control groups come to; 0: no quota. /proc and /sys lie\n"
      "in the folder `root`.");
  Function<get_output_pool, Work::kLookUp>::add(
      m.ptr(), "get_output_pool()",
      "How much memory of earlier results is kept for later ones at most, in MiB; 0: the pool is off.\n\n"
      "At first NORMKIT_OUTPUT_POOL, else 256.");
  Function<set_output_pool, Work::kLookUp>::add(
      m.ptr(), "set_output_pool(mib)",
      "Set how much memory of earlier results is kept for later ones at most, in MiB; 0 turns the pool "
      "off.\n\n"
      "Fresh results of 16 MiB and more lie on huge pages, which are kept when the result and its views are "
      "gone; the system may take kept pages back when it runs short. Turned off, large results are ordinary "
      "memory, and each costs its page faults anew. What is kept beyond the new limit is freed at once.");
  Function<stream_bytes_value, Work::kLookUp>::add(
      m.ptr(), "_stream_bytes()", "Outputs of at least this many bytes are written past the caches.");
  Function<output_pool_kept_bytes, Work::kLookUp>::add(m.ptr(), "_output_pool_kept()",
                                                       "Bytes that the output pool keeps now.");
}
