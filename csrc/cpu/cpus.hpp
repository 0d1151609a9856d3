// How many CPUs this process may use.
#pragma once

#include <string>

namespace rledit::cpu {

// The CPUs that a control group's quota is worth, rounded up, or 0 without a limit. A group is bound by the
// groups above it, too, so the smallest along the path counts. Both versions of the hierarchy are read.
//   membership: /proc/self/cgroup;  root: /sys/fs/cgroup
int quota_cpus(const std::string& membership, const std::string& root);

// The smaller of the affinity mask and the quota; at least 1.
int usable_cpus();

}  // namespace rledit::cpu
