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
  static constexpr int capacity = kTile + 2 * kChunk;
  int count = 0;
  uint16_t at[capacity + 64];

  // The set bits of `equal`, `step` bits to an index. Whether there are any is unpredictable, so
  // the first is noted without a branch; a second is rare.
  void note(int position, uint64_t equal, int step) {
    at[count] = static_cast<uint16_t>(position + lowest_bit(equal | uint64_t{1} << 63) / step);
    count += equal != 0;
    for (equal &= equal - 1; equal; equal &= equal - 1)
      at[count++] = static_cast<uint16_t>(position + lowest_bit(equal) / step);
  }

  // The last again, so that whole vectors can be taken.
  void pad(int by) {
    for (int k = 0; count > 0 && k < by; ++k) at[count + k] = at[count - 1];
  }
};

template <class S>
class Drawer {
  using Words = typename S::Words;
  using Bytes = typename S::Bytes;

 public:
  static constexpr int vectors = 4 * S::chains;
  static constexpr int chunk = vectors * Bytes::size;  // bytes drawn at once
  static_assert(chunk <= kChunk && kChunk % chunk == 0);

  explicit Drawer(uint64_t key) : philox_(key) {}

  // The bytes of the blocks from number `block`; 16 a block.
  template <class Between>
  void bytes(uint64_t block, uint32_t domain, Bytes (&out)[vectors], Between between) const {
    Blocks<S> c[S::chains];
    philox_.sequence(block, domain, c, between);
    for (int n = 0; n < S::chains; ++n) S::transposed(c[n].word, out + 4 * n);
  }

  // The mask of `count` indices from `first`, both multiples of `chunk`: 0xff where kept.
  void mask(uint64_t first, int count, uint64_t threshold, uint8_t* out) const {
    if (trivial(threshold)) {
      std::memset(out, threshold == 0 ? 0xff : 0, static_cast<size_t>(count));
      return;
    }
    Boundary boundary;
    uint64_t equal[Boundary::capacity / Bytes::size];
    for (int i = 0; i < count; i += chunk)
      first_look(first + static_cast<uint64_t>(i), threshold, out + i, equal + i / Bytes::size,
                 [](int) {});
    const auto low = static_cast<uint32_t>(threshold);
    if (low == 0) return;
    for (int i = 0; i < count; i += chunk) note(boundary, i, equal + i / Bytes::size);
    settle_run(boundary, first, low, [out](int k, bool kept) { out[k] = kept ? 0xff : 0; });
  }

  // No draw is needed.
  static bool trivial(uint64_t threshold) { return threshold == 0 || threshold >= kCertain; }

  // The mask of a chunk as its bytes alone decide it, and which are `equal` to the threshold's.
  template <class Between>
  void first_look(uint64_t first, uint64_t threshold, uint8_t* out, uint64_t* equal,
                  Between between) const {
    const Bytes least = Bytes::all(static_cast<uint8_t>(threshold >> 32));
    Bytes v[vectors];
    bytes(first >> 4, kBytesDomain, v, between);
    for (int j = 0; j < vectors; ++j) {
      v[j].at_least(least).store(out + j * Bytes::size);
      equal[j] = v[j].equal(least);
    }
  }

  // A chunk that begins at `position`. Branches on what was just drawn would be known late, and all
  // behind them wait; so this is for a chunk after which another was drawn.
  static void note(Boundary& boundary, int position, const uint64_t* equal) {
    constexpr int joined = Bytes::step == 1 ? 64 / Bytes::size : 1;  // vectors to 64 bits
    for (int j = 0; j < vectors; j += joined) {
      uint64_t bits = 0;
      for (int part = 0; part < joined; ++part) bits |= equal[j + part] << part * Bytes::size % 64;
      boundary.note(position + j * Bytes::size, bits, Bytes::step);
    }
  }

