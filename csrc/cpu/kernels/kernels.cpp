// The one kernel source, compiled once per instruction set with
//   RLEDIT_ISA    the name of the namespace and of the table
//   RLEDIT_LANES  floats per vector
//   RLEDIT_ROWS   rows of the register tile
//   RLEDIT_BF16   1: bfloat16 products on vectors (AVX512_BF16); 2: on AMX tiles; 3: on emulated tiles
// It is written in GCC/Clang vector extensions, not intrinsics: the compiler maps the same lines to SSE2,
// AVX2, AVX-512 or NEON. Only what has no such form (bfloat16 products, sample bits of a comparison) is an
// intrinsic, behind its macro. Everything lives in an unnamed namespace or in the instruction set's own, and no
// std:: template is used, so that the linker can never pick an instance from this file for code that must run
// on older CPUs.
#include "kernels.hpp"

#include "layouts.hpp"
#include "vector_math.hpp"
// The parts, in the order of a call.
#include "editing.hpp"
#include "moments.hpp"
#include "packing.hpp"
#include "products.hpp"
#include "ranking.hpp"
#include "sparse_products.hpp"
#include "tile_counting.hpp"
#if RLEDIT_BF16
#include "paired_packing.hpp"
#endif
#if RLEDIT_BF16 == 1
#include "paired_products.hpp"
#elif RLEDIT_BF16 > 1
#include "amx_products.hpp"
#endif
#include "correcting.hpp"
#include "probing.hpp"

namespace rledit::cpu::RLEDIT_ISA {
namespace {

void pack_any_tile(const float* rows, int valid, int64_t depth, Operands operands, void* tile) {
#if RLEDIT_BF16
  if (is_paired(operands)) return pack_paired_tile(rows, valid, depth, operands, tile);
#endif
  pack_tile(rows, valid, depth, operands == Operands::rounded, static_cast<float*>(tile));
}

void to_any_tile(const float* values, int64_t depth, Operands operands, void* tile) {
#if RLEDIT_BF16
  if (is_paired(operands)) return to_paired_tile(values, depth, operands, tile);
#endif
  to_tile(values, depth, operands == Operands::rounded, static_cast<float*>(tile));
}

void pack_any_panel(const PanelSource& source, void* panel) {
#if RLEDIT_BF16
  if (is_paired(source.operands)) return pack_paired_panel(source, panel);
#endif
  pack_panel(source, static_cast<float*>(panel));
}

void multiply_any(const Product& product) {
#if RLEDIT_BF16
  if (is_paired(product.operands)) return multiply_paired(product);
#endif
  multiply(product);
}

Operands operands_of(Precision precision, int64_t depth) {
#if RLEDIT_BF16
  // A short product, like that with a small left factor, costs less than making pairs of its operands.
  const bool deep = depth >= kPairedDepth / 2;
  if (deep && precision == Precision::bfloat16) return Operands::bf16;
#endif
#if RLEDIT_BF16 > 1
  if (deep) return Operands::split;
#endif
  (void)depth;
  return precision == Precision::bfloat16 ? Operands::rounded : Operands::float32;
}

#if RLEDIT_BF16 < 2
void begin() {}
void end() {}
#endif

#define RLEDIT_STRING_(name) #name
#define RLEDIT_STRING(name) RLEDIT_STRING_(name)

}  // namespace

extern const Kernels table;
const Kernels table = {RLEDIT_STRING(RLEDIT_ISA),
                       kMaxRows,
                       RLEDIT_BF16 > 1,
                       operands_of,
                       begin,
                       end,
                       edit_row,
                       pack_any_tile,
                       to_any_tile,
                       pack_any_panel,
                       multiply_any,
                       pack_table,
                       multiply_sparse,
                       corrects,
                       correct,
                       count,
                       place,
                       place_odds,
                       pass,
                       sum_rows,
                       center,
                       add_moments,
                       add_runs,
                       recall,
                       peak,
                       read};

}  // namespace rledit::cpu::RLEDIT_ISA
