// Runs CUDA kernels on the CPU, for tests: one block after another, each thread of a block a fiber with a stack
// of its own. Barriers, votes, shuffles and matrix fragments are collective as on a GPU, and who waits in vain
// is found. Shared memory and fragments begin as NaN; asynchronous copies happen when they are waited for, and
// not before; threads run in a shuffled order, so that what lacks a barrier shows.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  dim3() = default;
  dim3(unsigned x_, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

namespace shim {

constexpr int kWarp = 32;

// What a thread sees of itself.
struct Place {
  dim3 thread, block, block_size, grid_size;
};
const Place& here();

// Runs `kernel` once for each thread of each block. Throws std::logic_error if some threads of a block wait for
// others that never come.
void launch(dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()>& kernel);

unsigned char* dynamic_shared();
void wait_for_block();
void wait_for_warp();

void copy_async(void* to, const void* from, int bytes, bool valid);
void commit_copies();
void wait_for_copies(int pending);

// Hopper's asynchronous products of operands in shared memory. They see what all threads had written when they
// published, once a barrier has opened, and happen either at once or when they are waited for, by the order's
// seed: whoever starts them too early, or writes to their operands before they are done, gets NaN.
void publish();
void begin_products();
void start_product(float* sums, uint64_t a, uint64_t b);
void commit_products();
void wait_for_products(int pending);

// Of a warp: each lane's 8 bytes, as all lanes see them after wait_for_warp().
uint64_t* exchange();
// Of a warp: two matrices of at most 16 x 16, for products of fragments. Every second call of a lane gives the
// same, so that a lane may go ahead to the next product while others still read.
float* matrices();

// The order in which threads run; tests try several.
void set_order(unsigned seed);

// The compute capability, times 10, that programs are told: 80 or 90.
void set_capability(int capability);
int capability();

}  // namespace shim
