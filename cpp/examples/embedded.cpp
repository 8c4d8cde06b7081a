// An embedded runtime: static memory only, no executor, work in slices of its own choosing.
//
// A Plan is a validated call: up to three phases of independent tasks, a plain struct that may lie anywhere.
// The caller runs the tasks when it has time for them; here one at a time, as a cooperative scheduler would
// between two interrupts. Compiles with -fno-exceptions -fno-rtti.
#include <normkit/normkit.hpp>

#include <stdio.h>

namespace {

constexpr int64_t kRows = 200, kColumns = 48;
float x[kRows * kColumns], dy[kRows * kColumns], dx[kRows * kColumns];
float weight[kColumns], dweight[kColumns], dbias[kColumns];
alignas(64) unsigned char scratch[64 * 1024];
normkit::Plan plan;

// Runs one task of the plan; false when there is none left.
struct Progress {
  int phase = 0;
  int64_t task = 0;

  bool step() {
    while (phase < plan.phase_count && task == plan.phases[phase].tasks) {
      ++phase;  // a phase may start when all tasks of the one before are done
      task = 0;
    }
    if (phase == plan.phase_count) return false;
    plan.run(phase, task, task + 1);
    ++task;
    return true;
  }
};

}  // namespace

int main() {
  for (int64_t i = 0; i < kRows * kColumns; ++i) {
    x[i] = static_cast<float>(i * 37 % 101) * 0.125f;
    dy[i] = 1.0f;
  }
  for (float& w : weight) w = 1.0f;

  const int64_t size[] = {kRows, kColumns};
  const normkit::RowsShape shape{1, 1, size};
  normkit::LayerNormBackwardArgs args;
  args.x = x;
  args.dy = dy;
  args.weight = weight;
  args.dx = dx;
  args.dweight = dweight;
  args.dbias = dbias;
  if (normkit::layer_norm_backward_workspace_bytes(shape, args) > sizeof(scratch)) return 1;
  const normkit::Status status =
      normkit::layer_norm_backward_plan(shape, args, {scratch, sizeof(scratch)}, &plan);
  if (status != normkit::Status::kOk) {
    printf("%s\n", normkit::status_message(status));
    return 1;
  }

  int slices = 0;
  for (Progress progress; progress.step();) ++slices;  // the main loop of the runtime

  // dbias sums dy over the rows; a dy that is the same everywhere is orthogonal to what LayerNorm can
  // produce.
  bool right = slices > 0;
  for (float v : dbias) right = right && v == static_cast<float>(kRows);
  for (float v : dx) right = right && v < 1e-5f && v > -1e-5f;
  printf("%d slices, dbias %g: %s\n", slices, static_cast<double>(dbias[0]), right ? "right" : "wrong");
  return right ? 0 : 1;
}
