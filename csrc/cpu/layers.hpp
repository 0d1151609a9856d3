// How the layers of a call are computed, by the Route of its plan. Who passes over which samples when is the
// walk's business, see score_tail.cpp.
#pragma once

#include "scratch.hpp"

namespace rledit::cpu {

struct Range {
  int64_t first;
  int64_t last;

  int64_t count() const { return last - first; }
};

class Layers {
 public:
  Layers(const PreparedTail::State& tail, const Candidates& candidates, const Plan& plan);

  // Goes on to the tiles of a span; those of all other functions are counted from its first.
  void enter(Range tiles);

  // What some candidates bring, made ready for all tiles of the span: factors, or weights that are formed for
  // more than a chunk. Not for Route::formed.
  void prepare(Range stack, Scratch& scratch) const;

  // By chunk: what the stack shares, and then the logits, [tiles][classes][kTile], of its i-th candidate.
  void share_chunk(Range stack, Range tiles, Scratch& scratch) const;
  const float* logits_of_chunk(Range stack, int64_t i, Range tiles, Scratch& scratch) const;

  // What the last of several layers read when the logits of a chunk were made, [tiles][inputs][kTile].
  const float* features_of_chunk(const Scratch& scratch) const;

  // By tile: the same for one tile.
  void share_tile(Range stack, int64_t tile, Scratch& scratch) const;
  const float* logits_of_tile(int64_t i, int64_t tile, Scratch& scratch) const;

 private:
  size_t layers() const { return tail_.layers.size(); }
  const Layer& layer(size_t l) const { return tail_.layers[l]; }
  const LayerEdit& edit(size_t l) const { return candidates_.edits[l]; }
  const char* input(int64_t tile) const { return inputs_ + tile * tail_.tile_bytes(); }
  SparseTable::Tiles nonzero(int64_t tile, int64_t count) const {
    return {tail_.sparse, reinterpret_cast<const float*>(input(tile)), first_tile_ + tile, count};
  }
  const float* unedited_output(int64_t tile) const { return products_ + tile * layer(0).outputs * kTile; }
  const char* as_operands(const float* values, size_t l, int64_t tiles, Scratch& scratch) const;

  // layers_corrected.cpp
  void pack_factors(Range stack, Scratch& scratch) const;
  void pack_plain_left(const float* left, float* out, int64_t size) const;
  void reduce(int64_t tile, int64_t slot, int64_t count, Scratch& scratch) const;
  char* reduced(int64_t slot, int64_t i, const Scratch& scratch) const;
  void correct(int64_t tile, int64_t slot, int64_t i, float* out, const Scratch& scratch) const;
  float* correct_two(int64_t tile, int64_t i, Scratch& scratch) const;

  // layers.cpp
  PanelSource edited(int64_t n, size_t l) const;
  void form_whole(int64_t n, Scratch& scratch) const;
  void form_table(Range stack, Scratch& scratch) const;
  void form_stack(Range stack, Scratch& scratch) const;
  void multiply_stack(int64_t tile, int64_t count, Scratch& scratch) const;
  float* follow(size_t l, float* values, Scratch& scratch) const;
  void forward(int64_t n, size_t l, const char* in, int64_t tiles, float* out, Scratch& scratch) const;
  void form_and_multiply(int64_t n, size_t l, const char* in, int64_t tiles, float* out,
                         Scratch& scratch) const;
  int rows_of_panel(int64_t row, int64_t last) const;

  const PreparedTail::State& tail_;
  const Candidates& candidates_;
  const Plan& plan_;
  const Kernels& kernels_;
  // The present span.
  int64_t first_tile_ = 0;
  const char* inputs_ = nullptr;     // [tiles], packed
  const float* products_ = nullptr;  // [tiles][outputs][kTile], X W^T + b where the first layer is corrected
};

inline float* floats(const Buffer& buffer) { return reinterpret_cast<float*>(buffer.get()); }

inline const float* Layers::features_of_chunk(const Scratch& scratch) const {
  return floats(scratch.outputs[layers() % 2]);
}

// Here because a layer of two outputs has less to do on a tile than a call or two that lead nowhere.
inline const float* Layers::logits_of_tile(int64_t i, int64_t tile, Scratch& scratch) const {
  const bool fused = plan_.route == Route::fused;
  float* out = fused ? correct_two(tile, i, scratch) : floats(scratch.stacked) + i * layer(0).outputs * kTile;
  const size_t next = fused ? 2 : 1;
  return next < layers() ? follow(next, out, scratch) : out;
}

}  // namespace rledit::cpu
