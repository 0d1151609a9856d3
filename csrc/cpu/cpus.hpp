// How many CPUs this process may use, and how many threads the core starts with.
#pragma once

#include <string>

namespace rledit::cpu {

// The CPUs that a control group's quota is worth, rounded up, or 0 without a limit. A group is bound by the
// groups above it, too, so the smallest along the path counts. Both versions of the hierarchy are read.
//   membership: /proc/self/cgroup;  root: /sys/fs/cgroup
int quota_cpus(const std::string& membership, const std::string& root);

// The smaller of the affinity mask and the quota; at least 1.
int usable_cpus();

// RLEDIT_NUM_THREADS, which throws std::invalid_argument unless it is a number of 1..kMostThreads; else
// OMP_NUM_THREADS, whose owner is not ours to correct: of a list the first number, which is the outermost
// level's, and whatever is not a positive number is passed over; else usable_cpus().
int default_threads();

constexpr int kMostThreads = 1024;

}  // namespace rledit::cpu
