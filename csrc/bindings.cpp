// rledit._native: the ops on NumPy arrays. This file alone knows Python. It checks everything that the
// ops take for granted, so that no call from Python can read or write out of bounds.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "rledit/ops.hpp"

namespace py = pybind11;
using namespace py::literals;

namespace {

// c_style without forcecast: a wrong dtype or layout is an error, never a silent copy.
using Floats = py::array_t<float, py::array::c_style>;
using Integers = py::array_t<int64_t, py::array::c_style>;
using Doubles = py::array_t<double, py::array::c_style>;
using Booleans = py::array_t<bool, py::array::c_style>;

std::string shape_of(const py::array& array) {
  std::string text = "[";
  for (py::ssize_t i = 0; i < array.ndim(); ++i) text += (i > 0 ? ", " : "") + std::to_string(array.shape(i));
  return text + "]";
}

// Checks what the type Floats and its like do not: the shape, where -1 stands for any size, and the address,
// which may be odd where an array is a view of bytes.
void expect_shape(const std::string& name, const py::array& array, const std::vector<int64_t>& expected) {
  if ((array.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_) == 0)
    throw py::value_error(name + ": expected an array at an aligned address");
  bool fits = array.ndim() == static_cast<py::ssize_t>(expected.size());
  for (size_t i = 0; fits && i < expected.size(); ++i)
    fits = expected[i] < 0 || array.shape(static_cast<py::ssize_t>(i)) == expected[i];
  if (fits) return;
  std::string text = "[";
  for (size_t i = 0; i < expected.size(); ++i)
    text += (i > 0 ? ", " : "") + (expected[i] < 0 ? std::string("any") : std::to_string(expected[i]));
  throw py::value_error(name + ": expected shape " + text + "], got " + shape_of(array));
}

rledit::World world_of(const std::string& name) {
  if (name == "shift") return rledit::World::shift;
  if (name == "mask") return rledit::World::mask;
  throw py::value_error("world: expected 'shift' or 'mask', got '" + name + "'");
}

rledit::Precision precision_of(const std::string& name) {
  if (name == "float32") return rledit::Precision::float32;
  if (name == "bfloat16") return rledit::Precision::bfloat16;
  throw py::value_error("precision: expected 'float32' or 'bfloat16', got '" + name + "'");
}

rledit::Nonlinearity nonlinearity_of(const std::string& name) {
  if (name == "identity") return rledit::Nonlinearity::identity;
  if (name == "relu") return rledit::Nonlinearity::relu;
  if (name == "gelu") return rledit::Nonlinearity::gelu;
  if (name == "gelu_tanh") return rledit::Nonlinearity::gelu_tanh;
  if (name == "tanh") return rledit::Nonlinearity::tanh;
  if (name == "silu") return rledit::Nonlinearity::silu;
  throw py::value_error("nonlinearity: expected identity, relu, gelu, gelu_tanh, tanh or silu, got '" + name +
                        "'");
}

rledit::Samples samples_of(const Integers& labels, const Booleans& groups, int64_t count, int64_t classes) {
  expect_shape("labels", labels, {count});
  expect_shape("groups", groups, {-1, count});
  if (groups.shape(0) > rledit::kMaxGroups)
    throw py::value_error("groups: expected at most 64, got " + std::to_string(groups.shape(0)));
  const int64_t* label = labels.data();
  for (int64_t i = 0; i < count; ++i)
    if (label[i] < 0 || label[i] >= classes)
      throw py::value_error("labels: expected values in 0.." + std::to_string(classes - 1) + ", got " +
                            std::to_string(label[i]) + " at index " + std::to_string(i));
  return {label, reinterpret_cast<const uint8_t*>(groups.data()), count, groups.shape(0)};
}

// The counts of one call as NumPy arrays; what is not wanted has size 0.
struct Counts {
  Integers correct, predicted, confusion, histogram;
  Doubles loss;
  rledit::Tally tally;

