#define NORMKIT_ISA device_f64
#define NORMKIT_CUDA_TYPE double
#define NORMKIT_CUDA_RUN run_plan_f64
#include "kernels.inl"
