#define NORMKIT_ISA device_f32
#define NORMKIT_CUDA_TYPE float
#define NORMKIT_CUDA_RUN run_plan_f32
#include "kernels.inl"
