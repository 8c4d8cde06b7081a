/* C interface of the compiled library (link normkit::normkit). Arguments as in the C++ headers, whose
 * comments say what each operation computes and requires; strides are in elements, NULL means C-contiguous; a
 * view without data is absent. Work runs on the library's threads, a team for each thread that calls: a
 * program with threads of its own sets their number to 1. A call needs 128 KiB of stack. Returns 0, or a
 * normkit::Status that normkit_status_message explains; then nothing was written. */
#ifndef NORMKIT_C_API_H_
#define NORMKIT_C_API_H_

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define NORMKIT_API __attribute__((visibility("default")))

enum { NORMKIT_F32 = 0, NORMKIT_F64 = 1, NORMKIT_F16 = 2, NORMKIT_BF16 = 3 };

typedef struct normkit_view {
  void* data; /* inputs are not written */
  int32_t dtype;
  const int64_t* strides;
} normkit_view;

/* size: `outer` axes that enumerate the rows, then `inner` axes that are normalized together. */
typedef struct normkit_rows_shape {
  int32_t outer, inner;
  const int64_t* size;
} normkit_rows_shape;

typedef struct normkit_rows_forward {
  normkit_view x, y, weight, bias, mean, rstd; /* rms_norm ignores mean */
  double eps;
  double weight_offset; /* rms_norm only */
} normkit_rows_forward;

typedef struct normkit_rows_backward {
  normkit_view dy, x, weight, mean, rstd, dx, dweight, dbias; /* rms_norm ignores mean */
  double eps;
  double weight_offset; /* rms_norm only */
  int32_t accumulate;
} normkit_rows_backward;

NORMKIT_API int32_t normkit_layer_norm(const normkit_rows_shape* shape, const normkit_rows_forward* args);
NORMKIT_API int32_t normkit_rms_norm(const normkit_rows_shape* shape, const normkit_rows_forward* args);

/* workspace: at least normkit_..._workspace_bytes, any alignment. */
NORMKIT_API size_t normkit_layer_norm_backward_workspace_bytes(const normkit_rows_shape* shape,
                                                               const normkit_rows_backward* args);
NORMKIT_API size_t normkit_rms_norm_backward_workspace_bytes(const normkit_rows_shape* shape,
                                                             const normkit_rows_backward* args);
NORMKIT_API int32_t normkit_layer_norm_backward(const normkit_rows_shape* shape,
                                                const normkit_rows_backward* args, void* workspace,
                                                size_t workspace_bytes);
NORMKIT_API int32_t normkit_rms_norm_backward(const normkit_rows_shape* shape,
                                              const normkit_rows_backward* args, void* workspace,
                                              size_t workspace_bytes);

NORMKIT_API const char* normkit_status_message(int32_t status);
NORMKIT_API const char* normkit_isa(void);
NORMKIT_API int32_t normkit_get_num_threads(void);
NORMKIT_API void normkit_set_num_threads(int32_t threads);

#ifdef __cplusplus
}
#endif

#endif /* NORMKIT_C_API_H_ */
