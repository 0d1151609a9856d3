// rledit._native: the ops on NumPy arrays.
#include <pybind11/stl.h>

#include "../cpu/cpus.hpp"
#include "arguments.hpp"
#include "rledit/ops.hpp"
#include "tails.hpp"

using namespace rledit::bindings;
using namespace py::literals;

namespace {

void apply_lowrank(Floats weight, const Floats& left, const Floats& right, const std::string& world,
                   float scale) {
  expect_shape("weight", weight, {-1, -1, -1});
  const int64_t n = weight.shape(0), o = weight.shape(1), i = weight.shape(2);
  expect_shape("left", left, {n, o, -1});
  expect_shape("right", right, {n, left.shape(2), i});
  const rledit::Factors factors{left.data(), right.data(), left.shape(2)};
  float* data = weight.mutable_data();  // throws where the array is read-only
  const rledit::EditRule rule = rule_of(world, scale);
  const py::gil_scoped_release release;
  rledit::apply_lowrank(data, n, o, i, factors, rule);
}

// A tail, and the arrays that it reads where they lie.
struct Prepared {
  rledit::PreparedTail tail;
  PerLayer weights;
};

Prepared prepare(const Floats& activations, const PerLayer& weights, const PerLayer& biases,
                 const std::vector<std::string>& nonlinearities, const Integers& labels, const Booleans& groups,
                 const std::string& precision, bool weights_stay, const std::optional<Booleans>& fit,
                 double ridge) {
  rledit::Tail tail = tail_of(activations, weights, biases, nonlinearities, labels, groups, precision);
  tail.weights_stay = weights_stay;
  tail.probe = probe_of(fit, ridge, tail.samples.count);
  PerLayer kept;
  if (weights_stay) kept = weights;
  auto make = [&] {
    const py::gil_scoped_release release;
    return rledit::PreparedTail(tail);
  };
  return Prepared{make(), std::move(kept)};
}

py::tuple score_prepared(const Prepared& prepared, const PerLayer& weights, const PerLayer& lefts,
                         const PerLayer& rights, int64_t candidates, const std::string& world, float scale,
                         const Wanted& wanted, int64_t bins, float margin_limit, const std::string& algebra) {
  const rledit::PreparedTail& tail = prepared.tail;
  const rledit::Candidates population =
      candidates_of(tail.layers(), weights, lefts, rights, candidates, rule_of(world, scale), algebra);
  Counts counts(candidates, tail.group_count(), tail.classes(), wanted, bins, margin_limit, tail.has_probe());
  {
    const py::gil_scoped_release release;
    tail.score(population, counts.tally);
  }
  return counts.tuple();
}

py::tuple tally_logits(const Floats& logits, const Integers& labels, const Booleans& groups,
                       const Wanted& wanted, int64_t bins, float margin_limit) {
  expect_shape("logits", logits, {-1, -1, -1});
  const int64_t n = logits.shape(0), s = logits.shape(1), c = logits.shape(2);
  if (c < 1) throw py::value_error("logits: expected at least one class, got shape " + shape_of(logits));
  const rledit::Samples samples = samples_of(labels, groups, s);
  Counts counts(n, groups.shape(0), c, wanted, bins, margin_limit, false);
  {
    const py::gil_scoped_release release;
    rledit::tally_logits(logits.data(), n, c, samples, counts.tally);
  }
  return counts.tuple();
}

py::tuple tally_features(const Floats& features, const Integers& labels, const Booleans& groups,
                         const Booleans& fit, double ridge, int64_t classes, const Wanted& wanted) {
  expect_shape("features", features, {-1, -1, -1});
  const int64_t n = features.shape(0), s = features.shape(1), width = features.shape(2);
  if (width < 1) throw py::value_error("features: expected at least one, got shape " + shape_of(features));
  if (classes < 1 || classes > 1 << 24)
    throw py::value_error("classes: expected 1..16777216, got " + std::to_string(classes));
  for (const std::string& name : wanted)
    if (name != "recalled" && name != "nearest")
      throw py::value_error("wanted: expected recalled or nearest, got '" + name + "'");
  const rledit::Samples samples = samples_of(labels, groups, s);
  const rledit::Probe probe = probe_of(fit, ridge, s);
  Counts counts(n, groups.shape(0), classes, wanted, 1, 1.0F, true);
  {
    const py::gil_scoped_release release;
    rledit::tally_features(features.data(), n, width, classes, samples, probe, counts.tally);
  }
  return py::make_tuple(counts.recalled, counts.nearest);
}

double probe_peak(const std::string& precision, double seconds) {
  const rledit::Precision kind = precision_of(precision);
  if (!(seconds > 0.0 && seconds <= 60.0)) throw py::value_error("seconds: expected above 0 and at most 60");
  const py::gil_scoped_release release;
  return rledit::probe_peak(kind, seconds);
}

double probe_bandwidth(int64_t bytes, double seconds) {
  if (bytes < (1 << 16) || bytes > (int64_t{1} << 34))
    throw py::value_error("bytes: expected 65536..17179869184, got " + std::to_string(bytes));
  if (!(seconds > 0.0 && seconds <= 60.0)) throw py::value_error("seconds: expected above 0 and at most 60");
  const py::gil_scoped_release release;
  return rledit::probe_bandwidth(bytes, seconds);
}

Doubles weigh_shares(const Integers& counts, const std::vector<std::tuple<int64_t, double, double>>& shares) {
  expect_shape("counts", counts, {-1, -1});
  std::vector<rledit::Share> terms;
  for (const auto& [group, weight, total] : shares) {
    if (group < 0 || group >= counts.shape(1))
      throw py::value_error("shares: expected groups in 0.." + std::to_string(counts.shape(1) - 1) + ", got " +
                            std::to_string(group));
    if (!(total > 0.0))
      throw py::value_error("shares: expected a positive total, got " + std::to_string(total));
    terms.push_back({group, weight, total});
  }
  Doubles values(counts.shape(0));
  rledit::weigh_shares(counts.data(), counts.shape(0), counts.shape(1), terms, values.mutable_data());
  return values;
}

void select_isa(const std::string& name) {
  if (rledit::select_isa(name.c_str())) return;
  std::string known;
  for (const char* isa : rledit::available_isas()) known += std::string(known.empty() ? "" : ", ") + isa;
  throw py::value_error("isa: this machine has " + known + "; got '" + name + "'");
}

void set_num_threads(int threads) {
  constexpr int most = rledit::cpu::kMostThreads;
  if (threads < 1 || threads > most)
    throw py::value_error("threads: expected 1.." + std::to_string(most) + ", got " + std::to_string(threads));
  const py::gil_scoped_release release;
  rledit::set_num_threads(threads);
}

}  // namespace

