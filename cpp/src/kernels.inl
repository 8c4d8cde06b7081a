// Included by one small unit per instruction set, which defines NORMKIT_TABLE_GETTER and NORMKIT_TABLE_ISA:
// exports the header-only entry points, compiled with that unit's flags. Nothing else leaves the unit: its
// functions have names that no user's unit has, since the linker keeps one of each name.
#define NORMKIT_LIBRARY_UNIT
#include "table.hpp"

#if defined(NORMKIT_COMPILED)
#  error "kernels are compiled from the header-only entry points"
#endif

// Fails to compile where the flags select another instruction set.
namespace wanted {
namespace NORMKIT_ISA_KIND {}
}  // namespace wanted
using namespace wanted::NORMKIT_TABLE_ISA;

extern "C" const normkit::OperationTable* NORMKIT_TABLE_GETTER() {
  namespace isa = normkit::NORMKIT_ISA;
  static const normkit::OperationTable kTable = {
#define NORMKIT_OPERATION(name, Shape, Args) &isa::name##_workspace_bytes, &isa::name##_plan,
#include "kernel_list.inc"
#undef NORMKIT_OPERATION
  };
  return &kTable;
}
