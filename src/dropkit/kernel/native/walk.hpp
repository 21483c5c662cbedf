// Items of a job, one after another: find the mask, apply it.
#pragma once
#include <algorithm>

#include "apply.hpp"
#include "window.hpp"

namespace dropkit {
namespace {

// Indices of masks wrap, which signed numbers may not.
inline int64_t sum(int64_t a, int64_t b) {
  return static_cast<int64_t>(static_cast<uint64_t>(a) + static_cast<uint64_t>(b));
}
inline int64_t product(int64_t a, int64_t b) {
  return static_cast<int64_t>(static_cast<uint64_t>(a) * static_cast<uint64_t>(b));
}

// Where an item lies: an odometer over the outer dimensions.
class Cursor {
 public:
  Cursor(const Layout& layout, int64_t item) : layout_(layout) {
    for (size_t d = layout.outer.size(); d-- > 0; item /= layout.outer[d].size)
      move(d, item % layout.outer[d].size);
  }

  void next() {
    for (size_t d = layout_.outer.size(); d-- > 0;) {
      if (at_[d] + 1 < layout_.outer[d].size) return step(d);
      move(d, -at_[d]);
    }
  }

  int64_t offset(Operand operand) const { return offset_[operand]; }
  int64_t at(int axis) const { return axis < 0 ? 0 : at_[static_cast<size_t>(axis)]; }

 private:
  void move(size_t d, int64_t by) {
    at_[d] += by;
    for (int o = 0; o < kOperands; ++o)
      offset_[o] = sum(offset_[o], product(by, layout_.outer[d].stride[o]));
  }

  void step(size_t d) {
    ++at_[d];
    for (int o = 0; o < kOperands; ++o)
      offset_[o] = sum(offset_[o], layout_.outer[d].stride[o]);
  }

  const Layout& layout_;
  int64_t at_[kMostDims] = {};
  int64_t offset_[kOperands] = {};
};

// Eight rows of eight bytes become columns: halves, quarters and eighths of the words are swapped.
inline void transpose_block(const uint8_t* in, int in_step, uint8_t* out, int out_step) {
  uint64_t w[8];
  for (int r = 0; r < 8; ++r) std::memcpy(&w[r], in + r * in_step, 8);
  constexpr uint64_t masks[] = {0x00000000ffffffffu, 0x0000ffff0000ffffu, 0x00ff00ff00ff00ffu};
  for (int stage = 0; stage < 3; ++stage) {
    const int apart = 4 >> stage, shift = 8 * apart;
    for (int r = 0; r < 8; ++r) {
      if (r & apart) continue;
      const uint64_t swapped = (w[r] >> shift ^ w[r + apart]) & masks[stage];
      w[r + apart] ^= swapped;
      w[r] ^= swapped << shift;
    }
  }
  for (int r = 0; r < 8; ++r) std::memcpy(out + r * out_step, &w[r], 8);
}

// out[column][row] = in[row][column]
inline void transpose(const uint8_t* in, int rows, int columns, uint8_t* out) {
  const int whole_rows = rows & ~7, whole_columns = columns & ~7;
  for (int r = 0; r < whole_rows; r += 8)
    for (int c = 0; c < whole_columns; c += 8)
      transpose_block(in + r * columns + c, columns, out + c * rows + r, rows);
  for (int r = 0; r < rows; ++r)
    for (int c = r < whole_rows ? whole_columns : 0; c < columns; ++c)
      out[c * rows + r] = in[r * columns + c];
}

template <class S, class D>
class Walker {
 public:
  Walker(const Layout& layout, const Job& job)
      : layout_(layout), job_(job), drawer_(job.key), window_(drawer_),
        applied_(Applied<S, D>::of(job.form)) {
    contiguous_ = true;
    for (Operand o : {X, Y, RESIDUAL, BIAS})
      contiguous_ &= !present(o) || layout.inner.stride[o] == 1;
    flows_ = contiguous_ && job.x && layout.ahead == 0 && applied_.flow;
  }

  void run(int64_t begin, int64_t end) {
    Cursor cursor(layout_, begin);
    for (int64_t item = begin; item < end; ++item, cursor.next()) {
      const Span inner = span(layout_.inner, layout_.inner_tile, cursor.at(layout_.inner_axis),
                              layout_.phase);
      const Span second =
          span(layout_.second, layout_.second_tile, cursor.at(layout_.second_axis), 0);
      place(cursor, inner, second);
      if (layout_.second.size > 1)
        block(inner.count, second.count);
      else
        straight(inner.count);
    }
  }

