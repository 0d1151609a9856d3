// The memory that each thread of a call needs for itself.
#pragma once

#include <memory>
#include <vector>

#include "call_plan.hpp"
#include "sparse_table.hpp"

namespace rledit::cpu {

// Panels of a layer that are formed before tiles pass over them: a tile is then fetched once for all of them.
int64_t panels_formed_together(const Kernels& kernels, Operands operands, const Layer& layer);

struct Scratch {
  Scratch(const Plan& plan, const PreparedTail::State& tail, const Candidates& candidates);

  Buffer outputs[2];  // of two successive layers, for a chunk: [tiles][outputs][kTile]
  Buffer operands;    // of a chunk, as the next product takes them
  Buffer panel;       // weights that are formed on the fly, some panels
  std::vector<std::unique_ptr<Panels>> formed;  // per layer, of one candidate that is formed once
  Buffer stacked;  // of a stack: the outputs of their edited rows, or X right^T for all tiles of a chunk

  // Where a formed first layer skips zeros: of a stack, one candidate below the other
  std::unique_ptr<SparseTable> formed_table;

  // Route::stacked
  std::vector<float> bias;  // of the first layer, repeated

  // The corrected routes
  std::unique_ptr<Panels> rights;              // of a stack, one below the other
  std::unique_ptr<SparseTable> rights_table;   // or, for sparse activations, side by side
  Buffer reduced;                              // X right^T in pairs, if products with left factors take it so
  std::vector<std::unique_ptr<Panels>> lefts;  // of each of a stack
  Buffer plain_lefts;                          // or for Kernels::correct: [stack][plain_left_size]
  int64_t plain_left_size = 0;

 private:
  void allocate_corrected(const Plan& plan, const PreparedTail::State& tail, int64_t rank);
};

}  // namespace rledit::cpu
