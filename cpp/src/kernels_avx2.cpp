#define NORMKIT_TABLE_ISA avx2
#define NORMKIT_TABLE_GETTER normkit_table_avx2
#include "kernels.inl"