 private:
  struct Span {
    int64_t start;
    int count;
  };

  static Span span(const Dim& dim, int tile, int64_t number, int64_t phase) {
    const int64_t start = number * tile - phase, end = start + tile;
    const int64_t first = start > 0 ? start : 0, last = end < dim.size ? end : dim.size;
    return {first, static_cast<int>(last - first)};
  }

  bool present(Operand o) const {
    return o == Y || (o == X && job_.x) || (o == RESIDUAL && job_.residual) ||
           (o == BIAS && job_.bias);
  }

  void place(const Cursor& cursor, Span inner, Span second) {
    const auto offset = [&](Operand o) {
      const int64_t within = sum(product(inner.start, layout_.inner.stride[o]),
                                 product(second.start, layout_.second.stride[o]));
      return sum(cursor.offset(o), within);
    };
    index_ = job_.base + static_cast<uint64_t>(offset(MASK));
    const auto of = [&](Operand o, const void* p) {
      return p ? static_cast<const D*>(p) + offset(o) : nullptr;
    };
    row_ = {of(X, job_.x), static_cast<D*>(job_.y) + offset(Y), of(RESIDUAL, job_.residual),
            of(BIAS, job_.bias), 0};
    threshold_ = job_.threshold;
    numbers_ = {job_.scale, job_.shift, job_.fill};
    rate_ = offset(RATE);
    if (job_.thresholds) threshold_ = job_.thresholds[rate_];
    if (job_.scales) numbers_.scale = job_.scales[rate_];
  }

  int ahead(int needed) const { return needed > layout_.ahead ? needed : layout_.ahead; }

  void straight(int count) {
    const int64_t step = layout_.inner.stride[MASK];
    row_.count = count;
    if (layout_.inner.stride[RATE] != 0 || (step != 0 && step != 1)) return scattered(count);
    if (step == 1) {
      if (flows_ && !drawer_.trivial(threshold_)) return flow();
      finish(applied_.masked, window_.at(index_, count, ahead(count), threshold_));
    } else {
      const bool kept = *window_.at(index_, 1, ahead(1), threshold_) != 0;
      finish(kept ? applied_.kept : applied_.dropped, nullptr);
    }
  }

  // Whole chunks flow; what is before and behind them does not.
  void flow() {
    constexpr int chunk = Drawer<S>::chunk;
    const Row<D> whole = row_;
    const auto cut = [&](int start, int end) {
      row_ = {whole.x + start, whole.y + start, nullptr, nullptr, end - start};
      return row_.count > 0;
    };
    const auto rest = [&](int start, int count) {
      return window_.at(index_ + static_cast<uint64_t>(start), count, count, threshold_);
    };
    const int before = std::min(whole.count, static_cast<int>(-index_ % chunk));
    const int end = whole.count - (whole.count - before) % chunk;
    if (cut(0, before)) finish(applied_.masked, rest(0, before));
    if (cut(before, end))
      applied_.flow(drawer_, index_ + static_cast<uint64_t>(before), threshold_, row_, numbers_);
    if (cut(end, whole.count)) finish(applied_.masked, rest(end, whole.count - end));
  }

  // Any steps between the indices; any rates.
  void scattered(int count) {
    const auto step = static_cast<uint64_t>(layout_.inner.stride[MASK]);
    const int64_t rate_step = layout_.inner.stride[RATE];
    const auto index = [&](int k) { return index_ + static_cast<uint64_t>(k) * step; };
    const auto threshold = [&](int k) {
      return rate_step ? job_.thresholds[rate_ + k * rate_step] : threshold_;
    };
    drawer_.scattered_mask(count, index, threshold, turned_);
    if (rate_step == 0 || !job_.scales) return finish(applied_.masked, turned_);
    if constexpr (sizeof(D) > 1) {
      const Dim& d = layout_.inner;
      for (int k = 0; k < count; ++k) {
        using T = decltype(widened(*row_.x));
        const T scale = static_cast<T>(job_.scales[rate_ + k * rate_step]);
        const D x = row_.x ? row_.x[k * d.stride[X]] : D{};
        const T value = row_.x ? widened(x) * scale : scale;
        narrow(turned_[k] ? value : T{0}, row_.y[k * d.stride[Y]]);
      }
    }
  }

