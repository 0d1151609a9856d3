#include "shim.hpp"

#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <exception>
#include <limits>
#include <memory>
#include <numeric>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#define SHIM_ASAN 1
#else
#define SHIM_ASAN 0
#endif

namespace shim {
namespace {

constexpr size_t kStack = size_t{256} << 10;

struct Copy {
  void* to;
  const void* from;
  int bytes;
  bool valid;
};

// Of operands of 64 rows and 8 columns.
struct Product {
  float* sums;  // this thread's 32
  uint64_t a, b;
};

struct Barrier {
  int arrived = 0;
  int generation = 0;
};

struct Fiber {
  ucontext_t context{};
  std::unique_ptr<char[]> stack;
  Place place;
  int warp = 0;
  bool done = false;
  bool started = false;
  const Barrier* waits_for = nullptr;  // until its generation is another
  int generation = 0;
  std::vector<std::vector<Copy>> copies;  // committed groups, oldest first
  std::vector<Copy> uncommitted;
  std::vector<std::vector<Product>> products;  // committed groups, oldest first
  std::vector<Product> started_products;
  bool published = false;
  bool begun = false;
  bool second = false;         // of the matrices
  void* fake_stack = nullptr;  // AddressSanitizer's
  jmp_buf jump;
};

struct Warp {
  Barrier barrier;
  int alive = 0;
  uint64_t exchange[kWarp] = {};
  float matrices[2][2 * 16 * 16] = {};
};

struct Block {
  std::vector<Fiber> fibers;
  std::vector<Warp> warps;
  std::vector<unsigned char> shared;
  unsigned char* aligned = nullptr;
  std::vector<unsigned char> fenced;     // shared memory at the last publish()
  std::vector<unsigned char> published;  // the same, once all threads had published and a barrier opened
  Barrier barrier;
  int alive = 0;
  ucontext_t scheduler{};
  jmp_buf jump;
  void* scheduler_fake_stack = nullptr;
  const void* scheduler_stack = nullptr;
  size_t scheduler_stack_size = 0;
  const std::function<void()>* kernel = nullptr;
  std::exception_ptr error;
};

Block* block = nullptr;
Fiber* current = nullptr;
unsigned order_seed = 0;
int told_capability = 80;

void to_scheduler(bool for_good) {
  Fiber* self = current;
#if SHIM_ASAN
  __sanitizer_start_switch_fiber(for_good ? nullptr : &self->fake_stack, block->scheduler_stack,
                                 block->scheduler_stack_size);
  swapcontext(&self->context, &block->scheduler);
  __sanitizer_finish_switch_fiber(self->fake_stack, nullptr, nullptr);
#else
  (void)for_good;
  if (_setjmp(self->jump) == 0) _longjmp(block->jump, 1);
#endif
}

// What all threads have published is there once a barrier of all has opened.
void publish_for_all() {
  for (const Fiber& fiber : block->fibers)
    if (!fiber.done && !fiber.published) return;
  for (Fiber& fiber : block->fibers) fiber.published = false;
  block->published = block->fenced;
}

void open_if_complete(Barrier& barrier, int alive) {
  if (barrier.arrived > 0 && barrier.arrived == alive) {
    barrier.arrived = 0;
    ++barrier.generation;
    if (&barrier == &block->barrier) publish_for_all();
  }
}

// A matrix descriptor (PTX ISA, "Matrix Descriptor Format") of TF32, rows along memory, no swizzle.
class Operand {
 public:
  explicit Operand(uint64_t descriptor)
      : start_((descriptor & 0x3fff) << 4),
        across_((descriptor >> 16 & 0x3fff) << 4),
        down_((descriptor >> 32 & 0x3fff) << 4) {
    if ((descriptor >> 62) != 0 || (descriptor >> 49 & 7) != 0)
      throw std::logic_error("a matrix descriptor with a swizzle or an offset");
  }

  float at(size_t row, size_t column) const {
    const size_t byte = start_ + column / 4 * across_ + row / 8 * down_ + row % 8 * 16 + column % 4 * 4;
    if (byte + 4 > block->published.size()) throw std::logic_error("an operand beyond what was published");
    // Whoever writes there before the product is done has it read anything.
    if (std::memcmp(&block->published[byte], block->aligned + byte, 4) != 0)
      return std::numeric_limits<float>::quiet_NaN();
    uint32_t bits;
    std::memcpy(&bits, &block->published[byte], 4);
    bits &= 0xffffe000U;  // the lowest 13 bits are not looked at
    float value;
    std::memcpy(&value, &bits, sizeof(value));
    return value;
  }