  Counts(int64_t n, int64_t g, int64_t c, const std::vector<std::string>& wanted, int64_t bins, float limit) {
    const std::vector<py::ssize_t> none = {0};
    correct = Integers(none);
    predicted = Integers(none);
    confusion = Integers(none);
    histogram = Integers(none);
    loss = Doubles(none);
    for (const std::string& name : wanted) {
      if (name == "correct") {
        tally.correct = zeroed(correct, {n, g});
      } else if (name == "predicted") {
        tally.predicted = zeroed(predicted, {n, g, c});
      } else if (name == "confusion") {
        tally.confusion = zeroed(confusion, {n, g, c, c});
      } else if (name == "loss") {
        tally.loss = zeroed(loss, {n, g});
      } else if (name == "histogram") {
        if (c != 2) throw py::value_error("wanted: a histogram needs 2 classes, got " + std::to_string(c));
        if (bins < 1 || bins > (1 << 24))
          throw py::value_error("bins: expected 1..16777216, got " + std::to_string(bins));
        if (!(limit > 0.0F && limit < 1e30F))
          throw py::value_error("margin_limit: expected a positive number below 1e30, got " +
                                std::to_string(limit));
        tally.histogram = zeroed(histogram, {n, g, 2, bins});
      } else {
        throw py::value_error("wanted: expected correct, predicted, confusion, loss or histogram, got '" +
                              name + "'");
      }
    }
    tally.bins = bins;
    tally.margin_limit = limit;
  }

  py::tuple tuple() const { return py::make_tuple(correct, predicted, confusion, loss, histogram); }

 private:
  template <typename Value>
  static Value* zeroed(py::array_t<Value, py::array::c_style>& array, const std::vector<py::ssize_t>& shape) {
    array = py::array_t<Value, py::array::c_style>(shape);
    Value* data = array.mutable_data();
    std::fill(data, data + array.size(), Value{0});
    return data;
  }
};

void apply_lowrank(Floats weight, const Floats& left, const Floats& right, const std::string& world,
                   float scale) {
  expect_shape("weight", weight, {-1, -1, -1});
  const int64_t n = weight.shape(0), o = weight.shape(1), i = weight.shape(2);
  expect_shape("left", left, {n, o, -1});
  expect_shape("right", right, {n, left.shape(2), i});
  const rledit::Factors factors{left.data(), right.data(), left.shape(2)};
  float* data = weight.mutable_data();  // throws where the array is read-only
  const rledit::World kind = world_of(world);
  const py::gil_scoped_release release;
  rledit::apply_lowrank(data, n, o, i, factors, kind, scale);
}

py::tuple score_tail(const Floats& activations, const std::vector<Floats>& weights,
                     const std::vector<std::optional<Floats>>& biases,
                     const std::vector<std::string>& nonlinearities, const Integers& labels,
                     const Booleans& groups, const std::vector<std::optional<Floats>>& lefts,
                     const std::vector<std::optional<Floats>>& rights, int64_t candidates,
                     const std::string& world, float scale, const std::string& precision,
                     const std::vector<std::string>& wanted, int64_t bins, float margin_limit) {
  const size_t count = weights.size();
  if (count == 0) throw py::value_error("weights: expected at least one layer, got none");
  if (biases.size() != count || nonlinearities.size() != count || lefts.size() != count ||
      rights.size() != count)
    throw py::value_error("biases, nonlinearities, lefts, rights: expected one entry for each of " +
                          std::to_string(count) + " layers, got " + std::to_string(biases.size()) + ", " +
                          std::to_string(nonlinearities.size()) + ", " + std::to_string(lefts.size()) +
                          " and " + std::to_string(rights.size()));
  if (candidates < 1)
    throw py::value_error("candidates: expected at least 1, got " + std::to_string(candidates));
  expect_shape("activations", activations, {-1, -1});

  rledit::Tail tail;
  tail.activations = activations.data();
  tail.candidates = candidates;
  tail.world = world_of(world);
  tail.scale = scale;
  tail.precision = precision_of(precision);
  int64_t inputs = activations.shape(1);
  bool differ = false;  // whether anything tells one candidate from another
  for (size_t l = 0; l < count; ++l) {
    const std::string at = "[" + std::to_string(l) + "]";
    const Floats& weight = weights[l];
    rledit::Layer layer;
    layer.per_candidate = weight.ndim() == 3;
    if (layer.per_candidate)
      expect_shape("weights" + at, weight, {candidates, -1, inputs});
    else
      expect_shape("weights" + at, weight, {-1, inputs});
    layer.weight = weight.data();
    layer.inputs = inputs;
    layer.outputs = weight.shape(layer.per_candidate ? 1 : 0);
    if (layer.inputs < 1 || layer.outputs < 1)
      throw py::value_error("weights" + at + ": expected no empty side, got " + shape_of(weight));
    layer.nonlinearity = nonlinearity_of(nonlinearities[l]);
    if (biases[l]) {
      expect_shape("biases" + at, *biases[l], {layer.outputs});
      layer.bias = biases[l]->data();
    }
    if (lefts[l].has_value() != rights[l].has_value())
      throw py::value_error("lefts, rights: layer " + std::to_string(l) + " has only one of its two factors");
    if (lefts[l]) {
      expect_shape("lefts" + at, *lefts[l], {candidates, layer.outputs, -1});
      expect_shape("rights" + at, *rights[l], {candidates, lefts[l]->shape(2), layer.inputs});
      layer.factors = {lefts[l]->data(), rights[l]->data(), lefts[l]->shape(2)};
    }
    differ = differ || layer.per_candidate || lefts[l].has_value();
    inputs = layer.outputs;
    tail.layers.push_back(layer);
  }
  if (!differ && candidates != 1)
    throw py::value_error("candidates: expected 1 without factors and weights of their own, got " +
                          std::to_string(candidates));
  tail.samples = samples_of(labels, groups, activations.shape(0), tail.classes());
  Counts counts(candidates, groups.shape(0), tail.classes(), wanted, bins, margin_limit);
  {
    const py::gil_scoped_release release;
    rledit::score_tail(tail, counts.tally);
  }
  return counts.tuple();
}

py::tuple tally_logits(const Floats& logits, const Integers& labels, const Booleans& groups,
                       const std::vector<std::string>& wanted, int64_t bins, float margin_limit) {
  expect_shape("logits", logits, {-1, -1, -1});
  const int64_t n = logits.shape(0), s = logits.shape(1), c = logits.shape(2);
  if (c < 1) throw py::value_error("logits: expected at least one class, got shape " + shape_of(logits));
  const rledit::Samples samples = samples_of(labels, groups, s, c);
  Counts counts(n, groups.shape(0), c, wanted, bins, margin_limit);
  {
    const py::gil_scoped_release release;
    rledit::tally_logits(logits.data(), n, c, samples, counts.tally);
  }
  return counts.tuple();
}

void select_isa(const std::string& name) {
  if (rledit::select_isa(name.c_str())) return;
  std::string known;
  for (const char* isa : rledit::available_isas()) known += std::string(known.empty() ? "" : ", ") + isa;
  throw py::value_error("isa: this machine has " + known + "; got '" + name + "'");
}

void set_num_threads(int threads) {
  if (threads < 1 || threads > 1024)
    throw py::value_error("threads: expected 1..1024, got " + std::to_string(threads));
  const py::gil_scoped_release release;
  rledit::set_num_threads(threads);
}

}  // namespace