  // Several rows at once, whose mask runs along `second`, or is the same for all.
  void block(int count, int rows) {
    bool compact = contiguous_;
    for (Operand o : {X, Y, RESIDUAL, BIAS})
      compact &= !present(o) || layout_.second.stride[o] == count;
    int together = compact ? rows : 1;
    const bool alike = layout_.second.stride[MASK] == 0;
    if (alike) {
      together = std::min(together, std::max(1, kRepeated / count));
      repeat(count, together);
    } else {
      turn(count, rows);
    }
    const Row<D> first = row_;
    for (int r = 0; r < rows; r += together) {
      const auto at = [&](Operand o, const D* p) {
        return p ? p + r * layout_.second.stride[o] : p;
      };
      row_ = {at(X, first.x), first.y + r * layout_.second.stride[Y],
              at(RESIDUAL, first.residual), at(BIAS, first.bias),
              count * std::min(together, rows - r)};
      finish(applied_.masked, alike ? turned_ : turned_ + r * count);
    }
  }

  // Draw the mask's rows, and turn them.
  void turn(int count, int rows) {
    const auto step = static_cast<uint64_t>(layout_.inner.stride[MASK]);
    for (int c = 0; c < count; ++c) {
      const uint64_t first = index_ + static_cast<uint64_t>(c) * step;
      std::memcpy(drawn_ + c * rows, window_.at(first, rows, ahead(rows), threshold_),
                  static_cast<size_t>(rows));
    }
    transpose(drawn_, count, rows, turned_);
  }

  // Draw one row, and lay it down as often as there are rows; unless it lies there already.
  void repeat(int count, int rows) {
    if (repeats_ >= rows && repeated_ == index_ && repeated_threshold_ == threshold_) return;
    const uint8_t* mask = window_.at(index_, count, ahead(count), threshold_);
    for (int r = 0; r < rows; ++r)
      std::memcpy(turned_ + r * count, mask, static_cast<size_t>(count));
    repeats_ = rows;
    repeated_ = index_;
    repeated_threshold_ = threshold_;
  }

  void finish(typename Applied<S, D>::Function function, const uint8_t* mask) {
    if (contiguous_ && (job_.x || sizeof(D) == 1)) return function(row_, mask, numbers_);
    for (int start = 0; start < row_.count; start += kGathered)
      gathered(function, mask ? mask + start : mask, start,
               row_.count - start < kGathered ? row_.count - start : kGathered);
  }

  // Rows that are not contiguous are made so, a little at a time.
  void gathered(typename Applied<S, D>::Function function, const uint8_t* mask, int start,
                int count) {
    const auto gather = [&](Operand o, const D* p, D* out) -> const D* {
      if (!p) return nullptr;
      const int64_t step = layout_.inner.stride[o];
      p += start * step;
      if (step == 1) return p;
      for (int k = 0; k < count; ++k) out[k] = p[k * step];
      return out;
    };
    D x[kGathered], y[kGathered], residual[kGathered], bias[kGathered];
    Row<D> row{gather(X, row_.x, x), y, gather(RESIDUAL, row_.residual, residual),
               gather(BIAS, row_.bias, bias), count};
    if constexpr (sizeof(D) > 1)
      if (!row.x) {
        for (int k = 0; k < count; ++k) narrow(decltype(widened(*x)){1}, x[k]);
        row.x = x;
      }
    function(row, mask, numbers_);
    const int64_t step = layout_.inner.stride[Y];
    D* out = row_.y + start * step;
    for (int k = 0; k < count; ++k) out[k * step] = y[k];
  }

  static constexpr int kGathered = 256;

  const Layout& layout_;
  const Job& job_;
  Drawer<S> drawer_;
  Window<S> window_;
  Applied<S, D> applied_;
  bool contiguous_, flows_;

  // The item in hand.
  Row<D> row_;
  uint64_t index_ = 0, threshold_ = 0;
  int64_t rate_ = 0;
  Numbers numbers_;
  int repeats_ = 0;  // rows in `turned_` of the mask from this index, with this threshold
  uint64_t repeated_ = 0, repeated_threshold_ = 0;
  uint8_t drawn_[kTurned];
  uint8_t turned_[kTurned + kPast];
};

}  // namespace
}  // namespace dropkit
