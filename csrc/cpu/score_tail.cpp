// score_tail on the CPU: the plan of one call, and the walk of one candidate over one chunk of samples.
//
// The samples are cut into tiles of 64, the tiles into chunks that fit a core's cache together with what
// the layers make of them, and the chunks into spans whose packed activations are made and dropped one
// after the other, so that memory does not grow with the number of samples.
#include <algorithm>
#include <memory>
#include <new>

#include "counting.hpp"
#include "kernels.hpp"
#include "parallel.hpp"
#include "rledit/ops.hpp"

namespace rledit {
namespace cpu {
namespace {

constexpr int64_t kChunkBytes = int64_t{768} << 10;  // activations of one chunk: most of an L2 cache
constexpr int64_t kLeastShared = int64_t{4} << 20;   // multiplications that are worth a second thread
constexpr int64_t kSpanBytes = int64_t{32} << 20;    // packed activations that exist at a time

struct FreeAligned {
  void operator()(float* memory) const { ::operator delete[](memory, std::align_val_t{64}); }
};
using Buffer = std::unique_ptr<float[], FreeAligned>;

Buffer allocate(int64_t floats) {
  return Buffer(static_cast<float*>(::operator new[](floats * sizeof(float), std::align_val_t{64})));
}

// Memory of the calling thread that outlives the call: fresh pages for every call would cost more than a
// single candidate does. At most a span and its products.
float* recycled(int which, int64_t floats) {
  thread_local Buffer memory[2];
  thread_local int64_t size[2] = {0, 0};
  if (size[which] < floats) {
    memory[which] = nullptr;
    size[which] = 0;
    memory[which] = allocate(floats);
    size[which] = floats;
  }
  return memory[which].get();
}

// All row panels of one matrix, one behind the other.
class Panels {
 public:
  Panels(const Kernels& kernels, int64_t rows, int64_t depth)
      : kernels_(kernels), rows_(rows), depth_(depth), memory_(allocate(panel_size(rows, depth))) {}

  // Packs the matrix that `source` describes; its rows and pointers are those of the whole matrix.
  void pack(PanelSource source) {
    for (int64_t row = 0; row < rows_; row += kernels_.panel_rows) {
      PanelSource part = source;
      part.rows = rows_in(row);
      part.weight += row * depth_;
      if (part.rank > 0) part.left += row * part.rank;
      kernels_.pack_panel(part, memory_.get() + panel_size(row, depth_));
    }
  }

  // out[rows][kTile] = nonlinearity(start + matrix @ tile)
  void multiply(Product product) const {
    const Product whole = product;
    for (int64_t row = 0; row < rows_; row += kernels_.panel_rows) {
      product.panel = memory_.get() + panel_size(row, depth_);
      product.rows = rows_in(row);
      product.depth = depth_;
      product.out = whole.out + row * kTile;
      if (whole.initial != nullptr) product.initial = whole.initial + row * kTile;
      if (whole.bias != nullptr) product.bias = whole.bias + row;
      kernels_.multiply(product);
    }
  }

 private:
  int rows_in(int64_t row) const {
    return static_cast<int>(std::min<int64_t>(kernels_.panel_rows, rows_ - row));
  }