PYBIND11_MODULE(_native, module) {
  module.doc() = "The compiled core of rledit on NumPy arrays; rledit.ops holds the definitions.";
  module.def("apply_lowrank_", &apply_lowrank, "weight"_a.noconvert(), "left"_a.noconvert(),
             "right"_a.noconvert(), "world"_a, "scale"_a);
  module.def("score_tail", &score_tail, "activations"_a.noconvert(), "weights"_a.noconvert(),
             "biases"_a.noconvert(), "nonlinearities"_a, "labels"_a.noconvert(), "groups"_a.noconvert(),
             "lefts"_a.noconvert(), "rights"_a.noconvert(), "candidates"_a, "world"_a, "scale"_a, "precision"_a,
             "wanted"_a, "bins"_a, "margin_limit"_a);
  module.def("tally_logits", &tally_logits, "logits"_a.noconvert(), "labels"_a.noconvert(),
             "groups"_a.noconvert(), "wanted"_a, "bins"_a, "margin_limit"_a);
  module.def("available_isas", &rledit::available_isas, "Instruction sets of this machine, best first.");
  module.def("active_isa", &rledit::active_isa);
  module.def("select_isa", &select_isa, "name"_a);
  module.def("num_threads", &rledit::num_threads);
  module.def("set_num_threads", &set_num_threads, "threads"_a);
}
