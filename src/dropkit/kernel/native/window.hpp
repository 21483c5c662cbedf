// The mask of a stretch of indices, drawn where it is needed and kept while it is of use.
#pragma once
#include "philox.hpp"
#include "job.hpp"

namespace dropkit {
namespace {

inline int lowest_bit(uint64_t bits) {
#ifdef _MSC_VER
  unsigned long index;
  _BitScanForward64(&index, bits);
  return static_cast<int>(index);
#else
  return __builtin_ctzll(bits);
#endif
}

// Indices whose byte equals the threshold's: their 32 further bits decide (1 index in 256).
struct Boundary {
  static constexpr int capacity = 8192;
  int count = 0;
  uint16_t at[capacity + 64];

  // Which lanes are equal is unpredictable, so the first of a vector is noted without a branch;
  // a second is rare. `step` is the number of bits per lane.
  void note(int position, uint64_t equal, int step) {
    at[count] = static_cast<uint16_t>(position + lowest_bit(equal | uint64_t{1} << 63) / step);
    count += equal != 0;
    equal &= equal - 1;
    while (equal) {
      at[count++] = static_cast<uint16_t>(position + lowest_bit(equal) / step);
      equal &= equal - 1;
    }
  }
};

template <class S>
class Drawer {
  using Words = typename S::Words;
  using Bytes = typename S::Bytes;

 public:
  static constexpr int chunk = 4 * Bytes::size;  // bytes drawn at once

  explicit Drawer(uint64_t key) : philox_(key) {}

  // The bytes of the blocks from number `block`; 16 a block.
  void bytes(uint64_t block, uint32_t domain, Bytes (&out)[4]) const {
    S::transposed(philox_.sequence(block, domain).word, out);
  }

  // The mask of `count` indices from `first`, both multiples of `chunk`: 0xff where kept.
  void mask(uint64_t first, int count, uint64_t threshold, uint8_t* out) const {
    if (threshold == 0 || threshold >= kCertain) {
      std::memset(out, threshold == 0 ? 0xff : 0, static_cast<size_t>(count));
      return;
    }
    Boundary boundary;
    const Bytes least = Bytes::all(static_cast<uint8_t>(threshold >> 32));
    const auto low = static_cast<uint32_t>(threshold);
    for (int i = 0; i < count; i += chunk) {
      Bytes v[4];
      bytes((first + static_cast<uint64_t>(i)) >> 4, kBytesDomain, v);
      for (int j = 0; j < 4; ++j) {
        const int position = i + j * Bytes::size;
        v[j].at_least(least).store(out + position);
        if (low) boundary.note(position, v[j].equal(least), Bytes::step);
      }
    }
    settle(first, boundary, [=](int) { return low; }, [=](int position) { out[position] = 0; });
  }

  // The same with a threshold for each index, and for any indices.
  template <class Index, class Threshold>
  void scattered_mask(int count, Index index, Threshold threshold, uint8_t* out) const {
    Boundary boundary;
    for (int i = 0; i < count; i += Words::size) {
      const int live = count - i < Words::size ? count - i : Words::size;
      uint64_t indices[Words::size];
      for (int k = 0; k < Words::size; ++k) indices[k] = index(i + (k < live ? k : 0));
      uint32_t words[4][Words::size];
      words_of(indices, 4, kBytesDomain, words);
      for (int k = 0; k < live; ++k) {
        const uint64_t t = threshold(i + k), within = indices[k] & 15;
        const uint32_t byte = words[within >> 2][k] >> 8 * (within & 3) & 0xff;
        out[i + k] = byte >= t >> 32 ? 0xff : 0;
        boundary.at[boundary.count] = static_cast<uint16_t>(i + k);
        boundary.count += byte == t >> 32;
      }
    }
    settle_any(
        boundary, index, [&](int position) { return static_cast<uint32_t>(threshold(position)); },
        [=](int position) { out[position] = 0; });
  }

  template <class Low, class Drop>
  void settle(uint64_t first, Boundary& boundary, Low low, Drop drop) const {
    settle_any(boundary, [=](int position) { return first + static_cast<uint64_t>(position); }, low,
               drop);
  }

 private:
  // `drop(position)` for those boundary indices whose word is below their threshold's low bits.
  template <class Index, class Low, class Drop>
  void settle_any(Boundary& boundary, Index index, Low low, Drop drop) const {
    for (int i = 0; i < boundary.count; i += Words::size) {
      const int left = boundary.count - i, live = left < Words::size ? left : Words::size;
      uint64_t indices[Words::size];
      for (int k = 0; k < Words::size; ++k) indices[k] = index(boundary.at[i + (k < live ? k : 0)]);
      uint32_t words[4][Words::size];
      words_of(indices, 2, kBoundaryDomain, words);
      for (int k = 0; k < live; ++k) {
        const int position = boundary.at[i + k];
        if (words[indices[k] & 3][k] < low(position)) drop(position);
      }
    }
  }

  // The four words of the block of each index; a block holds 2^shift indices.
  void words_of(const uint64_t* indices, int shift, uint32_t domain,
                uint32_t (&words)[4][Words::size]) const {
    uint32_t low[Words::size], high[Words::size];
    for (int k = 0; k < Words::size; ++k) {
      const uint64_t block = indices[k] >> shift;
      low[k] = static_cast<uint32_t>(block);
      high[k] = static_cast<uint32_t>(block >> 32);
    }
    const auto blocks = philox_.scattered(Words::load(low), Words::load(high), domain);
    for (int j = 0; j < 4; ++j) blocks.word[j].store(words[j]);
  }

  Philox<S> philox_;
};

// The mask of the most recent stretch, for rows that lie close together, or come back.
template <class S>
class Window {
 public:
  explicit Window(const Drawer<S>& drawer) : drawer_(drawer) {}

  // The mask of `count` <= kTile indices from `first`; it draws `ahead` >= count if it must draw.
  const uint8_t* at(uint64_t first, int count, int ahead, uint64_t threshold) {
    const uint64_t skipped = first - start_;
    if (threshold == threshold_ && skipped < static_cast<uint64_t>(length_) &&
        skipped + static_cast<uint64_t>(count) <= static_cast<uint64_t>(length_))
      return mask_ + skipped;
    constexpr int chunk = Drawer<S>::chunk;
    const int before = static_cast<int>(first % chunk);
    start_ = first - static_cast<uint64_t>(before);
    length_ = (before + ahead + chunk - 1) / chunk * chunk;
    threshold_ = threshold;
    drawer_.mask(start_, length_, threshold, mask_);
    return mask_ + before;
  }

 private:
  const Drawer<S>& drawer_;
  uint64_t start_ = 0, threshold_ = 0;
  int length_ = 0;
  // A vector may read past the end of a mask; no chunk is longer than 256.
  alignas(64) uint8_t mask_[kTile + 2 * 256 + 64];
};

}  // namespace
}  // namespace dropkit