 private:
  size_t start_, across_, down_;
};

// The part of the calling thread: PTX ISA, "WGMMA .m64nNk16 register fragment layout for accumulator matrix D".
// Its i-th sum is in row 16 warp + lane / 4 + 8 (i / 2 % 2), column 8 (i / 4) + 2 (lane % 4) + i % 2.
void multiply(const Product& product) {
  const Operand a(product.a), b(product.b);
  const unsigned thread = current->place.thread.x, row = thread / kWarp % 4 * 16 + thread % kWarp / 4;
  constexpr int columns = 8;
  float own[2][columns];
  for (unsigned r = 0; r < 2; ++r)
    for (int k = 0; k < columns; ++k) own[r][k] = a.at(row + 8 * r, k);
  for (unsigned j = 0; j < 16; ++j) {
    float other[columns];
    for (int k = 0; k < columns; ++k) other[k] = b.at(j / 2 * 8 + thread % 4 * 2 + j % 2, k);
    for (unsigned r = 0; r < 2; ++r)
      for (int k = 0; k < columns; ++k) product.sums[j / 2 * 4 + 2 * r + j % 2] += own[r][k] * other[k];
  }
}

void wait(Barrier& barrier, int alive) {
  ++barrier.arrived;
  const int generation = barrier.generation;
  open_if_complete(barrier, alive);
  if (barrier.generation != generation) return;
  current->waits_for = &barrier;
  current->generation = generation;
  to_scheduler(false);
}

void entry() {
#if SHIM_ASAN
  __sanitizer_finish_switch_fiber(nullptr, &block->scheduler_stack, &block->scheduler_stack_size);
#endif
  try {
    (*block->kernel)();
    if (!current->uncommitted.empty())
      throw std::logic_error("a thread ended with copies that it never committed");
    if (!current->started_products.empty() || !current->products.empty())
      throw std::logic_error("a thread ended with products that it never waited for");
  } catch (...) {
    if (!block->error) block->error = std::current_exception();
  }
  current->done = true;
  Warp& warp = block->warps[current->warp];
  open_if_complete(warp.barrier, --warp.alive);
  open_if_complete(block->barrier, --block->alive);
  to_scheduler(true);
}

void resume(Fiber& fiber) {
  current = &fiber;
#if SHIM_ASAN
  __sanitizer_start_switch_fiber(&block->scheduler_fake_stack, fiber.stack.get(), kStack);
  swapcontext(&block->scheduler, &fiber.context);
  __sanitizer_finish_switch_fiber(block->scheduler_fake_stack, nullptr, nullptr);
#else
  // Jumps between stacks; setcontext would ask the system for the signal mask each time.
  if (_setjmp(block->jump) == 0) {
    if (fiber.started) _longjmp(fiber.jump, 1);
    fiber.started = true;
    setcontext(&fiber.context);
  }
#endif
  current = nullptr;
}

bool may_run(const Fiber& fiber) {
  return !fiber.done && (fiber.waits_for == nullptr || fiber.waits_for->generation != fiber.generation);
}

// In the order of their numbers (seed 0), in another order each time (even seeds), or one warp as far ahead of
// all others as barriers allow, then the next (odd seeds).
void run(Block& running, std::mt19937& random) {
  std::vector<size_t> order(running.fibers.size());
  std::iota(order.begin(), order.end(), size_t{0});
  const bool ahead = order_seed % 2 == 1;
  if (ahead) {
    std::vector<size_t> warps(running.warps.size());
    std::iota(warps.begin(), warps.end(), size_t{0});
    std::shuffle(warps.begin(), warps.end(), random);
    std::stable_sort(order.begin(), order.end(),
                     [&](size_t i, size_t j) { return warps[i / kWarp] < warps[j / kWarp]; });
  }
  while (running.alive > 0) {
    if (!ahead && order_seed != 0) std::shuffle(order.begin(), order.end(), random);
    bool progress = false;
    for (size_t i = 0; i < order.size(); ++i) {
      Fiber& fiber = running.fibers[order[i]];
      if (!may_run(fiber)) continue;
      fiber.waits_for = nullptr;
      resume(fiber);
      if (running.error) std::rethrow_exception(running.error);
      progress = true;
      const bool warp_is_through = (i + 1) % kWarp == 0 || i + 1 == order.size();
      if (ahead && warp_is_through) break;  // and begin again with the first
    }
    if (!progress) {
      const auto waiting = std::count_if(running.fibers.begin(), running.fibers.end(),
                                         [](const Fiber& fiber) { return !fiber.done; });
      throw std::logic_error(std::to_string(waiting) + " threads of a block wait for others that never come");
    }
  }
}

}  // namespace

const Place& here() { return current->place; }

void launch(dim3 grid, dim3 block_size, size_t shared_bytes, const std::function<void()>& kernel) {
  const unsigned threads = block_size.x * block_size.y * block_size.z;
  if (threads == 0 || threads > 1024) throw std::invalid_argument("a block has 1 to 1024 threads");
  std::mt19937 random(order_seed);
  Block own;
  own.kernel = &kernel;
  own.fibers = std::vector<Fiber>(threads);
  for (Fiber& fiber : own.fibers) fiber.stack = std::make_unique<char[]>(kStack);
  own.shared.resize(shared_bytes + 128);
  own.aligned = own.shared.data() + (128 - reinterpret_cast<uintptr_t>(own.shared.data()) % 128) % 128;
  for (unsigned b = 0; b < grid.x * grid.y * grid.z; ++b) {
    std::fill(own.shared.begin(), own.shared.end(), static_cast<unsigned char>(0xff));  // NaN
    own.barrier = Barrier();
    own.fenced.clear();
    own.published.clear();
    own.alive = static_cast<int>(threads);
    own.warps.assign((threads + kWarp - 1) / kWarp, Warp());
    for (unsigned t = 0; t < threads; ++t) {
      Fiber& fiber = own.fibers[t];
      fiber.done = false;
      fiber.started = false;
      fiber.second = false;
      fiber.waits_for = nullptr;
      fiber.copies.clear();
      fiber.uncommitted.clear();
      fiber.products.clear();
      fiber.started_products.clear();
      fiber.published = false;
      fiber.begun = false;
      fiber.fake_stack = nullptr;
      fiber.warp = static_cast<int>(t / kWarp);
      ++own.warps[fiber.warp].alive;
      fiber.place.thread =
          dim3(t % block_size.x, t / block_size.x % block_size.y, t / block_size.x / block_size.y);
      fiber.place.block = dim3(b % grid.x, b / grid.x % grid.y, b / grid.x / grid.y);
      fiber.place.block_size = block_size;
      fiber.place.grid_size = grid;
      getcontext(&fiber.context);
      fiber.context.uc_stack.ss_sp = fiber.stack.get();
      fiber.context.uc_stack.ss_size = kStack;
      fiber.context.uc_link = nullptr;
      makecontext(&fiber.context, entry, 0);
    }
    block = &own;
    try {
      run(own, random);
    } catch (...) {
      block = nullptr;
      throw;  // stacks of fibers that have not ended are dropped as they are
    }
    block = nullptr;
  }
}

unsigned char* dynamic_shared() { return block->aligned; }
void wait_for_block() { wait(block->barrier, block->alive); }
void wait_for_warp() {
  Warp& warp = block->warps[current->warp];
  wait(warp.barrier, warp.alive);
}

void copy_async(void* to, const void* from, int bytes, bool valid) {
  if (reinterpret_cast<uintptr_t>(to) % bytes != 0 || (valid && reinterpret_cast<uintptr_t>(from) % bytes != 0))
    throw std::logic_error("an asynchronous copy at an address that is no multiple of its size");
  current->uncommitted.push_back({to, from, bytes, valid});
  std::memset(to, 0xff, bytes);  // what was there must not be read any more
}

void commit_copies() {
  current->copies.push_back(std::move(current->uncommitted));
  current->uncommitted.clear();
}

void wait_for_copies(int pending) {
  auto& groups = current->copies;
  while (static_cast<int>(groups.size()) > pending) {
    for (const Copy& copy : groups.front())
      if (copy.valid)
        std::memcpy(copy.to, copy.from, copy.bytes);
      else
        std::memset(copy.to, 0, copy.bytes);
    groups.erase(groups.begin());
  }
}

void publish() {
  current->published = true;
  block->fenced.assign(block->aligned, block->shared.data() + block->shared.size());
}

void begin_products() { current->begun = true; }

void start_product(float* sums, uint64_t a, uint64_t b) {
  if (!current->begun) throw std::logic_error("a product of sums that have not been handed over to it");
  const Product product{sums, a, b};
  if (order_seed % 2 == 0)
    multiply(product);
  else
    current->started_products.push_back(product);
}

void commit_products() {
  current->begun = false;
  current->products.push_back(std::move(current->started_products));
  current->started_products.clear();
}

void wait_for_products(int pending) {
  auto& groups = current->products;
  while (static_cast<int>(groups.size()) > pending) {
    for (const Product& product : groups.front()) multiply(product);
    groups.erase(groups.begin());
  }
}

uint64_t* exchange() { return block->warps[current->warp].exchange; }
float* matrices() {
  current->second = !current->second;
  return block->warps[current->warp].matrices[current->second ? 1 : 0];
}
void set_order(unsigned seed) { order_seed = seed; }
void set_capability(int capability) { told_capability = capability; }
int capability() { return told_capability; }

}  // namespace shim