  const Kernels& kernels_;
  int64_t rows_;
  int64_t depth_;
  Buffer memory_;
};

// What one thread needs for itself: the outputs of two successive layers, one panel, and X right^T.
struct Scratch {
  Buffer outputs[2];
  Buffer panel;
  Buffer reduced;
  std::unique_ptr<Panels> left;
  std::unique_ptr<Panels> right;
  std::vector<std::unique_ptr<Panels>> edited;  // per layer; null where panels are formed on the fly
};

class Scorer {
 public:
  Scorer(const Tail& tail, const Tally& tally)
      : kernels_(kernels()), threads_(num_threads()), tail_(tail), tally_(tally), samples_(tail.samples) {
    const Layer& first = tail.layers.front();
    // Shift needs the product with the unedited weights only once for all candidates, and then 2*R*(O+I)
    // operations per sample and candidate; edited weights need 2*O*I. The number of candidates has no say,
    // or a candidate's logits would round differently in another batch.
    const int64_t rank = first.factors.rank;
    shared_product_ = !first.per_candidate && rank > 0 && tail.world == World::shift &&
                      rank * (first.outputs + first.inputs) < first.outputs * first.inputs;
    for (const Layer& layer : tail.layers) {
      widest_output_ = std::max(widest_output_, layer.outputs);
      deepest_ = std::max(deepest_, layer.inputs);
    }
    const int64_t tile_bytes = (first.inputs + 2 * widest_output_) * kTile * int64_t{sizeof(float)};
    chunk_tiles_ = std::clamp<int64_t>(kChunkBytes / tile_bytes, 4, kMaxTilesPerChunk);
    chunk_tiles_ = std::min(chunk_tiles_, samples_.tiles());
    // Forming edited weights anew for every chunk costs rank / samples of the product, and lets a block of
    // candidates share a chunk in cache. Beyond an eighth, each candidate's weights are formed once a span.
    for (size_t l = 0; l < tail.layers.size(); ++l)
      if (!(l == 0 && shared_product_) && tail.layers[l].factors.rank > chunk_tiles_ * kTile / 8)
        form_once_ = true;
    const int64_t packed =
        (first.inputs + (shared_product_ ? first.outputs : 0)) * kTile * int64_t{sizeof(float)} * chunk_tiles_;
    span_chunks_ = std::clamp<int64_t>(kSpanBytes / packed, 1, chunks());
  }

  void run() {
    const Schedule schedule(tail_.candidates, std::min(span_chunks_, chunks()), threads_);
    LossPartials losses(tally_, tail_.candidates, tail_.samples.group_count, span_chunks_);
    prepare();
    for (int64_t start = 0; start < chunks(); start += span_chunks_) {
      const int64_t count = std::min(span_chunks_, chunks() - start);
      pack_span(start, count);
      spread(schedule.items(), threads_, [&](int64_t item, int worker) {
        const int64_t part = item / schedule.blocks;
        const int64_t first = item % schedule.blocks * schedule.block;
        const int64_t last = std::min(first + schedule.block, tail_.candidates);
        const int64_t from = part * count / schedule.parts;
        const int64_t to = (part + 1) * count / schedule.parts;
        const auto score_one = [&](int64_t n, int64_t chunk) {
          score(n, start, chunk, losses.at(n, chunk), schedule.parts > 1, scratch_[worker]);
        };
        if (form_once_) {
          for (int64_t n = first; n < last; ++n) {
            form(n, scratch_[worker]);
            for (int64_t chunk = from; chunk < to; ++chunk) score_one(n, chunk);
          }
        } else {
          for (int64_t chunk = from; chunk < to; ++chunk)
            for (int64_t n = first; n < last; ++n) score_one(n, chunk);
        }
      });
      losses.add_to(tally_, count);
    }
  }

 private:
  int64_t chunks() const { return (samples_.tiles() + chunk_tiles_ - 1) / chunk_tiles_; }
  bool bf16() const { return tail_.precision == Precision::bfloat16; }
  const Layer& first() const { return tail_.layers.front(); }

  PanelSource unedited(const float* weight, int64_t depth, float factor = 1.0F) const {
    return {weight, nullptr, nullptr, depth, 0, 0, tail_.world, tail_.scale, factor, bf16()};
  }

  // Over the pool, or right here where handing the work out would take longer than doing it.
  template <typename Body>
  void spread(int64_t count, int workers, const Body& body) const {
    int64_t products = 0;
    for (const Layer& layer : tail_.layers) products += layer.inputs * layer.outputs;
    if (products * tail_.samples.count * tail_.candidates < kLeastShared) {
      for (int64_t i = 0; i < count; ++i) body(i, 0);
    } else {
      parallel_for(count, workers, body);
    }
  }

