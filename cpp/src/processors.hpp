// How many processors this process may use: what default_executor()'s threads begin with.
#ifndef NORMKIT_SRC_PROCESSORS_HPP_
#define NORMKIT_SRC_PROCESSORS_HPP_

#include "normkit/detail/config.hpp"

namespace normkit {

// Processors that the process may run on: its affinity mask, or the places that OpenMP has made of it. At
// least 1.
NORMKIT_EXPORT int usable_processors() noexcept;

// Processors that the quotas of the process's control groups (containers) come to, rounded up: of both
// versions of the interface, of the process's own group and of all groups around it. 0: there is no quota.
// /proc and /sys lie in the folder `root`.
NORMKIT_EXPORT int processor_quota(const char* root = "") noexcept;

}  // namespace normkit

#endif  // NORMKIT_SRC_PROCESSORS_HPP_
