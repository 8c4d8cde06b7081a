#define NORMKIT_TABLE_ISA neon
#define NORMKIT_TABLE_GETTER normkit_table_neon
#include "kernels.inl"
