// Memory of the arrays that normkit makes to return.
//
// A large fresh array costs more in page faults than its numbers cost: the C library hands its memory back to
// the system with every free. So large outputs lie on huge pages, and what the last arrays left behind is
// kept for the next ones, up to a limit. Kept memory is marked as free for the taking (MADV_FREE): when the
// system runs short, it takes the pages without asking. Its addresses stay taken, which counts where they are
// limited (RLIMIT_AS); an allocation of ours that fails drops what is kept, and is tried again.
//
// Memory is handed out again only after the last reference to its array, and to every view of it, is gone.
// All functions may be called from any thread, without the GIL, and after a fork.
#ifndef NORMKIT_PYTHON_MEMORY_HPP_
#define NORMKIT_PYTHON_MEMORY_HPP_

#include <cstddef>
#include <cstdint>

namespace normkit::python {

// Outputs of fewer bytes come from malloc.
constexpr size_t kPooledBytes = size_t{16} << 20;

// `bytes` of memory, aligned to 64 bytes (JAX copies what is less aligned), or null. `front` bytes lie before
// it, for its description.
void* allocate_output(size_t bytes, size_t front = 0);
void release_output(void* data);
// Like realloc, for memory without a front; `data` may be null.
void* resize_output(void* data, size_t bytes);
// Where the `front` bytes begin, aligned to 64 bytes.
void* front_of(void* data, size_t front);

constexpr int64_t kLargestPoolMib = int64_t{1} << 40;  // no machine has as much

// Bytes kept at most for later outputs; 0: large outputs are ordinary memory too.
size_t output_pool_limit();
void set_output_pool_limit(size_t bytes);
// Gives everything that is kept back to the system; whether there was anything.
bool drop_kept_outputs();
// Bytes kept now.
size_t output_pool_kept();

// Reads NORMKIT_OUTPUT_POOL, in MiB. Null, or what is wrong with it.
const char* read_output_pool_variable();

}  // namespace normkit::python

#endif  // NORMKIT_PYTHON_MEMORY_HPP_
