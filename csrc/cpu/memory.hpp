// Aligned memory for packed data.
#pragma once

#include <cstdint>
#include <memory>
#include <new>

namespace rledit::cpu {

struct FreeAligned {
  void operator()(char* memory) const { ::operator delete[](memory, std::align_val_t{64}); }
};
using Buffer = std::unique_ptr<char[], FreeAligned>;

inline Buffer allocate(int64_t bytes) {
  return Buffer(static_cast<char*>(::operator new[](bytes, std::align_val_t{64})));
}

// Memory of the calling thread that outlives the call: fresh pages for every call would cost more than a
// single candidate does. `which` tells buffers in use at the same time apart.
template <int which>
char* recycled(int64_t bytes) {
  thread_local Buffer memory;
  thread_local int64_t size = 0;
  if (size < bytes) {
    memory = nullptr;
    size = 0;
    memory = allocate(bytes);
    size = bytes;
  }
  return memory.get();
}

}  // namespace rledit::cpu
