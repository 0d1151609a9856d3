// The hardware's own limits, measured the way the kernels use it.
#include <chrono>
#include <vector>

#include "kernels.hpp"
#include "parallel.hpp"
#include "product_scope.hpp"
#include "rledit/ops.hpp"

namespace rledit {
namespace {

// Calls body(worker) on all threads again and again for some seconds; returns calls a thread per second.
template <typename Body>
double rate(double seconds, const Body& body) {
  const int threads = num_threads();
  int64_t rounds = 0;
  const auto start = std::chrono::steady_clock::now();
  std::chrono::duration<double> elapsed{};
  do {
    cpu::parallel_for(threads, threads, [&](int64_t item, int) { body(static_cast<int>(item)); });
    ++rounds;
    elapsed = std::chrono::steady_clock::now() - start;
  } while (elapsed.count() < seconds);
  return static_cast<double>(rounds) / elapsed.count();
}

}  // namespace

double probe_peak(Precision precision, double seconds) {
  const cpu::Kernels& kernels = cpu::kernels(precision);
  const cpu::Operands operands = kernels.operands(precision, 4096);
  std::vector<int64_t> operations(num_threads(), 0);
  const double rounds = rate(seconds, [&](int thread) {
    const cpu::ProductScope products(kernels);
    int64_t done = 0;
    for (int i = 0; i < 20; ++i) done += kernels.peak(operands);
    operations[thread] = done;
  });
  int64_t total = 0;
  for (const int64_t of_thread : operations) total += of_thread;
  return rounds * static_cast<double>(total);
}

double probe_bandwidth(int64_t bytes, double seconds) {
  const cpu::Kernels& kernels = cpu::kernels();
  const int threads = num_threads();
  const int64_t share = bytes / threads / static_cast<int64_t>(sizeof(float));
  const std::vector<float> memory(share * threads, 1.0F);
  std::vector<float> sums(threads, 0.0F);
  const int64_t share_bytes = share * static_cast<int64_t>(sizeof(float));
  const int64_t times = 1 + (int64_t{4} << 20) / share_bytes;  // handing out the work must cost nothing
  const double rounds = rate(seconds, [&](int thread) {
    for (int64_t i = 0; i < times; ++i) sums[thread] += kernels.read(memory.data() + thread * share, share);
  });
  return rounds * static_cast<double>(times * share_bytes * threads);
}

}  // namespace rledit
