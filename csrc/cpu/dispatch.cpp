// Picks the kernel table for this CPU. Only this file knows which instruction sets exist.
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>

#ifdef RLEDIT_HAS_AMX
#include <cpuid.h>
#ifdef __linux__
#include <sys/syscall.h>
#include <unistd.h>
#endif
#endif

#include "kernels.hpp"
#include "rledit/ops.hpp"

namespace rledit::cpu {

namespace portable {
extern const Kernels table;
}
#ifdef RLEDIT_HAS_AVX2
namespace avx2 {
extern const Kernels table;
}
#endif
#ifdef RLEDIT_HAS_AVX512
namespace avx512 {
extern const Kernels table;
}
#endif
#ifdef RLEDIT_HAS_AVX512_BF16
namespace avx512_bf16 {
extern const Kernels table;
}
#endif
#ifdef RLEDIT_HAS_AMX
namespace amx {
extern const Kernels table;
}
#endif
#ifdef RLEDIT_EMULATED_AMX
namespace amx_emulated {
extern const Kernels table;
}
#endif

namespace {

#ifdef RLEDIT_HAS_AMX
// Linux gives the tile registers to a process that asks for them: they make every saved context 8 KiB larger.
bool grants_tiles() {
#ifdef __linux__
  constexpr long kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr long kTileData = 18;               // XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

bool has_amx() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return false;
  constexpr unsigned kBf16 = 1U << 22, kTile = 1U << 24;
  return (d & kBf16) != 0 && (d & kTile) != 0 && grants_tiles();
}
#endif

// Best first. __builtin_cpu_supports also asks the operating system whether it saves the registers.
std::vector<const Kernels*> find_supported() {
  std::vector<const Kernels*> tables;
#ifdef RLEDIT_X86
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
  (void)avx512;  // where a build has none of these
#ifdef RLEDIT_HAS_AMX
  if (avx512 && has_amx()) tables.push_back(&amx::table);
#endif
#ifdef RLEDIT_HAS_AVX512_BF16
  if (avx512 && __builtin_cpu_supports("avx512bf16")) tables.push_back(&avx512_bf16::table);
#endif
#ifdef RLEDIT_HAS_AVX512
  if (avx512) tables.push_back(&avx512::table);
#endif
#ifdef RLEDIT_HAS_AVX2
  if (avx2) tables.push_back(&avx2::table);
#endif
#endif
  tables.push_back(&portable::table);
#ifdef RLEDIT_EMULATED_AMX
  tables.push_back(&amx_emulated::table);  // never the best: for tests that ask for it
#endif
  return tables;
}

const std::vector<const Kernels*>& supported() {
  static const std::vector<const Kernels*> tables = find_supported();
  return tables;
}

const Kernels* find(const char* name) {
  for (const Kernels* table : supported())
    if (std::strcmp(table->name, name) == 0) return table;
  return nullptr;
}

// AMX has no float32. Splitting values into two bfloat16 makes products of it, but less exact ones than
// multiply-adds, and no CPU has been measured with them yet. So they are for those who ask.
bool splits_float32() {
  const char* value = std::getenv("RLEDIT_AMX_FLOAT32");
  const std::string text = value != nullptr ? value : "";
  if (text.empty() || text == "0") return false;
  if (text == "1") return true;
  throw std::invalid_argument("RLEDIT_AMX_FLOAT32: expected 0 or 1, got '" + text + "'");
}

// Whose products of float32 go with a table.
const Kernels* float32_of(const Kernels* table, bool split) {
#ifdef RLEDIT_HAS_AMX
  if (table == &amx::table && !split) return &avx512::table;
#endif
#ifdef RLEDIT_EMULATED_AMX
  if (table == &amx_emulated::table && !split) return &portable::table;
#endif
  (void)split;
  return table;
}

std::atomic<const Kernels*> active{nullptr};
std::atomic<const Kernels*> active_float32{nullptr};

void activate(const Kernels* table) {
  active_float32.store(float32_of(table, splits_float32()), std::memory_order_release);
  active.store(table, std::memory_order_release);  // last: whoever sees it sees the other
}

}  // namespace

const Kernels& kernels() {
  if (active.load(std::memory_order_acquire) == nullptr) activate(supported().front());
  return *active.load(std::memory_order_acquire);
}

const Kernels& kernels(Precision precision) {
  const Kernels& table = kernels();
  return precision == Precision::float32 ? *active_float32.load(std::memory_order_acquire) : table;
}

}  // namespace rledit::cpu

namespace rledit {

std::vector<const char*> available_isas() {
  std::vector<const char*> names;
  for (const cpu::Kernels* table : cpu::supported()) names.push_back(table->name);
  return names;
}

const char* active_isa() { return cpu::kernels().name; }

bool select_isa(const char* name) {
  const cpu::Kernels* table = cpu::find(name);
  if (table == nullptr) return false;
  cpu::activate(table);
  return true;
}

}  // namespace rledit
