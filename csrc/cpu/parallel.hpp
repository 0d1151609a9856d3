// A persistent pool of threads.
#pragma once

#include <cstdint>
#include <functional>

namespace rledit::cpu {

// Calls body(index, worker) for every index in 0..count-1, spread over the pool and the calling thread.
// worker < workers tells scratch memory apart; the caller passes the number that it allocated for, because
// another thread may change num_threads() in the meantime. The first exception is thrown again here, after
// all threads have stopped. Calls from several threads at once run one after the other.
void parallel_for(int64_t count, int workers, const std::function<void(int64_t index, int worker)>& body);

}  // namespace rledit::cpu