  // Whether the noted positions of a run from `first`, which begins a block, are kept.
  template <class Use>
  void settle_run(Boundary& boundary, uint64_t first, uint32_t low, Use use) const {
    // In 32 bits the sums below take one vector.
    const uint64_t block = first >> 2;
    const auto place = [=](uint32_t position) {
      const uint32_t sum = static_cast<uint32_t>(block) + (position >> 2);
      const uint32_t carry = sum < static_cast<uint32_t>(block);
      const uint32_t high = (static_cast<uint32_t>(block >> 32) + carry) & 0x3fffffff;  // 62 bits
      return Place{sum, high, position & 3};
    };
    settle(boundary, place, [=](int) { return low; }, use);
  }

  // The same with a threshold for each index, and for any indices.
  template <class Index, class Threshold>
  void scattered_mask(int count, Index index, Threshold threshold, uint8_t* out) const {
    Boundary boundary;
    for (int i = 0; i < count; i += at_once) {
      const int live = count - i < at_once ? count - i : at_once;
      Drawn drawn;
      draw([&](int k) { return placed(index(i + (k < live ? k : 0)), 4); }, kBytesDomain, drawn);
      for (int k = 0; k < live; ++k) {
        const uint32_t within = drawn.within[k];
        const uint32_t byte = drawn.words[within >> 2][k] >> 8 * (within & 3) & 0xff;
        const uint64_t t = threshold(i + k);
        out[i + k] = byte >= t >> 32 ? 0xff : 0;
        boundary.at[boundary.count] = static_cast<uint16_t>(i + k);
        boundary.count += byte == t >> 32;
      }
    }
    settle(
        boundary, [&](uint32_t position) { return placed(index(static_cast<int>(position)), 2); },
        [&](int position) { return static_cast<uint32_t>(threshold(position)); },
        [out](int k, bool kept) { out[k] = kept ? 0xff : 0; });
  }

 private:
  // Where an index lies: the block's number in two words, and its place within.
  struct Place {
    uint32_t low, high, within;
  };

  // A block of each of some places: two vectors of them, as one would wait for itself.
  static constexpr int at_once = 2 * Words::size;
  struct Drawn {
    uint32_t within[at_once], words[4][at_once];
  };

  // A block holds 2^shift indices.
  static Place placed(uint64_t index, int shift) {
    const uint64_t block = index >> shift;
    return {static_cast<uint32_t>(block), static_cast<uint32_t>(block >> 32),
            static_cast<uint32_t>(index) & ((1u << shift) - 1)};
  }

  template <class At>
  void draw(At at, uint32_t domain, Drawn& drawn) const {
    uint32_t low[at_once], high[at_once];
    for (int k = 0; k < at_once; ++k) {
      const Place place = at(k);
      low[k] = place.low;
      high[k] = place.high;
      drawn.within[k] = place.within;
    }
    constexpr int size = Words::size;
    const Words lows[] = {Words::load(low), Words::load(low + size)};
    const Words highs[] = {Words::load(high), Words::load(high + size)};
    Blocks<S> blocks[2];
    philox_.scattered(lows, highs, domain, blocks);
    for (int n = 0; n < 2; ++n)
      for (int j = 0; j < 4; ++j) blocks[n].word[j].store(drawn.words[j] + n * size);
  }

  // Boundary indices are kept if their word is not below their threshold's low bits. Loops over
  // a vector's worth, which compilers make vectors of.
  template <class At, class Low, class Use>
  void settle(Boundary& boundary, At at, Low low, Use use) const {
    boundary.pad(at_once);
    for (int i = 0; i < boundary.count; i += at_once) {
      const uint16_t* positions = boundary.at + i;
      Drawn drawn;
      draw([&](int k) { return at(positions[k]); }, kBoundaryDomain, drawn);
      uint32_t word[at_once];
      for (int k = 0; k < at_once; ++k) word[k] = drawn.words[0][k];
      for (uint32_t j = 1; j < 4; ++j)
        for (int k = 0; k < at_once; ++k)
          word[k] = drawn.within[k] == j ? drawn.words[j][k] : word[k];
      for (int k = 0; k < at_once; ++k) use(positions[k], word[k] >= low(positions[k]));
    }
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
  alignas(64) uint8_t mask_[kTile + 2 * kChunk + kPast];
};

}  // namespace
}  // namespace dropkit
