// For tests alone: in which order the fibers of a block run, and kernels that must not pass.
#include <stdexcept>

#include "cuda_runtime.h"
#include "shim.hpp"

#define SHIM_EXPORT extern "C" __attribute__((visibility("default")))

SHIM_EXPORT void shim_set_order(unsigned seed) { shim::set_order(seed); }
SHIM_EXPORT void shim_set_capability(int capability) { shim::set_capability(capability); }

namespace {

template <class Kernel>
int faults(Kernel kernel) {
  try {
    shim::launch(1, 64, 1024, kernel);
  } catch (const std::logic_error&) {
    return 1;
  }
  return 0;
}

}  // namespace

// Whether a barrier that some threads never reach is found.
SHIM_EXPORT int shim_finds_a_missing_thread() {
  return faults([] {
    if (threadIdx.x % 2 == 0) __syncthreads();
    __syncwarp();
    if (threadIdx.x % 2 == 1) __syncwarp();
  });
}

// How many threads of a block read what their neighbor has not written yet, because no barrier is between.
SHIM_EXPORT int shim_shows_a_missing_barrier() {
  static int wrong;
  wrong = 0;
  shim::launch(1, 64, 1024, [] {
    int* shared = reinterpret_cast<int*>(shim::dynamic_shared());
    shared[threadIdx.x] = static_cast<int>(threadIdx.x);
    const unsigned next = (threadIdx.x + 1) % 64;
    wrong += shared[next] != static_cast<int>(next);
  });
  return wrong;
}

// How many threads see a copy that they have not waited for.
SHIM_EXPORT int shim_shows_a_missing_wait() {
  static int early;
  static const int from[64] = {};
  early = 0;
  shim::launch(1, 64, 1024, [] {
    int* shared = reinterpret_cast<int*>(shim::dynamic_shared());
    shim::copy_async(&shared[threadIdx.x], &from[threadIdx.x], 4, true);
    shim::commit_copies();
    early += shared[threadIdx.x] == 0;
    shim::wait_for_copies(0);
  });
  return early;
}
