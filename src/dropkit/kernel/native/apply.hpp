// What becomes of a row: once its mask is known, or while that is drawn.
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

// What a form makes of a vector of elements.
template <class S, Form F, class D>
class Maker {
 public:
  using V = decltype(S::load(static_cast<const D*>(nullptr)));

  explicit Maker(const Numbers& numbers)
      : scale_(V::all(numbers.scale)), shift_(V::all(numbers.shift)),
        fill_(V::all(F == Form::affine ? numbers.fill : 0.0)) {}

  template <Fate A>
  void make(const D* x, const D* residual, const D* bias, const uint8_t* mask, D* y) const {
    V v = fill_;
    if constexpr (A != Fate::dropped) {
      v = S::load(x);
      if constexpr (F == Form::relu) v = v.rectified();
      if constexpr (F == Form::bias_add)
        if (bias) v = v + S::load(bias);
      v = v * scale_;
      if constexpr (F == Form::affine) v = v + shift_;
      if constexpr (A == Fate::masked && (F == Form::plain || F == Form::relu))
        return S::store_kept(y, v, mask);
      if constexpr (A == Fate::masked) v = v.where(mask, fill_);
    }
    if constexpr (F == Form::add || F == Form::bias_add)
      if (residual) v = S::load(residual) + v;
    S::store(y, v);
  }

 private:
  V scale_, shift_, fill_;
};

template <class S, Form F, Fate A, class D>
void apply(const Row<D>& row, const uint8_t* mask, const Numbers& numbers) {
  const Maker<S, F, D> maker(numbers);
  constexpr int size = Maker<S, F, D>::V::size;
  int k = 0;
  const auto past = [&k](const D* p) { return p ? p + k : p; };
  for (; k + size <= row.count; k += size)
    maker.template make<A>(row.x + k, past(row.residual), past(row.bias), mask + k, row.y + k);
  if (k == row.count) return;

  // The rest goes through a vector's worth of memory; masks may be read past their end.
  D x[size] = {}, residual[size] = {}, bias[size] = {}, y[size];
  const size_t bytes = static_cast<size_t>(row.count - k) * sizeof(D);
  if (A != Fate::dropped) std::memcpy(x, row.x + k, bytes);
  if (row.residual) std::memcpy(residual, row.residual + k, bytes);
  if (row.bias) std::memcpy(bias, row.bias + k, bytes);
  maker.template make<A>(x, row.residual ? residual : nullptr, row.bias ? bias : nullptr, mask + k,
                         y);
  std::memcpy(row.y + k, y, bytes);
}

// Whole chunks of a row whose indices follow each other from `first`, which begins one: each is
// applied between the rounds that draw the next. Drawing needs no memory, and this little else.
// What the further bits drop is overwritten, so a residual could be lost if it lies where y does.
template <class S, Form F, class D>
void flow(const Drawer<S>& drawer, uint64_t first, uint64_t threshold, const Row<D>& row,
          const Numbers& numbers) {
  constexpr int chunk = Drawer<S>::chunk, part = chunk / kBetween;
  const Maker<S, F, D> maker(numbers);
  constexpr int size = Maker<S, F, D>::V::size;
  static_assert(part % size == 0);
  const auto low = static_cast<uint32_t>(threshold);

  alignas(64) uint8_t masks[2][chunk];
  uint64_t equal[2][Drawer<S>::vectors];
  Boundary boundary;
  for (int i = 0, odd = 0; i <= row.count; i += chunk, odd ^= 1) {
    const uint8_t* mask = masks[odd ^ 1];
    const int last = i - chunk;
    const auto between = [&](int r) {
      for (int k = r * part; k < r * part + part; k += size)
        maker.template make<Fate::masked>(row.x + last + k, nullptr, nullptr, mask + k,
                                          row.y + last + k);
    };
    const uint64_t index = first + static_cast<uint64_t>(i);
    if (i == 0)
      drawer.first_look(index, threshold, masks[odd], equal[odd], [](int) {});
    else if (i < row.count)
      drawer.first_look(index, threshold, masks[odd], equal[odd], between);
    else
      for (int r = 0; r < kBetween; ++r) between(r);
    if (i > 0 && low != 0) drawer.note(boundary, last, equal[odd ^ 1]);
  }
  if (low == 0) return;
  D fill;
  narrow(decltype(widened(fill))(F == Form::affine ? numbers.fill : 0), fill);
  drawer.settle_run(boundary, first, low,
                    [&](int k, bool kept) { row.y[k] = kept ? row.y[k] : fill; });
}

// One byte per element, 1 where kept.
template <Fate A>
void show(const Row<uint8_t>& row, const uint8_t* mask, const Numbers&) {
  if constexpr (A == Fate::masked)
    for (int k = 0; k < row.count; ++k) row.y[k] = mask[k] & 1;
  else
    std::memset(row.y, A == Fate::kept, static_cast<size_t>(row.count));
}

// The functions of a form.
template <class S, class D>
struct Applied {
  using Function = void (*)(const Row<D>&, const uint8_t*, const Numbers&);
  using Flow = void (*)(const Drawer<S>&, uint64_t, uint64_t, const Row<D>&, const Numbers&);
  Function masked, kept, dropped;
  Flow flow;  // null where there is none

  static Applied of(Form form) {
    if constexpr (sizeof(D) == 1) {
      return {show<Fate::masked>, show<Fate::kept>, show<Fate::dropped>, nullptr};
    } else {
      switch (form) {
        case Form::affine: return of<Form::affine>();
        case Form::relu: return of<Form::relu>();
        case Form::add: return of<Form::add>();
        case Form::bias_add: return of<Form::bias_add>();
        default: return of<Form::plain>();
      }
    }
  }

 private:
  template <Form F>
  static Applied of() {
    Applied applied{apply<S, F, Fate::masked, D>, apply<S, F, Fate::kept, D>,
                    apply<S, F, Fate::dropped, D>, nullptr};
    if constexpr (F != Form::add && F != Form::bias_add) applied.flow = dropkit::flow<S, F, D>;
    return applied;
  }
};

}  // namespace
}  // namespace dropkit