PYBIND11_MODULE(_native, module) {
  module.doc() = "The compiled core of rledit on NumPy arrays; rledit.ops holds the definitions.";
  module.def("apply_lowrank_", &apply_lowrank, "weight"_a.noconvert(), "left"_a.noconvert(),
             "right"_a.noconvert(), "world"_a, "scale"_a);
  // Local to the module, so that another extension, or another version of this one, may bind the type, too.
  py::class_<Prepared>(module, "PreparedTail", py::module_local(), "A tail packed for many calls of score().")
      .def(py::init(&prepare), "activations"_a.noconvert(), "weights"_a.noconvert(), "biases"_a.noconvert(),
           "nonlinearities"_a, "labels"_a.noconvert(), "groups"_a.noconvert(), "precision"_a,
           "weights_stay"_a = false, "fit"_a.noconvert() = py::none(), "ridge"_a = 1e-3)
      .def("score", &score_prepared, "weights"_a.noconvert(), "lefts"_a.noconvert(), "rights"_a.noconvert(),
           "candidates"_a, "world"_a, "scale"_a, "wanted"_a, "bins"_a, "margin_limit"_a,
           "algebra"_a = "automatic")
      .def_property_readonly(
          "bytes", [](const Prepared& prepared) { return prepared.tail.bytes(); }, "Memory that it owns.");
  module.def("tally_logits", &tally_logits, "logits"_a.noconvert(), "labels"_a.noconvert(),
             "groups"_a.noconvert(), "wanted"_a, "bins"_a, "margin_limit"_a);
  module.def("tally_features", &tally_features, "features"_a.noconvert(), "labels"_a.noconvert(),
             "groups"_a.noconvert(), "fit"_a.noconvert(), "ridge"_a, "classes"_a, "wanted"_a);
  module.def("weigh_shares", &weigh_shares, "counts"_a.noconvert(), "shares"_a,
             "Per row of counts, the sum of weight * counts[group] / total over (group, weight, total).");
  module.def("available_isas", &rledit::available_isas, "Instruction sets of this machine, best first.");
  module.def("active_isa", &rledit::active_isa);
  module.def("select_isa", &select_isa, "name"_a,
             "For calls and PreparedTails to come. Reads RLEDIT_AMX_FLOAT32 anew.");
  module.def("num_threads", &rledit::num_threads,
             "At first RLEDIT_NUM_THREADS, else OMP_NUM_THREADS, else the CPUs that this process may use.");
  module.def("set_num_threads", &set_num_threads, "threads"_a);
  module.def("_quota_cpus", &rledit::cpu::quota_cpus, "membership"_a, "root"_a);
  module.def("probe_peak", &probe_peak, "precision"_a, "seconds"_a,
             "Operations per second of all threads, multiply-adds in registers, two each.");
  module.def("probe_bandwidth", &probe_bandwidth, "bytes"_a, "seconds"_a,
             "Bytes per second that all threads together read from an array of this size.");
}
