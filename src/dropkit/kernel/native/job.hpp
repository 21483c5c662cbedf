// What is asked of a kernel, and how it is cut into items.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "dtypes.hpp"

namespace dropkit {

constexpr int kTile = 8192;      // elements at a time, of which 32 are boundary: one look at them
constexpr int kRepeated = 1024;  // elements of a row's mask that is laid down: it stays in L1
constexpr int kTurned = 65536;   // elements of a mask that is transposed
constexpr int kChunk = 512;      // no instruction set draws more bytes at once
constexpr int kMostDims = 66;    // PyTorch's 64, and two that count tiles
constexpr int kPast = 64;        // bytes that a vector may read past a mask
constexpr uint64_t kCertain = uint64_t{1} << 40;  // the threshold of p = 1

enum class Form : int { plain, affine, relu, add, bias_add };

enum Operand : int { X, Y, RESIDUAL, BIAS, MASK, RATE, kOperands };

struct Dim {
  int64_t size;
  int64_t stride[kOperands];  // in elements; MASK in indices, RATE in rates
};

// Rows of `inner`, cut into tiles, under an odometer of outer dimensions. An item is one tile:
// a block of `second` x `inner`, where `second` is trivial except where the mask has to be
// transposed (it runs along `second`), or where short rows share one (it is the same all along).
struct Layout {
  std::vector<Dim> outer;  // the last runs fastest
  Dim inner, second;
  int inner_tile, second_tile;
  int inner_axis, second_axis;  // where in `outer` the tiles are counted
  int64_t phase;                // the first tile of a row is shorter by this
  int64_t items;
  int ahead;  // indices worth drawing at once, as rows lie close together in the mask; or 0
  int64_t elements;

  Layout(std::vector<Dim> dims, uint64_t base);
};

struct Job {
  Form form;
  DType dtype;
  const void* x;  // null: ones
  void* y;
  const void* residual;  // null: none
  const void* bias;
  bool keep_only;  // y is one byte per element: 1 where kept
  uint64_t base, key, threshold;
  double scale, shift, fill;
  const uint64_t* thresholds;  // null: the same for all
  const double* scales;
};

// The kernels of one instruction set. Each does a part of the work: items, or elements, from
// `begin` to `end`.
struct Target {
  const char* name;
  void (*run)(const Layout&, const Job&, int64_t begin, int64_t end);
  void (*relu_backward)(const void* grad, const void* y, void* out, DType, double scale,
                        int64_t begin, int64_t end);
  void (*words)(uint32_t* y, uint64_t base, uint64_t key, uint32_t domain, int64_t begin,
                int64_t end);
  void (*uniform)(float* y, uint64_t base, uint64_t key, int64_t begin, int64_t end);
};

extern const Target kPortable, kAvx2, kAvx512, kNeon;

}  // namespace dropkit
