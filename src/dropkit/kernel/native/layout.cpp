#include <algorithm>
#include <cstdlib>

#include "job.hpp"

namespace dropkit {
namespace {

uint64_t distance(int64_t stride) {
  return stride < 0 ? uint64_t{0} - static_cast<uint64_t>(stride) : static_cast<uint64_t>(stride);
}

// Is `a` followed by `b` one dimension, for every operand?
bool mergeable(const Dim& a, const Dim& b) {
  for (int o = 0; o < kOperands; ++o)
    if (static_cast<uint64_t>(a.stride[o]) !=
        static_cast<uint64_t>(b.stride[o]) * static_cast<uint64_t>(b.size))
      return false;
  return true;
}

// Largest steps in memory first, so that rows are walked as they lie; as few dimensions as can be.
std::vector<Dim> in_memory_order(std::vector<Dim> dims) {
  const auto trivial = [](const Dim& d) { return d.size == 1; };
  dims.erase(std::remove_if(dims.begin(), dims.end(), trivial), dims.end());
  const auto farther = [](const Dim& a, const Dim& b) {
    const uint64_t ya = distance(a.stride[Y]), yb = distance(b.stride[Y]);
    return ya != yb ? ya > yb : distance(a.stride[X]) > distance(b.stride[X]);
  };
  if (dims.size() > 1) std::stable_sort(dims.begin(), dims.end(), farther);
  std::vector<Dim> merged;
  merged.reserve(dims.size() + 2);  // and the tiles
  for (const Dim& d : dims) {
    if (!merged.empty() && mergeable(merged.back(), d)) {
      const int64_t size = merged.back().size * d.size;
      merged.back() = d;
      merged.back().size = size;
    } else {
      merged.push_back(d);
    }
  }
  return merged;
}

bool shared(const Dim& d) { return d.stride[MASK] == 0 && d.stride[RATE] == 0; }

// Adds the axis that counts the tiles of a dimension, if there are several.
int tiled(std::vector<Dim>& outer, const Dim& dim, int tile, int64_t phase) {
  const int64_t tiles = (dim.size + phase + tile - 1) / tile;
  if (tiles == 1) return -1;
  outer.push_back({tiles, {}});
  return static_cast<int>(outer.size()) - 1;
}

}  // namespace

Layout::Layout(std::vector<Dim> dims, uint64_t base)
    : inner{1, {1, 1, 1, 1, 1, 0}}, second{1, {}}, inner_tile(kTile), second_tile(1), phase(0),
      elements(1) {
  for (const Dim& d : dims) elements *= d.size;
  items = elements == 0 ? 0 : 1;
  inner_axis = second_axis = -1;
  ahead = 0;
  if (items == 0) return;

  outer = in_memory_order(std::move(dims));
  if (!outer.empty()) {
    inner = outer.back();
    outer.pop_back();
  }
  const int64_t step = inner.stride[MASK];

  // Where the mask runs along another dimension, rows of it are drawn there and transposed.
  if (step != 0 && step != 1 && inner.stride[RATE] == 0) {
    const auto along = std::find_if(outer.begin(), outer.end(), [](const Dim& d) {
      return d.stride[MASK] == 1 && d.stride[RATE] == 0;
    });
    if (along != outer.end()) {
      second = *along;
      outer.erase(along);
      // Thousands: steps of a power of two would meet in the same few lines of the cache.
      const int64_t most = std::clamp<int64_t>(kTurned / inner.size, 1000, kTile) / 1000 * 1000;
      second_tile = static_cast<int>(std::min(second.size, most));
      inner_tile = static_cast<int>(std::min<int64_t>(inner.size, kTurned / second_tile));
    }
  }
  const bool turned = second.size > 1;
  if (step == 1 && inner.stride[RATE] == 0 && inner.size <= kTile / 2 && !outer.empty() &&
      shared(outer.back())) {
    second = outer.back();
    outer.pop_back();
    second_tile = static_cast<int>(std::min<int64_t>(second.size, kTile / inner.size));
  }
  if (step == 1) phase = static_cast<int64_t>(base % kChunk);  // later tiles begin with a chunk

  // Rows that share a mask come one after another, if each is worth going to.
  auto repeated = outer.end();
  if (step != 0 && inner.size >= 64)
    repeated = std::stable_partition(outer.begin(), outer.end(),
                                     [](const Dim& d) { return !shared(d); });
  const std::vector<Dim> last(repeated, outer.end());
  outer.erase(repeated, outer.end());

  // Rows close together in the mask: what is drawn beyond one serves the next.
  const Dim* next = turned ? &inner : nullptr;
  if (!turned)
    for (const Dim& d : outer)
      if (d.stride[MASK] != 0) next = &d;
  const int64_t extent = turned ? second_tile : step == 1 ? inner.size : 1;
  if (next && next->stride[MASK] > 0 && extent < kTile &&
      next->stride[MASK] <= std::max<int64_t>(256, 2 * extent))
    ahead = static_cast<int>(std::min<int64_t>(
        kTile, std::min<int64_t>(next->size, kTile) * next->stride[MASK] + extent));

  second_axis = tiled(outer, second, second_tile, 0);
  inner_axis = tiled(outer, inner, inner_tile, phase);
  outer.insert(outer.end(), last.begin(), last.end());
  for (const Dim& d : outer) items *= d.size;
}

}  // namespace dropkit
