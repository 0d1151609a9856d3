// The inner loops, as a table of functions. kernels/kernels.cpp fills one such table per instruction set;
// the rest of the core is compiled once and calls through the table that the CPU supports. No function is
// defined here, see layouts.hpp.
//
// Layouts, by the operands that a product takes:
//   float32, rounded  tile   [depth][kTile]         64 samples side by side, so that vector lanes are
//                                                   samples: no product needs a horizontal sum, any number
//                                                   of outputs or classes wastes no lane, and one layer's
//                                                   output is the next layer's input.
//                     panel  [depth/16][rows][16]   a few rows of a weight matrix, blocked along depth, read
//                                                   as broadcasts from one pointer; zeros behind the depth.
//   bf16              tile   [depth/32][16][kTile][2]  pairs of successive inputs, as the CPU's bfloat16
//                     panel  [depth/32][rows][32]      products take them; zeros behind the depth.
//   split             a bf16 tile or panel of the values rounded, then one of what the rounding left
#pragma once

#include <cstdint>

#include "rledit/views.hpp"

namespace rledit::cpu {

constexpr int kTile = 64;  // one machine word of sample bits, which makes counting a popcount
constexpr int kPanelDepth = 16;
constexpr int kPairedDepth = 32;  // of a bf16 block

// What a product multiplies. `rounded` is float32 holding bfloat16 values, for CPUs without bfloat16
// products; `split` is float32 as two bfloat16 each, three products instead of one.
enum class Operands { float32, rounded, bf16, split };

// Some rows of a weight matrix and the edit that they are to get. rank 0: no edit. They are written from the
// panel's first row on; for others the caller moves the pointer, see row_offset.
struct PanelSource {
  const float* weight;  // [rows, depth]
  const float* left;    // [rows, rank]
  const float* right;   // [rank, depth]
  int64_t depth;
  int64_t rank;
  int rows;
  int64_t stored_rows;  // of the panel, which may hold rows of other sources as well
  EditRule rule;
  float factor;  // every packed value is multiplied by it
  Operands operands;
};

// out[rows][kTile] = nonlinearity(start + panel @ tile), start being `initial`, else the bias, else 0.
struct Product {
  const void* tile;
  const void* panel;
  const float* initial;  // [rows][kTile] or nullptr
  const float* bias;     // [rows] or nullptr
  float* out;            // [rows][kTile]
  int64_t depth;
  int64_t split_depth;  // of the whole split tile and panel, where this product is one of a part of the depth
  int rows;
  Nonlinearity nonlinearity;
  Operands operands;
};

// out[rows][kTile] = nonlinearity(start + table^T @ tile), start being the bias, else 0, of a tile that is
// given by what is not zero in it: values[k] of input inputs[k] for k from starts[s] to starts[s + 1], sample
// s.
struct SparseProduct {
  const int64_t* starts;  // [kTile + 1]
  const int32_t* inputs;  // kSparseAhead more may be read behind the last
  const float* values;
  const float* table;       // [all inputs][columns]
  const float* tile;        // the same tile with its zeros, [all inputs][kTile]
  const int32_t* infinite;  // inputs whose row of the table is not all finite: times zero that is NaN
  int64_t infinite_count;
  const float* bias;  // [rows] or nullptr
  float* out;         // [rows][kTile]
  int columns;        // a multiple of kSparseColumns, at most kMostSparseColumns
  int rows;           // at most so many as columns
  Nonlinearity nonlinearity;
};

constexpr int64_t kSparseAhead = 16;    // rows of a table from the one in use to the one that is asked for
constexpr int kSparseColumns = 16;      // the most lanes of a vector
constexpr int kMostSparseColumns = 32;  // of one table: with a few thousand inputs it stays in the L2 cache

// Two layers of which the second has few outputs:
// out[rows][kTile] = nonlinearity(bias + panel @ first(initial + left @ reduced)).
struct Correction {
  const float* reduced;  // [rank][kTile]
  const float* left;     // [depth][rank]
  const float* initial;  // [depth][kTile]
  const void* panel;     // [rows, depth] of the second layer, packed for `operands`
  const float* bias;     // [rows] or nullptr
  float* out;            // [rows][kTile]
  int64_t rank;
  int64_t depth;  // outputs of the first layer, inputs of the second
  int rows;
  Nonlinearity first;  // relu or identity
  Nonlinearity nonlinearity;
  Operands operands;
};

// What the counting of one tile needs to know about its samples.
struct TileSamples {
  const int32_t* labels;       // [kTile]
  const uint64_t* membership;  // [kTile], bit g: the sample is in group g; 0 for padding
  const uint64_t* planes;      // [groups], bit i: sample i is in the group
  uint64_t positives;          // bit i: sample i has label 1
  int64_t groups;
};

// Where one candidate's counts of one tile go (null: not wanted). `shared`: other threads add to the
// same counters.
struct TileTally {
  int64_t* correct;    // [groups]
  int64_t* predicted;  // [groups, classes]
  int64_t* confusion;  // [groups, classes, classes]
  double* loss;        // [groups], never shared
  float* margins;      // [kTile], of two classes: logit[1] - logit[0], NaN where a logit is not finite
  float* odds;  // [kTile], sum of exp(z_j - z_label) over j != label, infinite where a logit is not finite
  bool shared;
};

// Margins to bins of a histogram.
struct Binning {
  int64_t bins;
  float limit;  // bins divide [-limit, limit] evenly; the outermost take the rest
};

// A tile of features made ready for sums: out[depth][kTile] = values - pivot, 0 behind the valid samples.
struct Centering {
  const float* values;  // [depth][kTile]
  const float* pivot;   // [depth]
  float* out;           // or nullptr: values are only looked at
  int64_t depth;
  int valid;
  float limit;
};

// Of the valid samples.
struct Extent {
  bool within;    // every |value| <= limit; false where one is NaN
  float largest;  // |value - pivot|, if they are written
};

// Successive samples of one label in a tile.
struct LabelRun {
  int32_t label;
  int32_t first;
  int32_t last;
};

struct Kernels {
  const char* name;
  int panel_rows;     // how many rows a panel holds at most
  bool whole_panels;  // bf16 and split panels hold as many rows always, zeros behind the last
  // The operands of a product of this depth.
  Operands (*operands)(Precision precision, int64_t depth);
  // What a thread does before its first product and after its last, see product_scope.hpp.
  void (*begin)();
  void (*end)();
  void (*edit_row)(float* weight, const float* left, const float* right, int64_t rank, int64_t depth,
                   EditRule rule);
  // rows [valid, depth] -> tile, the missing samples as zeros
  void (*pack_tile)(const float* rows, int valid, int64_t depth, Operands operands, void* tile);
  // values [depth][kTile] -> tile; for float32 the two are the same and need no call
  void (*to_tile)(const float* values, int64_t depth, Operands operands, void* tile);
  void (*pack_panel)(const PanelSource& source, void* panel);
  void (*multiply)(const Product& product);
  // The rows of a source as the first columns of a table [depth][columns] of float32.
  void (*pack_table)(const PanelSource& source, int64_t columns, float* table);
  void (*multiply_sparse)(const SparseProduct& product);
  bool (*corrects)(Operands operands);  // whether correct() takes them
  void (*correct)(const Correction& correction);
  void (*count)(const float* logits, int64_t classes, const TileSamples& samples, const TileTally& tally);
  // The bin of each margin, -1 where it is NaN; count is a multiple of kTile.
  void (*place)(const float* margins, int64_t count, const Binning& binning, int32_t* places);
  // The bin of each sample's odds, of kLossBins, the highest for the lowest odds: rledit/ops/loss_ranks.py.
  void (*place_odds)(const float* odds, int64_t count, int32_t* places);
  // From counts table[bins, columns] to twice the counts of lower bins plus those of the same, in place; at
  // most kMostCounted of a column, columns is a multiple of kColumns.
  void (*pass)(uint16_t* table, int64_t bins, int64_t columns);
  // out[columns] = sum of table[places[samples[i]]] over i, without those whose place is -1.
  void (*sum_rows)(const uint16_t* table, int64_t columns, const int32_t* places, const int32_t* samples,
                   int64_t count, int32_t* out);
  Extent (*center)(const Centering& centering);
  // Adds sum of tile[i][s] * tile[j][s] over all samples to moments[i][j], [depth, depth], for i <= j. Tiles
  // are [depth + kMomentsPadding][kTile], the last rows 0.
  void (*add_moments)(const float* tiles, int64_t count, int64_t depth, double* moments);
  // Adds the sum of each run to sums[depth][labels].
  void (*add_runs)(const float* tile, int64_t depth, const LabelRun* runs, int64_t count, int64_t labels,
                   double* sums);
  // The samples, as bits, whose label has the first of the largest scores [classes][kTile], which are finite.
  uint64_t (*recall)(const float* scores, int64_t classes, const int32_t* labels);
  // Operations (two for each multiply-add) of one call, which does nothing else.
  int64_t (*peak)(Operands operands);
  // Reads [from, from + count) and returns something that depends on all of it.
  float (*read)(const float* from, int64_t count);
};

constexpr int64_t kMomentsPadding = 5;  // rows that a block of products may reach beyond the last
constexpr int64_t kLossBins = 4096;
constexpr int64_t kColumns = 32;         // the most 16-bit lanes of a vector
constexpr int64_t kMostCounted = 32767;  // twice as many still fit into 16 bits

const Kernels& kernels();  // the active table
// The same for products of this precision, which may be another table's: see dispatch.cpp.
const Kernels& kernels(Precision precision);

}  // namespace rledit::cpu
