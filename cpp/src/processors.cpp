#include "processors.hpp"

#include <limits.h>
#include <stdio.h>
#include <string.h>

#if defined(__linux__)
#  include <sched.h>
#endif
#include <thread>

#if defined(_OPENMP)
#  include <omp.h>
#endif

namespace normkit {
namespace {

#if defined(_OPENMP) && _OPENMP >= 201511
// OMP_PROC_BIND, OMP_PLACES: the runtime may have bound the thread that asks to one of its places, so that
// the thread's mask says nothing of the others. 0: there are no places.
int processors_of_places() {
  constexpr int kMost = 1024;
  const int places = omp_get_num_places();
  unsigned long long seen[kMost / 64] = {};
  int ids[kMost], count = 0;
  for (int place = 0; place < places; ++place) {
    const int size = omp_get_place_num_procs(place);
    if (size < 0 || size > kMost) return 0;
    omp_get_place_proc_ids(place, ids);
    for (int i = 0; i < size; ++i) {  // places may share processors
      if (ids[i] < 0 || ids[i] >= kMost) return 0;
      const unsigned long long bit = 1ull << (ids[i] % 64);
      count += (seen[ids[i] / 64] & bit) == 0;
      seen[ids[i] / 64] |= bit;
    }
  }
  return count;
}
#endif

#if defined(__linux__)

constexpr size_t kPath = 1024;  // longer lines are no group's

// The smaller of two quotas, where 0 is none.
int smaller(int a, int b) {
  return a == 0 || (b != 0 && b < a) ? b : a;
}

int processors_of(long long quota, long long period) {
  if (quota <= 0 || period <= 0) return 0;
  const long long whole = quota / period + (quota % period != 0);
  return whole < INT_MAX ? static_cast<int>(whole) : INT_MAX;
}

// Numbers that a file in `folder` begins with; returns how many there were, at most 2.
int read_numbers(const char* folder, const char* name, long long* first, long long* second) {
  char path[2 * kPath];
  if (snprintf(path, sizeof(path), "%s/%s", folder, name) >= static_cast<int>(sizeof(path))) return 0;
  FILE* const file = fopen(path, "re");
  if (file == nullptr) return 0;
  const int count = fscanf(file, "%lld %lld", first, second);
  fclose(file);
  return count;
}

// "max" is no number, and -1 no quota.
int quota_of_folder(const char* folder, bool unified) {
  long long quota = 0, period = 0, unused = 0;
  if (unified)
    return read_numbers(folder, "cpu.max", &quota, &period) == 2 ? processors_of(quota, period) : 0;
  return read_numbers(folder, "cpu.cfs_quota_us", &quota, &unused) >= 1 &&
                 read_numbers(folder, "cpu.cfs_period_us", &period, &unused) >= 1
             ? processors_of(quota, period)
             : 0;
}

// Whether `word` is one of the words that commas separate.
bool lists(const char* words, const char* word) {
  const size_t length = strlen(word);
  for (const char* at = words; *at != '\0';) {
    const size_t here = strcspn(at, ",");
    if (here == length && strncmp(at, word, length) == 0) return true;
    at += here + (at[here] == ',');
  }
  return false;
}

// mountinfo writes spaces, tabs, newlines and backslashes of paths as \ and three octal digits.
void unescape(char* text) {
  char* to = text;
  for (const char* from = text; *from != '\0';) {
    unsigned code = 0;
    if (from[0] == '\\' && sscanf(from + 1, "%3o", &code) == 1 && strlen(from) >= 4) {
      *to++ = static_cast<char>(code);
      from += 4;
    } else {
      *to++ = *from++;
    }
  }
  *to = '\0';
}

// The process's control group: a line "7:cpu,cpuacct:/path", or "0::/path" of version 2. False: it has none.
bool find_group(const char* root, bool unified, char* group) {
  char line[kPath];
  snprintf(line, sizeof(line), "%s/proc/self/cgroup", root);
  FILE* const file = fopen(line, "re");
  if (file == nullptr) return false;
  bool found = false;
  while (!found && fgets(line, sizeof(line), file) != nullptr) {
    line[strcspn(line, "\n")] = '\0';
    char* const words = strchr(line, ':');
    char* const path = words != nullptr ? strchr(words + 1, ':') : nullptr;
    if (path == nullptr) continue;
    *path = '\0';
    found = unified ? words[1] == '\0' : lists(words + 1, "cpu");
    if (found) snprintf(group, kPath, "%s", path + 1);
  }
  fclose(file);
  return found;
}

// A mount of one hierarchy: a line "36 35 0:30 <mounted> <point> rw,relatime shared:1 - cgroup cgroup
// rw,cpu,cpuacct", where `mounted` is the group that lies at `point`.
bool is_mount(char* line, bool unified, char** mounted, char** point) {
  char* const dash = strstr(line, " - ");
  if (dash == nullptr) return false;
  char type[32], options[kPath];
  const int read = sscanf(dash + 3, "%31s %*s %1023s", type, options);
  if (read < 1 || strcmp(type, unified ? "cgroup2" : "cgroup") != 0) return false;
  if (!unified && (read < 2 || !lists(options, "cpu"))) return false;
  *dash = '\0';
  char* rest = line;
  char* fields[5] = {};
  for (char*& field : fields) field = strtok_r(rest, " ", &rest);
  if (fields[4] == nullptr) return false;
  *mounted = fields[3];
  *point = fields[4];
  unescape(*mounted);
  unescape(*point);
  return true;
}

// The part of `group` below `mounted`; "" where it does not lie there, or cannot be seen (a group namespace
// shows what is outside of it as "/..").
const char* below(const char* group, const char* mounted) {
  const size_t length = strcmp(mounted, "/") == 0 ? 0 : strlen(mounted);
  if (strncmp(group, mounted, length) != 0 || (group[length] != '/' && group[length] != '\0')) return "";
  return strstr(group + length, "/..") == nullptr ? group + length : "";
}

int quota_of_hierarchy(const char* root, bool unified) {
  char group[kPath], line[kPath], folder[2 * kPath];
  if (!find_group(root, unified, group)) return 0;
  snprintf(line, sizeof(line), "%s/proc/self/mountinfo", root);
  FILE* const file = fopen(line, "re");
  if (file == nullptr) return 0;
  int quota = 0;
  while (fgets(line, sizeof(line), file) != nullptr) {
    char *mounted, *point;
    line[strcspn(line, "\n")] = '\0';
    if (!is_mount(line, unified, &mounted, &point)) continue;
    const int top = snprintf(folder, sizeof(folder), "%s%s", root, point);
    const int whole = snprintf(folder, sizeof(folder), "%s%s%s", root, point, below(group, mounted));
    if (top < 0 || whole < top || whole >= static_cast<int>(sizeof(folder))) continue;
    // From the process's own group to the outermost that is mounted: each may have a quota.
    for (;;) {
      quota = smaller(quota, quota_of_folder(folder, unified));
      char* const slash = strrchr(folder, '/');
      if (slash == nullptr || slash < folder + top) break;
      *slash = '\0';
    }
  }
  fclose(file);
  return quota;
}

#endif

}  // namespace

int usable_processors() noexcept {
  int count = 0;
#if defined(_OPENMP) && _OPENMP >= 201511
  count = processors_of_places();
#endif
#if defined(__linux__)
  cpu_set_t set;
  CPU_ZERO(&set);
  if (count == 0 && sched_getaffinity(0, sizeof(set), &set) == 0) count = CPU_COUNT(&set);
#endif
  if (count == 0) count = static_cast<int>(std::thread::hardware_concurrency());
  return count > 0 ? count : 1;
}

int processor_quota(const char* root) noexcept {
#if defined(__linux__)
  int quota = smaller(quota_of_hierarchy(root, true), quota_of_hierarchy(root, false));
  // Without /proc: what containers see of their own group.
  static constexpr const char* kUsual[] = {"cpu", "cpu,cpuacct", ""};
  for (const char* const name : kUsual) {
    char folder[kPath];
    if (snprintf(folder, sizeof(folder), "%s/sys/fs/cgroup/%s", root, name) <
        static_cast<int>(sizeof(folder)))
      quota = smaller(quota, quota_of_folder(folder, name[0] == '\0'));
  }
  return quota;
#else
  (void)root;
  return 0;
#endif
}

}  // namespace normkit
