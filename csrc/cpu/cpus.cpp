#include "cpus.hpp"

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <thread>

#ifdef __linux__
#include <sched.h>
#endif

namespace rledit::cpu {
namespace {

// quota microseconds of CPU time in each period, as CPUs; 0 where there is no limit or no such file.
int as_cpus(double quota, double period) {
  if (!(quota > 0.0) || !(period > 0.0)) return 0;
  const double cpus = quota / period;
  return cpus >= 4096.0 ? 0 : std::max(1, static_cast<int>(cpus + 0.999));
}

double number_in(const std::string& path) {
  double value = 0.0;
  std::ifstream(path) >> value;
  return value;
}

// cgroup v2: "max 100000" or "150000 100000"
int limit_v2(const std::string& folder) {
  std::ifstream file(folder + "/cpu.max");
  double quota = 0.0, period = 0.0;
  return file >> quota >> period ? as_cpus(quota, period) : 0;
}

int limit_v1(const std::string& folder) {
  return as_cpus(number_in(folder + "/cpu.cfs_quota_us"), number_in(folder + "/cpu.cfs_period_us"));
}

template <typename Limit>
int smallest_up(const std::string& root, std::string group, const Limit& limit) {
  int smallest = 0;
  while (true) {
    const int found = limit(root + group);
    if (found > 0 && (smallest == 0 || found < smallest)) smallest = found;
    const size_t slash = group.rfind('/');
    if (slash == std::string::npos || group.empty()) return smallest;
    group.erase(slash);
  }
}

bool lists(const std::string& controllers, const std::string& wanted) {
  std::istringstream parts(controllers);
  for (std::string part; std::getline(parts, part, ',');)
    if (part == wanted) return true;
  return false;
}

// A number of nothing but digits, spaces around it aside; at most one more than kMostThreads, however large. 0
// for anything else.
int positive_number(const std::string& text) {
  const size_t first = text.find_first_not_of(" \t");
  if (first == std::string::npos) return 0;
  const size_t last = text.find_last_not_of(" \t");
  int number = 0;
  for (size_t i = first; i <= last; ++i) {
    if (text[i] < '0' || text[i] > '9') return 0;
    number = std::min(10 * number + (text[i] - '0'), kMostThreads + 1);
  }
  return number;
}

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr ? value : "";
}

}  // namespace

int quota_cpus(const std::string& membership, const std::string& root) {
  int smallest = 0;
  const auto take = [&](int found) {
    if (found > 0 && (smallest == 0 || found < smallest)) smallest = found;
  };
  std::ifstream file(membership);
  // hierarchy:controllers:path; v2 has number 0 and no controllers
  for (std::string line; std::getline(file, line);) {
    const size_t first = line.find(':');
    const size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    std::string group = line.substr(second + 1);
    if (group == "/") group.clear();
    if (controllers.empty())
      take(smallest_up(root, group, limit_v2));
    else if (lists(controllers, "cpu"))
      for (const char* mount : {"/cpu", "/cpu,cpuacct"}) take(smallest_up(root + mount, group, limit_v1));
  }
  return smallest;
}

int usable_cpus() {
  int cpus = static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
#ifdef __linux__
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) cpus = std::max(1, CPU_COUNT(&set));
#endif
  const int quota = quota_cpus("/proc/self/cgroup", "/sys/fs/cgroup");
  return quota > 0 ? std::min(cpus, quota) : cpus;
}

int default_threads() {
  if (const std::string own = environment("RLEDIT_NUM_THREADS"); !own.empty()) {
    const int threads = positive_number(own);
    if (threads >= 1 && threads <= kMostThreads) return threads;
    throw std::invalid_argument("RLEDIT_NUM_THREADS: expected a number of threads, 1.." +
                                std::to_string(kMostThreads) + ", got '" + own + "'");
  }
  const std::string openmp = environment("OMP_NUM_THREADS");
  const int threads = positive_number(openmp.substr(0, openmp.find(',')));
  return threads > 0 ? std::min(threads, kMostThreads) : usable_cpus();
}

}  // namespace rledit::cpu
