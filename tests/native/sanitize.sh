#!/usr/bin/env bash
# The core's tests in builds that check every access, every shift and every lock:
#   address  the extension, the C++ tests and the CUDA kernels on the CPU with AddressSanitizer and
#            UndefinedBehaviorSanitizer
#   thread   the C++ tests with ThreadSanitizer
# on every instruction set of this machine and on emulated AMX tiles.
#
#   tests/native/sanitize.sh build BIN [brief]   needs a wheel of rledit in dist/, to ask it about this machine
#   tests/native/sanitize.sh test BIN [brief]    needs what was built, and BIN with rledit and its tests' needs
#
# BIN: bin/ of an environment. brief, which `make test` runs: C++ tests and extension on this machine's best
# instruction set, the latter on the baseline too with fewer cases, under AddressSanitizer; neither emulated tiles nor
# the CUDA kernels.
set -euo pipefail
step=$1
bin=$(cd "$2" && pwd)
brief=${3:-}
cd "$(dirname "$0")/../.."
out=$PWD/build/sanitize
cxx=${CXX:-g++}
asan=$($cxx -print-file-name=libasan.so 2>/dev/null || true)

can() { echo 'int main() {}' | $cxx "-fsanitize=$1" -x c++ - -o /dev/null 2>/dev/null; }
if [ "$(uname)" != Linux ] || [ ! -f "$asan" ] || ! can address,undefined || ! can thread; then
  echo "sanitize: skipped; it needs Linux, and $cxx with its sanitizers"
  exit 0
fi

# Starts each argument, a function, at once; then prints what each has to say and fails if one of them did.
at_once() {
  local -A started
  local name failed=0
  for name in "$@"; do
    "$name" >"$out/$name.log" 2>&1 &
    started[$name]=$!
  done
  for name in "$@"; do
    wait "${started[$name]}" || failed=1
    echo "--- $name"
    cat "$out/$name.log"
  done
  return $failed
}

# What this machine cannot run need not be compiled. The wheel's core tells, which needs neither Python packages
# nor to be installed.
choose_isas() {
  rm -rf "$out/wheel"
  "$bin/python" -m zipfile -e dist/rledit-*.whl "$out/wheel"
  isas=$(cd "$out/wheel/rledit" && "$bin/python" -c "import _native; print(*_native.available_isas(), sep=';')")
  # AMX is emulated, and where it is built AVX-512 has to be.
  tiles=ON
  if [ -n "$brief" ]; then isas=${isas#amx;} isas=${isas%%;*} tiles=OFF; fi
}

# Builds what an sdist would, with the flags $2 and more settings of the build. Of the extension itself -O0: with
# the sanitizers pybind11 takes a minute to optimize.
build() {
  rm -rf "${out:?}/$1"
  "$bin/python" -m pip --disable-pip-version-check wheel --quiet --no-deps --wheel-dir "$out/$1" . \
    -C build-dir="$out/$1/cmake" -C cmake.build-type=RelWithDebInfo \
    -C cmake.define.CMAKE_CXX_COMPILER="$cxx" -C cmake.define.CMAKE_CXX_FLAGS="$2" \
    -C cmake.define.CMAKE_CXX_FLAGS_RELWITHDEBINFO="-O0 -g1" -C cmake.define.RLEDIT_OPTIMIZATION=-O1 \
    -C cmake.define.RLEDIT_ISAS="$isas" -C cmake.define.RLEDIT_EMULATED_AMX=$tiles \
    -C cmake.define.RLEDIT_NATIVE_TESTS=ON "${@:3}"
}
build_address() {
  build address "-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer"
  "$bin/python" -m pip --disable-pip-version-check install --quiet --no-deps --no-index --no-warn-conflicts \
    --target "$out/address/site" "$out"/address/*.whl
}
# The C++ tests alone: Python would have to be built with ThreadSanitizer, too.
build_thread() { build thread -fsanitize=thread -C build.targets=native_tests -C install.components=none; }

# Leaks are not looked for: Python and torch keep much until they end. Sizes that no machine has must become a
# MemoryError, as they do without the sanitizer.
export ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1:malloc_context_size=2:quarantine_size_mb=32
export UBSAN_OPTIONS=print_stacktrace=1
# A child of a process with threads gets none of its own here; the tests know.
export TSAN_OPTIONS=halt_on_error=1:die_after_fork=0

cpp_address() { "$out/address/cmake/tests/native/native_tests" $brief; }
cpp_thread() {
  # Where the system spreads addresses further than ThreadSanitizer expects, it cannot start.
  local fixed=()
  if setarch "$(uname -m)" -R true 2>/dev/null; then fixed=(setarch "$(uname -m)" -R); fi
  "${fixed[@]}" "$out/thread/cmake/tests/native/native_tests"
}
# Python is no C++ program: without libstdc++ the sanitizer would miss the exceptions of the extension.
checked() {
  LD_PRELOAD="$asan $($cxx -print-file-name=libstdc++.so)" PYTHONPATH="$out/address/site" OMP_NUM_THREADS=1 "$@"
}
python_address() {
  (cd "$out" && checked "$bin/python" -c "from rledit import _native; assert 'amx_emulated' in _native.available_isas()")  # not the source tree
  RLEDIT_FUZZ_CALLS=1000 checked "$bin/pytest" -q -p no:cacheprovider \
    tests/ops/test_fuzz_native.py tests/ops/test_native.py tests/ops/test_native_amx.py \
    tests/ops/test_native_arguments.py tests/ops/test_prepared_tail.py
  # And float32 split over tiles, which is nobody's default.
  RLEDIT_AMX_FLOAT32=1 checked "$bin/pytest" -q -p no:cacheprovider -k amx_emulated tests/ops/test_ops_parity.py \
    tests/ops/test_prepared_tail.py
}
parity_address() {
  # The AVX-512 paths are one but for bfloat16: where both are there, the richer one will do.
  local which="not reference"
  if (cd "$out" && checked "$bin/python" -c "from rledit import _native as n; exit('avx512_bf16' not in n.available_isas())"); then
    which="$which and not avx512-"
  fi
  checked "$bin/pytest" -q -p no:cacheprovider -k "$which" tests/ops/test_ops_parity.py
}
# Out of bounds there is out of bounds on a GPU. The largest cases would take as long as all others.
cuda_address() {
  RLEDIT_SHIM_FLAGS="-O1 -g1 -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer" \
    checked "$bin/pytest" -q -p no:cacheprovider tests/ops/test_gpu_ops.py \
    -k "(cuda and not wide and not many and not deep and not mask) or finds"
}

# A sample of all that: each kind of test, each path of the kernels.
brief_address() {
  RLEDIT_FUZZ_CALLS=1000 checked "$bin/pytest" -q -p no:cacheprovider -m "not exhaustive" \
    tests/ops/test_fuzz_native.py tests/ops/test_native_arguments.py tests/ops/test_ops_parity.py \
    -k "fuzz or arguments or apply_lowrank or tally_logits or (every_algebra and (later or narrow))"
}

mkdir -p "$out"
case $step-$brief in
  build-)
    choose_isas
    at_once build_address build_thread
    ;;
  build-brief)
    choose_isas
    at_once build_address
    ;;
  test-brief) at_once cpp_address brief_address ;;
  test-)
    # One after the other they take as long as the parity tests, and less memory than beside each other.
    python_and_cuda() {
      python_address
      cuda_address
    }
    at_once cpp_thread cpp_address python_and_cuda parity_address
    ;;
  *)
    echo "sanitize: expected build or test, and brief or nothing; got '$step' and '$brief'" >&2
    exit 2
    ;;
esac
