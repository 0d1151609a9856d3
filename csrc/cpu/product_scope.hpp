// What a thread sets up for products and takes down again.
#pragma once

#include "kernels.hpp"

namespace rledit::cpu {

// While it lives, its thread may call the products of these kernels. On AMX the tiles are the thread's state,
// which makes every switch of context dearer until they are released: so they are, however the thread leaves.
class ProductScope {
 public:
  explicit ProductScope(const Kernels& kernels) : kernels_(kernels) { kernels_.begin(); }
  ~ProductScope() { kernels_.end(); }
  ProductScope(const ProductScope&) = delete;
  ProductScope& operator=(const ProductScope&) = delete;

 private:
  const Kernels& kernels_;
};

}  // namespace rledit::cpu
