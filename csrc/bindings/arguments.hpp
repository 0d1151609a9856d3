// What Python passes, checked: nothing behind this file takes an argument on trust, so that no call from
// Python can read or write out of bounds.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "rledit/ops.hpp"

namespace py = pybind11;

namespace rledit::bindings {

// c_style without forcecast: a wrong dtype or layout is an error, never a silent copy.
using Floats = py::array_t<float, py::array::c_style>;
using Integers = py::array_t<int64_t, py::array::c_style>;
using Doubles = py::array_t<double, py::array::c_style>;
using Booleans = py::array_t<bool, py::array::c_style>;
using Wanted = std::vector<std::string>;

inline std::string shape_of(const py::array& array) {
  std::string text = "[";
  for (py::ssize_t i = 0; i < array.ndim(); ++i) text += (i > 0 ? ", " : "") + std::to_string(array.shape(i));
  return text + "]";
}

// Checks what the type Floats and its like do not: the shape, where -1 stands for any size, and the address,
// which may be odd where an array is a view of bytes.
inline void expect_shape(const std::string& name, const py::array& array,
                         const std::vector<int64_t>& expected) {
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

// `world` is what Python's ops call the kind of a rule.
inline EditRule rule_of(const std::string& world, float scale) {
  if (world == "shift") return {EditKind::shift, scale};
  if (world == "mask") return {EditKind::mask, scale};
  throw py::value_error("world: expected 'shift' or 'mask', got '" + world + "'");
}

inline Precision precision_of(const std::string& name) {
  if (name == "float32") return Precision::float32;
  if (name == "bfloat16") return Precision::bfloat16;
  throw py::value_error("precision: expected 'float32' or 'bfloat16', got '" + name + "'");
}

inline Nonlinearity nonlinearity_of(const std::string& name) {
  if (name == "identity") return Nonlinearity::identity;
  if (name == "relu") return Nonlinearity::relu;
  if (name == "gelu") return Nonlinearity::gelu;
  if (name == "gelu_tanh") return Nonlinearity::gelu_tanh;
  if (name == "tanh") return Nonlinearity::tanh;
  if (name == "silu") return Nonlinearity::silu;
  throw py::value_error("nonlinearity: expected identity, relu, gelu, gelu_tanh, tanh or silu, got '" + name +
                        "'");
}

inline Algebra algebra_of(const std::string& name) {
  if (name == "automatic") return Algebra::automatic;
  if (name == "shared_product") return Algebra::shared_product;
  if (name == "formed") return Algebra::formed;
  if (name == "formed_once") return Algebra::formed_once;
  throw py::value_error("algebra: expected automatic, shared_product, formed or formed_once, got '" + name +
                        "'");
}

inline Samples samples_of(const Integers& labels, const Booleans& groups, int64_t count) {
  expect_shape("labels", labels, {count});
  expect_shape("groups", groups, {-1, count});
  if (groups.shape(0) > kMaxGroups)
    throw py::value_error("groups: expected at most 64, got " + std::to_string(groups.shape(0)));
  return {labels.data(), reinterpret_cast<const uint8_t*>(groups.data()), count, groups.shape(0)};
}

inline Probe probe_of(const std::optional<Booleans>& fit, double ridge, int64_t count) {
  if (!fit) return {};
  expect_shape("fit", *fit, {count});
  if (!(ridge > 0.0 && ridge < 1e30))
    throw py::value_error("ridge: expected a positive number below 1e30, got " + std::to_string(ridge));
  return {reinterpret_cast<const uint8_t*>(fit->data()), ridge};
}

// The counts of one call as NumPy arrays; what is not wanted has size 0.
struct Counts {
  Integers correct, predicted, confusion, histogram, concordant, recalled, nearest, lower_loss;
  Doubles loss;
  Tally tally;

  // probes: whether features are at hand.
  Counts(int64_t n, int64_t g, int64_t c, const Wanted& wanted, int64_t bins, float limit, bool probes) {
    const std::vector<py::ssize_t> none = {0};
    correct = Integers(none);
    predicted = Integers(none);
    confusion = Integers(none);
    histogram = Integers(none);
    concordant = Integers(none);
    recalled = Integers(none);
    nearest = Integers(none);
    lower_loss = Integers(none);
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
        expect_bins(name, c, bins, limit, int64_t{1} << 24);
        tally.histogram = zeroed(histogram, {n, g, 2, bins});
      } else if (name == "concordant") {
        expect_bins(name, c, bins, limit, int64_t{1} << 13);
        tally.concordant = zeroed(concordant, {n, g, g});
      } else if (name == "recalled") {
        expect_probe(name, probes);
        tally.recalled = zeroed(recalled, {n, g});
      } else if (name == "nearest") {
        expect_probe(name, probes);
        tally.nearest = zeroed(nearest, {n, g});
      } else if (name == "lower_loss") {
        tally.lower_loss = zeroed(lower_loss, {n, g, g});
      } else {
        throw py::value_error(
            "wanted: expected correct, predicted, confusion, loss, histogram, concordant, recalled, nearest or "
            "lower_loss, got '" +
            name + "'");
      }
    }
    tally.bins = bins;
    tally.margin_limit = limit;
  }

  py::tuple tuple() const {
    return py::make_tuple(correct, predicted, confusion, loss, histogram, concordant, recalled, nearest,
                          lower_loss);
  }

 private:
  static void expect_probe(const std::string& part, bool probes) {
    if (!probes) throw py::value_error("wanted: " + part + " needs a probe of features, got none");
  }

  static void expect_bins(const std::string& part, int64_t classes, int64_t bins, float limit, int64_t most) {
    if (classes != 2)
      throw py::value_error("wanted: " + part + " needs 2 classes, got " + std::to_string(classes));
    if (bins < 1 || bins > most)
      throw py::value_error("bins: expected 1.." + std::to_string(most) + ", got " + std::to_string(bins));
    if (!(limit > 0.0F && limit < 1e30F))
      throw py::value_error("margin_limit: expected a positive number below 1e30, got " +
                            std::to_string(limit));
  }

  template <typename Value>
  static Value* zeroed(py::array_t<Value, py::array::c_style>& array, const std::vector<py::ssize_t>& shape) {
    array = py::array_t<Value, py::array::c_style>(shape);
    Value* data = array.mutable_data();
    std::fill(data, data + array.size(), Value{0});
    return data;
  }
};

}  // namespace rledit::bindings
