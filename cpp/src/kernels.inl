// Included by one small unit per instruction set, which defines NORMKIT_TABLE_GETTER and NORMKIT_TABLE_ISA:
// exports the header-only entry points, compiled with that unit's flags. Nothing else leaves the unit.
#include "table.hpp"

#if defined(NORMKIT_COMPILED)
#  error "kernels are compiled from the header-only entry points"
#endif

extern "C" const normkit::OperationTable* NORMKIT_TABLE_GETTER() {
  namespace isa =
      normkit::NORMKIT_TABLE_ISA;  // fails to compile where the flags select another instruction set
  static const normkit::OperationTable kTable = {
#define NORMKIT_OPERATION(name, Shape, Args) &isa::name##_workspace_bytes, &isa::name##_plan,
#include "kernel_list.inc"
#undef NORMKIT_OPERATION
  };
  return &kTable;
}
