#define NORMKIT_TABLE_ISA avx512
#define NORMKIT_TABLE_GETTER normkit_table_avx512
#include "kernels.inl"
