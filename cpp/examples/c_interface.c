/* The compiled library from C: RMSNorm of float16 rows in place, and what an error looks like. */
#include <normkit/c_api.h>

#include <math.h>
#include <stdio.h>

int main(void) {
  uint16_t x[2][3] = {{0x3C00, 0x3C00, 0x3C00}, {0x4000, 0xC000, 0x4000}}; /* 1 1 1, 2 -2 2 in float16 */
  double rstd[2];
  const int64_t size[] = {2, 3};
  const normkit_rows_shape shape = {1, 1, size};
  normkit_rows_forward args = {0};
  int32_t status;

  args.x.data = args.y.data = x;
  args.x.dtype = args.y.dtype = NORMKIT_F16;
  args.rstd.data = rstd;
  args.rstd.dtype = NORMKIT_F64;
  status = normkit_rms_norm(&shape, &args);
  printf("%s on %d threads: %04x %04x %04x, rstd %g %g: %s\n", normkit_isa(), (int)normkit_get_num_threads(),
         (unsigned)x[1][0], (unsigned)x[1][1], (unsigned)x[1][2], rstd[0], rstd[1],
         normkit_status_message(status));
  if (status != 0 || x[1][0] != 0x3C00 || x[1][1] != 0xBC00 || rstd[1] != 0.5) return 1;

  args.eps = NAN;
  status = normkit_rms_norm(&shape, &args);
  printf("eps = NaN: %s\n", normkit_status_message(status));
  return status != 0 ? 0 : 1;
}
