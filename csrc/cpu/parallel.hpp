// A persistent pool of threads.
#pragma once

#include <cstdint>
#include <functional>

namespace rledit::cpu {

// Calls body(index, worker) for every index in 0..count-1, spread over the pool and the calling thread.
// worker < num_threads() tells scratch memory apart. The first exception is thrown again here, after all
// threads have stopped. Calls from several threads at once run one after the other.
void parallel_for(int64_t count, const std::function<void(int64_t index, int worker)>& body);

}  // namespace rledit::cpu