  // Packs the weights that all candidates share, and allocates.
  void prepare() {
    for (const Layer& layer : tail_.layers) {
      shared_.emplace_back();
      if (!layer.shared() && !(shared_product_ && &layer == &first())) continue;
      shared_.back() = std::make_unique<Panels>(kernels_, layer.outputs, layer.inputs);
      shared_.back()->pack(unedited(layer.weight, layer.inputs));
    }
    inputs_ = recycled(0, span_chunks_ * chunk_tiles_ * first().inputs * kTile);
    if (shared_product_) products_ = recycled(1, span_chunks_ * chunk_tiles_ * first().outputs * kTile);
    scratch_.resize(threads_);
    for (Scratch& scratch : scratch_) {
      for (Buffer& output : scratch.outputs) output = allocate(chunk_tiles_ * widest_output_ * kTile);
      scratch.panel = allocate(panel_size(kernels_.panel_rows, deepest_));
      scratch.edited.resize(tail_.layers.size());
      if (form_once_)
        for (size_t l = 0; l < tail_.layers.size(); ++l)
          if (shared_[l] == nullptr)
            scratch.edited[l] =
                std::make_unique<Panels>(kernels_, tail_.layers[l].outputs, tail_.layers[l].inputs);
      if (!shared_product_) continue;
      scratch.reduced = allocate(first().factors.rank * kTile);
      scratch.left = std::make_unique<Panels>(kernels_, first().outputs, first().factors.rank);
      scratch.right = std::make_unique<Panels>(kernels_, first().factors.rank, first().inputs);
    }
  }

  // Activations of chunks start..start+count-1 in tile layout and, for shift, their shared product.
  void pack_span(int64_t start, int64_t count) {
    const int64_t from = start * chunk_tiles_;
    const int64_t tiles = std::min((start + count) * chunk_tiles_, samples_.tiles()) - from;
    spread(tiles, threads_, [&](int64_t t, int) {
      float* tile = inputs_ + t * first().inputs * kTile;
      kernels_.pack_tile(tail_.activations + (from + t) * kTile * first().inputs, samples_.valid(from + t),
                         first().inputs, bf16(), tile);
      if (!shared_product_) return;
      Product product{};
      product.tile = tile;
      product.bias = first().bias;
      product.out = products_ + t * first().outputs * kTile;
      shared_.front()->multiply(product);
    });
  }

  // One candidate on one chunk of the span: all layers, then the counting.
  void score(int64_t n, int64_t start, int64_t chunk, double* loss, bool counters_shared, Scratch& scratch) {
    const int64_t t0 = chunk * chunk_tiles_;  // in the span
    const int64_t base = start * chunk_tiles_;
    const int64_t tiles = std::min(chunk_tiles_, samples_.tiles() - base - t0);
    const float* in = inputs_ + t0 * first().inputs * kTile;
    for (size_t l = 0; l < tail_.layers.size(); ++l) {
      float* out = scratch.outputs[l % 2].get();
      const bool last = l + 1 == tail_.layers.size();
      if (l == 0 && shared_product_)
        correct_product(n, in, t0, tiles, !last && bf16(), out, scratch);
      else
        forward(n, l, in, tiles, !last && bf16(), out, scratch);
      in = out;
    }
    const TileTally counters =
        tile_tally(tally_, n, tail_.samples.group_count, tail_.classes(), loss, counters_shared);
    for (int64_t t = 0; t < tiles; ++t)
      kernels_.count(in + t * tail_.classes() * kTile, tail_.classes(), samples_.tile(base + t0 + t), counters);
  }

  // The weights of candidate n in layer l.
  PanelSource edited(int64_t n, size_t l) const {
    const Layer& layer = tail_.layers[l];
    PanelSource source = unedited(layer.weight, layer.inputs);
    if (layer.per_candidate) source.weight += n * layer.outputs * layer.inputs;
    source.rank = layer.factors.rank;
    if (source.rank > 0) {
      source.left = layer.factors.left + n * layer.outputs * source.rank;
      source.right = layer.factors.right + n * source.rank * layer.inputs;
    }
    return source;
  }

