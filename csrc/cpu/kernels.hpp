// The inner loops, as a table of functions. kernels.cpp fills one such table per instruction set; the
// rest of the core is compiled once and calls through the table that the CPU supports.
//
// Layouts:
//   tile   [depth][kTile]        64 samples side by side, so that vector lanes are samples: no product
//                                needs a horizontal sum, any number of outputs or classes wastes no
//                                lane, and one layer's output is the next layer's input.
//   panel  [depth/16][rows][16]  a few rows of a weight matrix, blocked along depth, read as broadcasts
//                                from one pointer. Its tail is padded with zeros.
#pragma once

#include <cstdint>

#include "rledit/views.hpp"

namespace rledit::cpu {

constexpr int kTile = 64;  // one machine word of sample bits, which makes counting a popcount
constexpr int kPanelDepth = 16;

inline int64_t panel_size(int64_t rows, int64_t depth) {
  return (depth + kPanelDepth - 1) / kPanelDepth * kPanelDepth * rows;
}

// Some rows of a weight matrix and the edit that they are to get. rank 0: no edit.
struct PanelSource {
  const float* weight;  // [rows, depth]
  const float* left;    // [rows, rank]
  const float* right;   // [rank, depth]
  int64_t depth;
  int64_t rank;
  int rows;
  World world;
  float scale;
  float factor;  // every packed value is multiplied by it
  bool round_bf16;
};

// out[rows][kTile] = nonlinearity(start + panel @ tile), start being `initial`, else the bias, else 0.
struct Product {
  const float* tile;     // [depth][kTile]
  const float* panel;    // see above
  const float* initial;  // [rows][kTile] or nullptr
  const float* bias;     // [rows] or nullptr
  float* out;            // [rows][kTile]
  int64_t depth;
  int rows;
  Nonlinearity nonlinearity;
  bool round_bf16;  // the output is the operand of a bfloat16 product
};

// What the counting of one tile needs to know about its samples.
struct TileSamples {
  const int32_t* labels;       // [kTile]
  const uint64_t* membership;  // [kTile], bit g: the sample is in group g; 0 for padding
  const uint64_t* planes;      // [groups], bit i: sample i is in the group
  int64_t groups;
};

// Where one candidate's counts of one tile go (null: not wanted). `shared`: other threads add to the
// same counters.
struct TileTally {
  int64_t* correct;    // [groups]
  int64_t* predicted;  // [groups, classes]
  int64_t* confusion;  // [groups, classes, classes]
  double* loss;        // [groups], never shared
  int64_t* histogram;  // [groups, 2, bins]
  int64_t bins;
  float margin_limit;
  bool shared;
};

struct Kernels {
  const char* name;
  int panel_rows;  // how many rows a panel holds at most
  void (*edit_row)(float* weight, const float* left, const float* right, int64_t rank, int64_t depth,
                   World world, float scale);
  // rows [valid, depth] -> tile [depth][kTile], the missing samples as zeros
  void (*pack_tile)(const float* rows, int valid, int64_t depth, bool round_bf16, float* tile);
  void (*pack_panel)(const PanelSource& source, float* panel);
  void (*multiply)(const Product& product);
  void (*count)(const float* logits, int64_t classes, const TileSamples& samples, const TileTally& tally);
};

const Kernels& kernels();  // the active table

}  // namespace rledit::cpu
