// The one kernel source, compiled once per instruction set with
//   RLEDIT_ISA    the name of the namespace and of the table
//   RLEDIT_LANES  floats per vector
//   RLEDIT_ROWS   rows of the register tile
// It is written in GCC/Clang vector extensions, not intrinsics: the compiler maps the same lines to SSE2,
// AVX2, AVX-512 or NEON. Everything lives in an unnamed namespace and no std:: template is used, so that
// the linker can never pick an instance from this file for code that must run on older CPUs.
#include "kernels.hpp"

#include "vector_math.hpp"

namespace rledit::cpu::RLEDIT_ISA {
namespace {

constexpr int kVectors = kTile / kLanes;  // vectors across one row of a tile
constexpr int kMaxRows = RLEDIT_ROWS;

// ---------------------------------------------------------------------------------------- editing

inline float edited(float weight, float delta, World world, float scale) {
  return world == World::shift ? weight + scale * delta : weight * (1.0F + scale * delta);
}

inline vfloat edited(vfloat weight, vfloat delta, World world, float scale) {
  return world == World::shift ? weight + scale * delta : weight * (1.0F + scale * delta);
}

// One value of left@right: the scalar twin of the vector loops below, same order of additions.
inline float delta_at(const float* left, const float* right, int64_t rank, int64_t depth, int64_t k) {
  float delta = 0.0F;
  for (int64_t r = 0; r < rank; ++r) delta += left[r] * right[r * depth + k];
  return delta;
}

void edit_row(float* weight, const float* left, const float* right, int64_t rank, int64_t depth, World world,
              float scale) {
  int64_t k = 0;
  for (; k + kLanes <= depth; k += kLanes) {
    vfloat delta = broadcast(0.0F);
    for (int64_t r = 0; r < rank; ++r) delta += left[r] * load(right + r * depth + k);
    store(weight + k, edited(load(weight + k), delta, world, scale));
  }
  for (; k < depth; ++k) weight[k] = edited(weight[k], delta_at(left, right, rank, depth, k), world, scale);
}

// ---------------------------------------------------------------------------------------- packing

typedef float vfloat4 __attribute__((vector_size(16)));

// tile[c][r] = rows[r][c] for a 4x4 block.
inline void transpose4(const float* rows, int64_t stride, float* tile) {
  vfloat4 a, b, c, d;
  std::memcpy(&a, rows, 16);
  std::memcpy(&b, rows + stride, 16);
  std::memcpy(&c, rows + 2 * stride, 16);
  std::memcpy(&d, rows + 3 * stride, 16);
  const vfloat4 ab0 = {a[0], b[0], a[1], b[1]}, ab1 = {a[2], b[2], a[3], b[3]};
  const vfloat4 cd0 = {c[0], d[0], c[1], d[1]}, cd1 = {c[2], d[2], c[3], d[3]};
  const vfloat4 out[4] = {{ab0[0], ab0[1], cd0[0], cd0[1]},
                          {ab0[2], ab0[3], cd0[2], cd0[3]},
                          {ab1[0], ab1[1], cd1[0], cd1[1]},
                          {ab1[2], ab1[3], cd1[2], cd1[3]}};
  for (int i = 0; i < 4; ++i) std::memcpy(tile + i * kTile, &out[i], 16);
}

void pack_tile(const float* rows, int valid, int64_t depth, bool round_bf16, float* tile) {
  const int whole_rows = valid / 4 * 4;
  const int64_t whole_depth = depth / 4 * 4;
  // Four inputs at a time over all samples: the stores stay within four rows of the tile.
  for (int64_t k = 0; k < whole_depth; k += 4)
    for (int i = 0; i < whole_rows; i += 4) transpose4(rows + i * depth + k, depth, tile + k * kTile + i);
  for (int64_t k = 0; k < depth; ++k) {
    const int done = k < whole_depth ? whole_rows : 0;
    for (int i = done; i < valid; ++i) tile[k * kTile + i] = rows[i * depth + k];
    for (int i = valid; i < kTile; ++i) tile[k * kTile + i] = 0.0F;
  }
  if (round_bf16)
    for (int64_t k = 0; k < depth * kTile; k += kLanes) store(tile + k, rounded_bf16(load(tile + k)));
}

// One block of 16 inputs of a panel. All rows advance together, so that each value of `right` is loaded
// once for all of them.
template <int Rows>
inline void pack_block(const PanelSource& source, int64_t k, float* out) {
  constexpr int kVecs = kPanelDepth / kLanes;
  const int64_t depth = source.depth;
  vfloat delta[Rows][kVecs] = {};
  for (int64_t r = 0; r < source.rank; ++r) {
    vfloat right[kVecs];
#pragma GCC unroll 4
    for (int v = 0; v < kVecs; ++v) right[v] = load(source.right + r * depth + k + v * kLanes);
#pragma GCC unroll 16
    for (int j = 0; j < Rows; ++j)
#pragma GCC unroll 4
      for (int v = 0; v < kVecs; ++v) delta[j][v] += source.left[j * source.rank + r] * right[v];
  }
#pragma GCC unroll 16
  for (int j = 0; j < Rows; ++j)
#pragma GCC unroll 4
    for (int v = 0; v < kVecs; ++v) {
      vfloat value = load(source.weight + j * depth + k + v * kLanes);
      if (source.rank > 0) value = edited(value, delta[j][v], source.world, source.scale);
      value *= source.factor;
      store(out + j * kPanelDepth + v * kLanes, source.round_bf16 ? rounded_bf16(value) : value);
    }
}

template <int Rows>
void pack_panel_rows(const PanelSource& source, float* panel) {
  const int64_t depth = source.depth;
  const int64_t whole = depth / kPanelDepth * kPanelDepth;
  for (int64_t k = 0; k < whole; k += kPanelDepth) pack_block<Rows>(source, k, panel + k * Rows);
  if (whole == depth) return;
  // The rest, one value at a time: a vector would reach beyond the last row.
  for (int j = 0; j < Rows; ++j) {
    float rest[kPanelDepth] = {};
    for (int64_t k = whole; k < depth; ++k) {
      float value = source.weight[j * depth + k];
      if (source.rank > 0) {
        const float delta = delta_at(source.left + j * source.rank, source.right, source.rank, depth, k);
        value = edited(value, delta, source.world, source.scale);
      }
      rest[k - whole] = value * source.factor;
    }
    for (int v = 0; v < kPanelDepth; v += kLanes) {
      const vfloat value = load(rest + v);
      store(panel + whole * Rows + j * kPanelDepth + v, source.round_bf16 ? rounded_bf16(value) : value);
    }
  }
}

template <int Rows>
void pack_panel_dispatch(const PanelSource& source, float* panel) {
  if (source.rows == Rows)
    pack_panel_rows<Rows>(source, panel);
  else if constexpr (Rows > 1)
    pack_panel_dispatch<Rows - 1>(source, panel);
}

void pack_panel(const PanelSource& source, float* panel) { pack_panel_dispatch<kMaxRows>(source, panel); }

// --------------------------------------------------------------------------------------- products

// The register tile: Rows outputs times Vecs vectors of samples, accumulated over the whole depth.
template <int Rows, int Vecs, bool Relu>
inline void multiply_block(const Product& product, int column) {
  vfloat sum[Rows][Vecs];
#pragma GCC unroll 16
  for (int j = 0; j < Rows; ++j)
#pragma GCC unroll 4
    for (int v = 0; v < Vecs; ++v)
      sum[j][v] = product.initial != nullptr ? load(product.initial + j * kTile + column + v * kLanes)
                                             : broadcast(product.bias != nullptr ? product.bias[j] : 0.0F);
  const float* tile = product.tile + column;
  const float* panel = product.panel;
  for (int64_t k = 0; k < product.depth; k += kPanelDepth) {
    const int64_t rest = product.depth - k;
    const int limit = rest < kPanelDepth ? static_cast<int>(rest) : kPanelDepth;
    for (int i = 0; i < limit; ++i, tile += kTile) {
      vfloat x[Vecs];
#pragma GCC unroll 4
      for (int v = 0; v < Vecs; ++v) x[v] = load(tile + v * kLanes);
#pragma GCC unroll 16
      for (int j = 0; j < Rows; ++j) {
        const vfloat w = broadcast(panel[j * kPanelDepth + i]);
#pragma GCC unroll 4
        for (int v = 0; v < Vecs; ++v) sum[j][v] += w * x[v];
      }
    }
    panel += Rows * kPanelDepth;
  }
#pragma GCC unroll 16
  for (int j = 0; j < Rows; ++j)
#pragma GCC unroll 4
    for (int v = 0; v < Vecs; ++v)
      store(product.out + j * kTile + column + v * kLanes, Relu ? relu(sum[j][v]) : sum[j][v]);
}

template <int Rows>
void multiply_rows(const Product& product) {
  // Few rows leave registers free for more samples, which hides the latency of the additions.
  constexpr int kVecs = 2 * Rows <= kMaxRows ? 4 : 2;
  static_assert(kVectors % kVecs == 0, "a tile must be a whole number of register tiles");
  for (int column = 0; column < kTile; column += kVecs * kLanes)
    if (product.nonlinearity == Nonlinearity::relu)
      multiply_block<Rows, kVecs, true>(product, column);
    else
      multiply_block<Rows, kVecs, false>(product, column);
}

template <int Rows>
void multiply_dispatch(const Product& product) {
  if (product.rows == Rows)
    multiply_rows<Rows>(product);
  else if constexpr (Rows > 1)
    multiply_dispatch<Rows - 1>(product);
}

void multiply(const Product& product) {
  multiply_dispatch<kMaxRows>(product);
  float* out = product.out;
  const int64_t size = static_cast<int64_t>(product.rows) * kTile;
  if (product.nonlinearity != Nonlinearity::relu && product.nonlinearity != Nonlinearity::identity)
    for (int64_t i = 0; i < size; i += kLanes) store(out + i, activated(load(out + i), product.nonlinearity));
  if (product.round_bf16)
    for (int64_t i = 0; i < size; i += kLanes) store(out + i, rounded_bf16(load(out + i)));
}

// --------------------------------------------------------------------------------------- counting

inline void add(int64_t* counter, int64_t value, bool shared) {
  if (shared)
    __atomic_fetch_add(counter, value, __ATOMIC_RELAXED);
  else
    *counter += value;
}

// Calls visit(group) for every group of a sample.
template <typename Visit>
inline void for_groups(uint64_t membership, Visit visit) {
  for (; membership != 0; membership &= membership - 1) visit(__builtin_ctzll(membership));
}

struct Predictions {
  alignas(64) int32_t label[kTile];   // first class with the largest logit
  alignas(64) int32_t finite[kTile];  // -1 where all logits are finite, else 0
  alignas(64) float best[kTile];
};

inline void predict(const float* logits, int64_t classes, Predictions& out) {
  for (int i = 0; i < kTile; i += kLanes) {
    vfloat best = load(logits + i);
    vfloat zero = best * 0.0F;  // becomes NaN with the first logit that is not finite
    vint label = {};
    for (int64_t c = 1; c < classes; ++c) {
      const vfloat logit = load(logits + c * kTile + i);
      const vint larger = logit > best;
      best = select(larger, logit, best);
      label = (larger & static_cast<int32_t>(c)) | (~larger & label);
      zero += logit * 0.0F;
    }
    store(out.label + i, label);
    store(out.finite + i, zero == 0.0F);
    store(out.best + i, best);
  }
}

// Cross-entropy of each sample, log(sum exp(logit - best)) + (best - logit[label]). In double, because the
// difference of two finite floats may overflow and the loss of a sure prediction is far below their rounding.
inline void cross_entropy(const float* logits, int64_t classes, const TileSamples& samples,
                          const Predictions& predictions, double* loss) {
  alignas(64) float log_sum[kTile];
  for (int i = 0; i < kTile; i += kLanes) {
    const vfloat best = load(predictions.best + i);
    vfloat sum = broadcast(0.0F);
    for (int64_t c = 0; c < classes; ++c) sum += exponential(load(logits + c * kTile + i) - best);
    store(log_sum + i, logarithm(sum));
  }
  for (int i = 0; i < kTile; ++i) {
    const double behind = static_cast<double>(predictions.best[i]) - logits[samples.labels[i] * kTile + i];
    loss[i] = log_sum[i] + behind;
  }
}

inline int64_t margin_bin(float margin, int64_t bins, float limit) {
  const float position = (margin + limit) * (static_cast<float>(bins) / (2.0F * limit));
  if (!(position > 0.0F)) return 0;
  return position < static_cast<float>(bins) ? static_cast<int64_t>(position) : bins - 1;
}

void count(const float* logits, int64_t classes, const TileSamples& samples, const TileTally& tally) {
  Predictions predictions;
  predict(logits, classes, predictions);

  if (tally.correct != nullptr) {
    uint64_t hits = 0;
    for (int i = 0; i < kTile; ++i)
      hits |= static_cast<uint64_t>(predictions.label[i] == samples.labels[i] && predictions.finite[i] != 0)
              << i;
    for (int64_t g = 0; g < samples.groups; ++g)
      add(tally.correct + g, __builtin_popcountll(hits & samples.planes[g]), tally.shared);
  }
  if (tally.predicted != nullptr || tally.confusion != nullptr || tally.histogram != nullptr) {
    for (int i = 0; i < kTile; ++i) {
      if (predictions.finite[i] == 0) continue;
      const int64_t predicted = predictions.label[i];
      const int64_t label = samples.labels[i];
      const int64_t bin = tally.histogram != nullptr
                              ? margin_bin(logits[kTile + i] - logits[i], tally.bins, tally.margin_limit)
                              : 0;
      for_groups(samples.membership[i], [&](int64_t g) {
        if (tally.predicted != nullptr) add(tally.predicted + g * classes + predicted, 1, tally.shared);
        if (tally.confusion != nullptr)
          add(tally.confusion + (g * classes + label) * classes + predicted, 1, tally.shared);
        if (tally.histogram != nullptr)
          add(tally.histogram + (g * 2 + label) * tally.bins + bin, 1, tally.shared);
      });
    }
  }
  if (tally.loss != nullptr) {
    double loss[kTile];
    cross_entropy(logits, classes, samples, predictions, loss);
    for (int i = 0; i < kTile; ++i) {
      const double value = predictions.finite[i] != 0 ? loss[i] : kInvalidLoss;
      for_groups(samples.membership[i], [&](int64_t g) { tally.loss[g] += value; });
    }
  }
}

#define RLEDIT_STRING_(name) #name
#define RLEDIT_STRING(name) RLEDIT_STRING_(name)

}  // namespace

extern const Kernels table;
const Kernels table = {RLEDIT_STRING(RLEDIT_ISA), kMaxRows, edit_row, pack_tile, pack_panel, multiply, count};

}  // namespace rledit::cpu::RLEDIT_ISA