  void form(int64_t n, Scratch& scratch) const {
    for (size_t l = 0; l < tail_.layers.size(); ++l)
      if (scratch.edited[l] != nullptr) scratch.edited[l]->pack(edited(n, l));
  }

  // Layer l with weights that are packed already, or formed here one panel at a time.
  void forward(int64_t n, size_t l, const float* in, int64_t tiles, bool round, float* out,
               Scratch& scratch) const {
    const Layer& layer = tail_.layers[l];
    Product product{};
    product.nonlinearity = layer.nonlinearity;
    product.round_bf16 = round;
    product.depth = layer.inputs;
    const Panels* packed = shared_[l] != nullptr ? shared_[l].get() : scratch.edited[l].get();
    if (packed != nullptr) {
      product.bias = layer.bias;
      for (int64_t t = 0; t < tiles; ++t) {
        product.tile = in + t * layer.inputs * kTile;
        product.out = out + t * layer.outputs * kTile;
        packed->multiply(product);
      }
      return;
    }
    const PanelSource source = edited(n, l);
    for (int64_t row = 0; row < layer.outputs; row += kernels_.panel_rows) {
      PanelSource part = source;
      part.rows = static_cast<int>(std::min<int64_t>(kernels_.panel_rows, layer.outputs - row));
      part.weight += row * layer.inputs;
      if (part.rank > 0) part.left += row * part.rank;
      kernels_.pack_panel(part, scratch.panel.get());
      product.panel = scratch.panel.get();
      product.rows = part.rows;
      product.bias = layer.bias != nullptr ? layer.bias + row : nullptr;
      for (int64_t t = 0; t < tiles; ++t) {
        product.tile = in + t * layer.inputs * kTile;
        product.out = out + (t * layer.outputs + row) * kTile;
        kernels_.multiply(product);
      }
    }
  }

  // The first layer under shift: X W^T + b is there already, s (X right^T) left^T is added.
  void correct_product(int64_t n, const float* in, int64_t t0, int64_t tiles, bool round, float* out,
                       Scratch& scratch) const {
    const Layer& layer = first();
    const int64_t rank = layer.factors.rank;
    scratch.right->pack(unedited(layer.factors.right + n * rank * layer.inputs, layer.inputs));
    scratch.left->pack(unedited(layer.factors.left + n * layer.outputs * rank, rank, tail_.scale));
    for (int64_t t = 0; t < tiles; ++t) {
      Product reduce{};
      reduce.tile = in + t * layer.inputs * kTile;
      reduce.out = scratch.reduced.get();
      reduce.round_bf16 = bf16();
      scratch.right->multiply(reduce);
      Product correct{};
      correct.tile = scratch.reduced.get();
      correct.initial = products_ + (t0 + t) * layer.outputs * kTile;
      correct.out = out + t * layer.outputs * kTile;
      correct.nonlinearity = layer.nonlinearity;
      correct.round_bf16 = round;
      scratch.left->multiply(correct);
    }
  }

  const Kernels& kernels_;
  const int threads_;
  const Tail& tail_;
  const Tally& tally_;
  PackedSamples samples_;
  bool shared_product_ = false;
  bool form_once_ = false;
  int64_t widest_output_ = 0;
  int64_t deepest_ = 0;
  int64_t chunk_tiles_ = 0;
  int64_t span_chunks_ = 0;
  std::vector<std::unique_ptr<Panels>> shared_;  // per layer; null where candidates have their own
  float* inputs_ = nullptr;                      // [tiles of a span][first.inputs][kTile]
  float* products_ = nullptr;                    // [tiles of a span][first.outputs][kTile]
  std::vector<Scratch> scratch_;
};

}  // namespace
}  // namespace cpu

void score_tail(const Tail& tail, const Tally& tally) {
  if (tail.samples.count == 0 || tail.candidates == 0) return;
  cpu::Scorer(tail, tally).run();
}

}  // namespace rledit
