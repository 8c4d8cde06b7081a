#define NORMKIT_TABLE_ISA baseline
#define NORMKIT_TABLE_GETTER normkit_table_baseline
#include "kernels.inl"
