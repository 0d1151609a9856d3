// Where values lie in tiles and panels, whose layouts kernels.hpp describes.
//
// The kernels compute with these, and so does the rest of the core. To the linker inline functions of one name
// are one function, of which it keeps any object's: where they were not inlined, AVX-512 code for everybody. So
// every instruction set has them under its own name.
#pragma once

#include "kernels.hpp"

#ifdef RLEDIT_ISA
namespace rledit::cpu::RLEDIT_ISA {
#else
namespace rledit::cpu {
#endif

inline bool is_paired(Operands operands) { return operands == Operands::bf16 || operands == Operands::split; }

inline int64_t padded_depth(Operands operands, int64_t depth) {
  const int64_t unit = is_paired(operands) ? kPairedDepth : kPanelDepth;
  return (depth + unit - 1) / unit * unit;
}

// Bytes of a bf16 tile or panel, and of the first half of a split one.
inline int64_t paired_bytes(int64_t columns, int64_t depth) {
  return padded_depth(Operands::bf16, depth) * columns * int64_t{2};
}

inline int64_t tile_bytes(Operands operands, int64_t depth) {
  if (!is_paired(operands)) return depth * kTile * int64_t{sizeof(float)};
  return paired_bytes(kTile, depth) * (operands == Operands::split ? 2 : 1);
}

// Bytes from a panel's first row to another of its rows, and from its first input, or a tile's, to another
// that is a multiple of kPairedDepth.
inline int64_t row_offset(Operands operands, int64_t row) {
  return row * (is_paired(operands) ? int64_t{2} * kPairedDepth : int64_t{4} * kPanelDepth);
}
inline int64_t panel_offset(Operands operands, int64_t stored_rows, int64_t input) {
  return input * stored_rows * (is_paired(operands) ? 2 : 4);
}
inline int64_t tile_offset(Operands operands, int64_t input) {
  return input * kTile * (is_paired(operands) ? 2 : 4);
}

}  // namespace
