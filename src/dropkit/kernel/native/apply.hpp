// What becomes of a row once its mask is known.
#pragma once
#include "job.hpp"
#include "window.hpp"

namespace dropkit {
namespace {

// A contiguous row; residual and bias are null where the form has none.
template <class D>
struct Row {
  const D* x;
  D* y;
  const D* residual;
  const D* bias;
  int count;
};

struct Numbers {
  double scale, shift, fill;
};

enum class Fate { masked, kept, dropped };  // one byte per element, or the same for the row

template <class S, Form F, Fate A, class D>
void apply(const Row<D>& row, const uint8_t* mask, const Numbers& numbers) {
  using V = decltype(S::load(row.x));
  const V scale = V::all(numbers.scale), shift = V::all(numbers.shift);
  const V fill = V::all(F == Form::affine ? numbers.fill : 0.0);

  const auto step = [&](const D* x, const D* residual, const D* bias, const uint8_t* m, D* y) {
    V v = fill;
    if constexpr (A != Fate::dropped) {
      v = S::load(x);
      if constexpr (F == Form::relu) v = v.rectified();
      if constexpr (F == Form::bias_add)
        if (bias) v = v + S::load(bias);
      v = v * scale;
      if constexpr (F == Form::affine) v = v + shift;
      if constexpr (A == Fate::masked && (F == Form::plain || F == Form::relu))
        return S::store_kept(y, v, m);
      if constexpr (A == Fate::masked) v = v.where(m, fill);
    }
    if constexpr (F == Form::add || F == Form::bias_add)
      if (residual) v = S::load(residual) + v;
    S::store(y, v);
  };

  constexpr int size = V::size;
  int k = 0;
  const auto past = [&k](const D* p) { return p ? p + k : p; };
  for (; k + size <= row.count; k += size)
    step(row.x + k, past(row.residual), past(row.bias), mask + k, row.y + k);
  if (k == row.count) return;

  // The rest goes through a vector's worth of memory; masks may be read past their end.
  D x[size] = {}, residual[size] = {}, bias[size] = {}, y[size];
  const size_t bytes = static_cast<size_t>(row.count - k) * sizeof(D);
  if (A != Fate::dropped) std::memcpy(x, row.x + k, bytes);
  if (row.residual) std::memcpy(residual, row.residual + k, bytes);
  if (row.bias) std::memcpy(bias, row.bias + k, bytes);
  step(x, row.residual ? residual : nullptr, row.bias ? bias : nullptr, mask + k, y);
  std::memcpy(row.y + k, y, bytes);
}

// A row of the plain or relu form whose mask is known: it is applied while the next one's is drawn.
template <class S, class D>
class Pending {
  using V = decltype(S::load(static_cast<const D*>(nullptr)));

 public:
  explicit Pending(bool relu) : relu_(relu) {}

  void begin(const Row<D>& row, const uint8_t* mask, double scale) {
    row_ = row;
    mask_ = mask;
    scale_ = scale;
  }

  bool has(int count) const { return row_.count >= count; }

  // Part `r` of those of `size` elements that come next.
  template <int size>
  void part(int r) {
    if (relu_)
      some<size, Form::relu>(r * size);
    else
      some<size, Form::plain>(r * size);
  }

  void pass(int count) {
    row_.x += count;
    row_.y += count;
    mask_ += count;
    row_.count -= count;
  }

  void complete() {
    if (row_.count == 0) return;
    const Numbers numbers{scale_, 0, 0};
    if (relu_)
      apply<S, Form::relu, Fate::masked, D>(row_, mask_, numbers);
    else
      apply<S, Form::plain, Fate::masked, D>(row_, mask_, numbers);
    row_.count = 0;
  }

 private:
  template <int size, Form F>
  void some(int first) {
    const V scale = V::all(scale_);
    for (int k = first; k < first + size; k += V::size) {
      V v = S::load(row_.x + k);
      if constexpr (F == Form::relu) v = v.rectified();
      S::store_kept(row_.y + k, v * scale, mask_ + k);
    }
  }

  const bool relu_;
  Row<D> row_{};
  const uint8_t* mask_ = nullptr;
  double scale_ = 0;
};

// Bytes have no such forms.
template <class S>
class Pending<S, uint8_t> : public Idle {
 public:
  explicit Pending(bool) {}
  void begin(const Row<uint8_t>&, const uint8_t*, double) {}
  void complete() {}
};

// One byte per element, 1 where kept.
template <Fate A>
void show(const Row<uint8_t>& row, const uint8_t* mask, const Numbers&) {
  if constexpr (A == Fate::masked)
    for (int k = 0; k < row.count; ++k) row.y[k] = mask[k] & 1;
  else
    std::memset(row.y, A == Fate::kept, static_cast<size_t>(row.count));
}

// The three functions of a form.
template <class D>
struct Applied {
  using Function = void (*)(const Row<D>&, const uint8_t*, const Numbers&);
  Function masked, kept, dropped;

  template <class S>
  static Applied of(Form form) {
    if constexpr (sizeof(D) == 1) {
      return {show<Fate::masked>, show<Fate::kept>, show<Fate::dropped>};
    } else {
      switch (form) {
        case Form::affine: return of<S, Form::affine>();
        case Form::relu: return of<S, Form::relu>();
        case Form::add: return of<S, Form::add>();
        case Form::bias_add: return of<S, Form::bias_add>();
        default: return of<S, Form::plain>();
      }
    }
  }

 private:
  template <class S, Form F>
  static Applied of() {
    return {apply<S, F, Fate::masked, D>, apply<S, F, Fate::kept, D>,
            apply<S, F, Fate::dropped, D>};
  }
};

}  // namespace
}  // namespace dropkit
