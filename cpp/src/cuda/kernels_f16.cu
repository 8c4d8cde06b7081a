#define NORMKIT_ISA device_f16
#define NORMKIT_CUDA_TYPE Float16
#define NORMKIT_CUDA_RUN run_plan_f16
#include "kernels.inl"
