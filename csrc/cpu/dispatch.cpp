// Picks the kernel table for this CPU. Only this file knows which instruction sets exist.
#include <atomic>
#include <cstdlib>
#include <cstring>

#include "kernels.hpp"
#include "rledit/ops.hpp"

namespace rledit::cpu {

namespace portable {
extern const Kernels table;
}
#ifdef RLEDIT_X86
namespace avx2 {
extern const Kernels table;
}
namespace avx512 {
extern const Kernels table;
}
#endif

namespace {

// Best first. __builtin_cpu_supports also asks the operating system whether it saves the registers.
std::vector<const Kernels*> supported() {
  std::vector<const Kernels*> tables;
#ifdef RLEDIT_X86
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl"))
    tables.push_back(&avx512::table);
  if (avx2) tables.push_back(&avx2::table);
#endif
  tables.push_back(&portable::table);
  return tables;
}

const Kernels* find(const char* name) {
  for (const Kernels* table : supported())
    if (std::strcmp(table->name, name) == 0) return table;
  return nullptr;
}

std::atomic<const Kernels*> active{nullptr};

}  // namespace

const Kernels& kernels() {
  const Kernels* table = active.load(std::memory_order_acquire);
  if (table == nullptr) {
    table = supported().front();
    active.store(table, std::memory_order_release);
  }
  return *table;
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
  cpu::active.store(table, std::memory_order_release);
  return true;
}

}  // namespace rledit
