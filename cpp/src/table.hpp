// The entry points of one instruction set. Plain data: shared by units that are compiled for different ones.
#ifndef NORMKIT_SRC_TABLE_HPP_
#define NORMKIT_SRC_TABLE_HPP_

#include "normkit/normkit.hpp"

namespace normkit {

struct OperationTable {
#define NORMKIT_OPERATION(name, Shape, Args)                            \
  size_t (*name##_workspace_bytes)(const Shape&, const Args&) noexcept; \
  Status (*name##_plan)(const Shape&, const Args&, Workspace, Plan*) noexcept;
#include "kernel_list.inc"
#undef NORMKIT_OPERATION
};

}  // namespace normkit

// One per translation unit; null where the unit was compiled for another architecture.
extern "C" {
const normkit::OperationTable* normkit_table_baseline();
const normkit::OperationTable* normkit_table_avx2();
const normkit::OperationTable* normkit_table_avx512();
const normkit::OperationTable* normkit_table_neon();
}

#endif  // NORMKIT_SRC_TABLE_HPP_
