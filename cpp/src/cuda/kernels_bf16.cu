#define NORMKIT_ISA device_bf16
#define NORMKIT_CUDA_TYPE BFloat16
#define NORMKIT_CUDA_RUN run_plan_bf16
#include "kernels.inl"
