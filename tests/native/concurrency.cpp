// The pool, forks and prepared tails under as many threads as come: every count is right, and a build with
// -fsanitize=thread or address finds nothing to report. Exits with 1 if a check has failed.
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <functional>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "parallel.hpp"
#include "rledit/ops.hpp"

namespace {

std::atomic<int> failures{0};

#define CHECK(condition)                                                            \
  do {                                                                              \
    if (!(condition)) {                                                             \
      std::fprintf(stderr, "%s:%d: %s is false\n", __FILE__, __LINE__, #condition); \
      failures.fetch_add(1);                                                        \
    }                                                                               \
  } while (false)

// Runs body(0), body(1), ... at once, each in a thread of its own.
void at_once(int threads, const std::function<void(int)>& body) {
  std::vector<std::thread> started;
  for (int i = 0; i < threads; ++i) started.emplace_back([&body, i] { body(i); });
  for (std::thread& thread : started) thread.join();
}

// Sets the number of threads again and again until it goes out of scope.
class ThreadChanger {
 public:
  ThreadChanger()
      : thread_([this] {
          for (int i = 0; !stop_.load(); ++i) {
            rledit::set_num_threads(1 + i % 5);
            std::this_thread::sleep_for(std::chrono::microseconds(300));
          }
        }) {}
  ~ThreadChanger() {
    stop_.store(true);
    thread_.join();
  }

 private:
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

// ------------------------------------------------------------------------------------------ the pool

// Every index once, no worker beyond those that the caller has memory for.
void count_to(int64_t count, int workers) {
  std::vector<int> calls(count, 0);
  std::vector<int64_t> of_worker(workers, 0);  // no atomics: a worker is one thread at a time
  rledit::cpu::parallel_for(count, workers, [&](int64_t index, int worker) {
    ++calls[index];
    CHECK(worker >= 0 && worker < workers);
    ++of_worker[worker];
  });
  int64_t total = 0;
  for (const int64_t calls_of_worker : of_worker) total += calls_of_worker;
  CHECK(total == count);
  for (const int times : calls) CHECK(times == 1);
}

void test_jobs_from_many_threads() {
  rledit::set_num_threads(4);
  at_once(8, [](int thread) {
    for (int i = 0; i < 200; ++i) count_to((i * 7 + thread) % 50, 1 + (i + thread) % 6);
  });
}

void test_the_number_of_threads_changes_meanwhile() {
  const ThreadChanger changer;
  at_once(4, [](int thread) {
    for (int i = 0; i < 200; ++i) {
      const int workers = rledit::num_threads();
      CHECK(workers >= 1 && workers <= 5);
      count_to(20 + thread, workers);
    }
  });
}

void test_exceptions_reach_the_caller() {
  rledit::set_num_threads(4);
  at_once(4, [](int thread) {
    for (int i = 0; i < 100; ++i) {
      const std::string text = "of thread " + std::to_string(thread);
      std::atomic<int> running{0};
      bool caught = false;
      try {
        rledit::cpu::parallel_for(40, 4, [&](int64_t index, int) {
          running.fetch_add(1);
          // Some of them throw at the same time.
          if (index % 3 == i % 3) {
            running.fetch_sub(1);
            throw std::runtime_error(text);
          }
          running.fetch_sub(1);
        });
      } catch (const std::runtime_error& error) {
        caught = error.what() == text;
      }
      CHECK(caught);
      CHECK(running.load() == 0);  // nobody works for a job whose caller has gone on
      count_to(10, 4);             // and the pool still serves
    }
  });
}

// ------------------------------------------------------------------------------------------ tails

// Arrays of exactly their size, so that a checked build sees every access beyond them.
struct Example {
  int64_t samples, inputs, hidden, classes, candidates, rank, groups;
  std::vector<float> activations, weight, bias, last, own, left, right;
  std::vector<int64_t> labels;
  std::vector<uint8_t> member;

  Example(int64_t s, int64_t i, int64_t h, int64_t c, int64_t n, int64_t r, int64_t g)
      : samples(s), inputs(i), hidden(h), classes(c), candidates(n), rank(r), groups(g) {
    std::mt19937 random(17);
    std::normal_distribution<float> normal;
    const auto fill = [&](std::vector<float>& values, int64_t size) {
      values.resize(size);
      for (float& value : values) value = normal(random);
    };
    fill(activations, samples * inputs);
    fill(weight, hidden * inputs);
    fill(bias, hidden);
    fill(last, classes * hidden);
    fill(own, candidates * hidden * inputs);
    fill(left, candidates * hidden * rank);
    fill(right, candidates * rank * inputs);
    for (int64_t k = 0; k < samples; ++k) labels.push_back(static_cast<int64_t>(random() % classes));
    for (int64_t k = 0; k < groups * samples; ++k) member.push_back(static_cast<uint8_t>(random() % 2));
  }

  rledit::Tail tail(rledit::Precision precision) const {
    rledit::Tail made;
    made.activations = activations.data();
    made.layers = {{weight.data(), bias.data(), hidden, inputs, rledit::Nonlinearity::gelu},
                   {last.data(), nullptr, classes, hidden, rledit::Nonlinearity::identity}};
    made.samples = {labels.data(), member.data(), samples, groups};
    made.precision = precision;
    return made;
  }

  rledit::Candidates edits(rledit::EditKind kind, rledit::Algebra algebra, bool with_own) const {
    rledit::Candidates made;
    made.count = candidates;
    made.edits.resize(2);
    if (with_own) made.edits[0].weight = own.data();
    made.edits[0].factors = {left.data(), right.data(), rank};
    made.rule.kind = kind;
    made.rule.scale = 0.1F;
    made.algebra = algebra;
    return made;
  }
};

struct Counts {
  std::vector<int64_t> correct, confusion;
  std::vector<double> loss;

  explicit Counts(const Example& example)
      : correct(example.candidates * example.groups),
        confusion(example.candidates * example.groups * example.classes * example.classes),
        loss(example.candidates * example.groups) {}

  rledit::Tally tally() {
    rledit::Tally made;
    made.correct = correct.data();
    made.confusion = confusion.data();
    made.loss = loss.data();
    return made;
  }
  bool operator==(const Counts& other) const {
    return correct == other.correct && confusion == other.confusion &&
           std::memcmp(loss.data(), other.loss.data(), loss.size() * sizeof(double)) == 0;
  }
};

Counts score(const rledit::PreparedTail& tail, const Example& example, const rledit::Candidates& candidates) {
  Counts counts(example);
  tail.score(candidates, counts.tally());
  return counts;
}

const std::vector<Example>& examples() {
  static const std::vector<Example> made = {
      {130, 33, 2, 2, 30, 1, 1},  // few outputs: candidates share a product
      {65, 21, 23, 4, 3, 21, 2},  // full rank
      // Large enough for several threads:
      {300, 37, 90, 5, 5, 3, 3},     // candidates for every thread
      {1500, 24, 130, 3, 1, 2, 64},  // threads share a candidate, and its counters
  };
  return made;
}

const rledit::Algebra kAlgebras[] = {rledit::Algebra::automatic, rledit::Algebra::shared_product,
                                     rledit::Algebra::formed, rledit::Algebra::formed_once};
const rledit::EditKind kKinds[] = {rledit::EditKind::shift, rledit::EditKind::mask};
const rledit::Precision kPrecisions[] = {rledit::Precision::float32, rledit::Precision::bfloat16};

bool brief = false;  // the best instruction set only: which one computes is nothing to the locks

void test_threads_share_tails_and_make_others() {
  for (const char* isa : rledit::available_isas()) {
    if (brief && std::strcmp(isa, rledit::available_isas().front()) != 0) continue;
    CHECK(rledit::select_isa(isa));
    const bool slow = std::strcmp(isa, "amx_emulated") == 0;
    for (const Example& example : examples())
      for (const rledit::Precision precision : kPrecisions) {
        if (slow && example.samples > 200) continue;
        rledit::set_num_threads(1);
        std::vector<rledit::Candidates> kinds;
        for (const rledit::EditKind kind : kKinds)
          for (const rledit::Algebra algebra : kAlgebras) {
            kinds.push_back(example.edits(kind, algebra, false));
            kinds.push_back(example.edits(kind, algebra, true));
          }
        const rledit::PreparedTail alone(example.tail(precision));
        std::vector<Counts> expected;
        for (const rledit::Candidates& kind : kinds) expected.push_back(score(alone, example, kind));
        // Not used before, so that its lazy parts are made while others want them, too.
        const rledit::PreparedTail shared(example.tail(precision));
        const ThreadChanger changer;
        at_once(4, [&](int thread) {
          // Half of the kinds each, most of them two threads': sanitizers take their time.
          for (size_t i = 0; i < kinds.size() / 2; ++i) {
            const size_t k = (i + static_cast<size_t>(thread) * 5) % kinds.size();
            CHECK(score(shared, example, kinds[k]) == expected[k]);
            if (i % 8 == 0) {
              const rledit::PreparedTail mine(example.tail(precision));
              CHECK(score(mine, example, kinds[k]) == expected[k]);
            }
          }
        });
      }
  }
}

void test_the_instruction_set_changes_meanwhile() {
  const Example& example = examples()[2];
  const rledit::Candidates candidates =
      example.edits(rledit::EditKind::shift, rledit::Algebra::automatic, false);
  const std::vector<const char*> isas = rledit::available_isas();
  std::vector<rledit::PreparedTail> tails;
  std::vector<Counts> expected;
  for (const char* isa : isas) {
    rledit::select_isa(isa);
    tails.emplace_back(example.tail(rledit::Precision::bfloat16));
    expected.push_back(score(tails.back(), example, candidates));
  }
  at_once(4, [&](int thread) {
    for (size_t i = 0; i < 24; ++i) {
      const size_t k = (i + static_cast<size_t>(thread)) % isas.size();
      rledit::select_isa(isas[(i * 3 + 1) % isas.size()]);
      CHECK(score(tails[k], example, candidates) == expected[k]);
      std::vector<const char*> known = rledit::available_isas();
      CHECK(known.size() == isas.size());
    }
  });
  rledit::select_isa(isas.front());
}

void test_the_other_ops_from_many_threads() {
  const Example& example = examples()[2];
  rledit::set_num_threads(3);
  const rledit::Factors factors{example.left.data(), example.right.data(), example.rank};
  std::vector<float> edited = example.own;
  rledit::apply_lowrank(edited.data(), example.candidates, example.hidden, example.inputs, factors,
                        rledit::EditRule{rledit::EditKind::mask, 0.5F});
  const rledit::Samples samples = example.tail(rledit::Precision::float32).samples;
  const int64_t classes = example.classes, n = 3;
  const std::vector<float> logits(example.activations.begin(),
                                  example.activations.begin() + n * example.samples * classes);
  const auto tally = [&] {
    Counts counts(example);
    rledit::tally_logits(logits.data(), n, classes, samples, counts.tally());
    return counts;
  };
  const Counts expected = tally();
  at_once(4, [&](int) {
    for (int i = 0; i < 20; ++i) {
      CHECK(tally() == expected);
      std::vector<float> mine = example.own;
      rledit::apply_lowrank(mine.data(), example.candidates, example.hidden, example.inputs, factors,
                            rledit::EditRule{rledit::EditKind::mask, 0.5F});
      CHECK(mine == edited);
    }
  });
}

// ------------------------------------------------------------------------------------------ forks

// Under ThreadSanitizer a child of a process with threads cannot start any of its own; the same checks run with
// more threads in every other build.
#if defined(__SANITIZE_THREAD__)
constexpr int kChildThreads = 1;
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
constexpr int kChildThreads = 1;
#else
constexpr int kChildThreads = 3;
#endif
#else
constexpr int kChildThreads = 3;
#endif

// Runs the checks of a child process; they fail here, too, if they fail there or do not end.
void in_child(const std::function<void()>& body) {
  const pid_t child = fork();
  if (child == 0) {
    alarm(120);
    failures.store(0);
    body();
    _exit(failures.load() == 0 ? 0 : 1);
  }
  int status = 0;
  CHECK(waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

void test_forks() {
  const Example& example = examples()[2];
  const rledit::Candidates candidates =
      example.edits(rledit::EditKind::shift, rledit::Algebra::automatic, false);
  rledit::set_num_threads(3);
  const rledit::PreparedTail tail(example.tail(rledit::Precision::float32));
  const Counts expected = score(tail, example, candidates);
  const auto body = [&] {
    CHECK(rledit::num_threads() == 3);
    if (kChildThreads < 3) rledit::set_num_threads(kChildThreads);
    CHECK(score(tail, example, candidates) == expected);
    count_to(50, 3);
    if (kChildThreads > 2) rledit::set_num_threads(2);
    const int threads = rledit::num_threads();
    in_child([&] {
      CHECK(rledit::num_threads() == threads);
      CHECK(score(tail, example, candidates) == expected);
    });
    CHECK(score(tail, example, candidates) == expected);
  };
  in_child(body);  // while the pool sleeps
  std::atomic<bool> stop{false};
  std::thread busy([&] {
    while (!stop.load()) count_to(500, 3);
  });
  for (int i = 0; i < 5; ++i) in_child(body);  // while it works, and its mutexes are held
  stop.store(true);
  busy.join();
  CHECK(score(tail, example, candidates) == expected);
}

}  // namespace

int main(int count, char** arguments) {
  brief = count > 1 && std::strcmp(arguments[1], "brief") == 0;
  const struct {
    const char* name;
    void (*run)();
  } tests[] = {
      {"jobs from many threads", test_jobs_from_many_threads},
      {"the number of threads changes meanwhile", test_the_number_of_threads_changes_meanwhile},
      {"exceptions reach the caller", test_exceptions_reach_the_caller},
      {"threads share tails and make others", test_threads_share_tails_and_make_others},
      {"the instruction set changes meanwhile", test_the_instruction_set_changes_meanwhile},
      {"the other ops from many threads", test_the_other_ops_from_many_threads},
      {"forks", test_forks},
  };
  int passed = 0;
  for (const auto& test : tests) {
    const int before = failures.load();
    const auto start = std::chrono::steady_clock::now();
    test.run();
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    const bool good = failures.load() == before;
    passed += good ? 1 : 0;
    std::printf("%s  %s (%.1f s)\n", good ? "ok    " : "FAILED", test.name, seconds.count());
    std::fflush(stdout);
  }
  const int all = static_cast<int>(sizeof(tests) / sizeof(tests[0]));
  std::printf("native tests: %d passed, %d failed\n", passed, all - passed);
  return passed == all ? 0 : 1;
}
