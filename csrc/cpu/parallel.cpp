#include "parallel.hpp"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <memory>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#include "cpus.hpp"
#include "rledit/ops.hpp"

namespace rledit::cpu {
namespace {

struct Job {
  const std::function<void(int64_t, int)>* body;
  int64_t count;
  int workers;
  std::atomic<int64_t> next{0};
  std::mutex mutex;
  std::exception_ptr error;

  void work(int worker) {
    if (worker >= workers) return;
    try {
      for (int64_t i = next.fetch_add(1); i < count; i = next.fetch_add(1)) (*body)(i, worker);
    } catch (...) {
      next.store(count);
      const std::lock_guard<std::mutex> lock(mutex);
      if (!error) error = std::current_exception();
    }
  }
};

class Pool {
 public:
  explicit Pool(int threads) {
    try {
      for (int worker = 1; worker < threads; ++worker) threads_.emplace_back([this, worker] { serve(worker); });
    } catch (const std::system_error&) {
      // The system grants no more threads: those that there are do the work.
    }
  }

  ~Pool() {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      stopping_ = true;
    }
    wake_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }

  void run(Job& job) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      job_ = &job;
      ++generation_;
      running_ = static_cast<int>(threads_.size());
    }
    wake_.notify_all();
    job.work(0);
    spin([this] { return running_.load() == 0; });
    std::unique_lock<std::mutex> lock(mutex_);
    done_.wait(lock, [this] { return running_ == 0; });
    job_ = nullptr;
  }

 private:
  // Looks for a moment before the thread goes to sleep: a call packs, then scores, and waking a thread takes
  // longer than either does for a single candidate. Short, because the core may be needed by others.
  template <typename Ready>
  static void spin(Ready ready) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::microseconds(50);
    while (!ready() && std::chrono::steady_clock::now() < end) {
    }
  }

  void serve(int worker) {
    uint64_t seen = 0;
    while (true) {
      Job* job = nullptr;
      spin([&] { return generation_.load() != seen; });
      {
        std::unique_lock<std::mutex> lock(mutex_);
        wake_.wait(lock, [&] { return stopping_ || generation_ != seen; });
        if (stopping_) return;
        seen = generation_;
        job = job_;
      }
      job->work(worker);
      {
        const std::lock_guard<std::mutex> lock(mutex_);
        if (--running_ == 0) done_.notify_all();
      }
    }
  }

  std::vector<std::thread> threads_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::condition_variable done_;
  Job* job_ = nullptr;
  std::atomic<uint64_t> generation_{0};  // this and running_ change under the mutex alone
  std::atomic<int> running_{0};
  bool stopping_ = false;
};

// One pool for the process. It is leaked at exit on purpose: joining threads while the interpreter or the
// C++ runtime shuts down invites deadlocks.
struct State {
  explicit State(int count) : threads(count) {}

  std::mutex mutex;  // held while a job runs, so num_threads() must not need it
  Pool* pool = nullptr;
  std::atomic<int> threads;
  pid_t pid = getpid();
};

// After fork only the calling thread exists, and a mutex that another thread held stays locked: the child
// starts with a state of its own and keeps nothing but the number of threads.
State& state() {
  static std::atomic<State*> current{new State(default_threads())};
  State* found = current.load();
  if (found->pid != getpid()) {
    auto fresh = std::make_unique<State>(found->threads.load());
    if (current.compare_exchange_strong(found, fresh.get())) found = fresh.release();
  }
  return *found;
}

}  // namespace

void parallel_for(int64_t count, int workers, const std::function<void(int64_t, int)>& body) {
  if (count <= 0) return;
  Job job;
  job.body = &body;
  job.count = count;
  job.workers = workers;
  State& shared = state();
  {
    const std::lock_guard<std::mutex> lock(shared.mutex);
    if (count == 1 || workers == 1 || shared.threads == 1) {
      job.work(0);
    } else {
      if (shared.pool == nullptr) shared.pool = new Pool(shared.threads);
      shared.pool->run(job);
    }
  }
  if (job.error) std::rethrow_exception(job.error);
}

}  // namespace rledit::cpu

namespace rledit {

int num_threads() { return cpu::state().threads; }

void set_num_threads(int threads) {
  cpu::State& shared = cpu::state();
  const std::lock_guard<std::mutex> lock(shared.mutex);
  if (threads == shared.threads) return;
  delete shared.pool;
  shared.pool = nullptr;
  shared.threads = threads;
}

}  // namespace rledit
