// How one call goes about it: which algebra, how many candidates at a time, on how many threads; and the memory
// that each thread needs for that.
#pragma once

#include <memory>
#include <vector>

#include "prepared_tail.hpp"

namespace rledit::cpu {

constexpr int64_t kReducedRows = 48;            // rows of X right^T that are made at once
constexpr int64_t kMostStacked = kReducedRows;  // candidates of a stack, at most one a row

struct Plan {
  Plan(const PreparedTail::State& tail, const Candidates& candidates);

  int threads = 1;
  bool corrects = false;    // the first layer by Algebra::shared_product
  bool forms_once = false;  // edited layers by Algebra::formed_once, else formed
  // Candidates that share a product with a tile: that of their right factors with X, or of the edited rows of
  // a layer of few outputs. 1 where later layers are edited, too, which wants one candidate at a time.
  int64_t stack = 1;
  bool by_tile = false;  // all candidates of a stack on one tile, rather than each of them on a whole chunk
  bool sparse = false;   // X right^T from what is not zero in X
  bool fuses = false;    // the corrected first layer and the second in one pass, Kernels::correct
  Operands left_operands = Operands::float32;  // of the products with left factors

 private:
  bool can_fuse(const PreparedTail::State& tail, const Candidates& candidates) const;
};

// Panels of a layer that are formed before tiles pass over them: a tile is then fetched once for all of them.
int64_t panels_formed_together(const Kernels& kernels, Operands operands, const Layer& layer);

// What one thread needs for itself.
struct Scratch {
  Scratch(const Plan& plan, const PreparedTail::State& tail, const Candidates& candidates);

  Buffer outputs[2];  // of two successive layers, for a chunk: [tiles][outputs][kTile]
  Buffer operands;    // of a chunk, as the next product takes them
  Buffer panel;       // weights that are formed on the fly, some panels
  std::vector<std::unique_ptr<Panels>> formed;  // per layer, of one candidate that is formed once
  // Of a stack of candidates:
  std::unique_ptr<Panels> rights;              // one below the other
  Buffer table;                                // or, for sparse activations, side by side: [inputs][columns]
  int64_t columns = 0;                         // of the table, or rows of `rights`
  std::vector<std::unique_ptr<Panels>> lefts;  // of each of them
  Buffer plain_lefts;                          // or for Kernels::correct: [stack][plain_left_size]
  int64_t plain_left_size = 0;
  Buffer stacked;           // their product with a tile, or X right^T for all tiles of a chunk
  Buffer reduced;           // the latter in pairs, if products with left factors take them so
  std::vector<float> bias;  // of the first layer, repeated
};

}  // namespace rledit::cpu
