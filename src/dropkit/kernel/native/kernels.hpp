// The kernels of one instruction set, as a table of functions.
#pragma once
#include "walk.hpp"

namespace dropkit {
namespace {

template <class S, class D>
void walk(const Layout& layout, const Job& job, int64_t begin, int64_t end) {
  Walker<S, D>(layout, job).run(begin, end);
}

template <class S>
void run(const Layout& layout, const Job& job, int64_t begin, int64_t end) {
  if (job.keep_only) return walk<S, uint8_t>(layout, job, begin, end);
  switch (job.dtype) {
    case DType::float32: return walk<S, float>(layout, job, begin, end);
    case DType::float64: return walk<S, double>(layout, job, begin, end);
    case DType::bfloat16: return walk<S, bfloat16>(layout, job, begin, end);
    case DType::float16: return walk<S, float16>(layout, job, begin, end);
  }
}

// out = y <= 0 ? 0 : grad * scale; as nan is not, nan passes
template <class S, class D>
void relu_backward(const D* grad, const D* y, D* out, double factor, int64_t count) {
  using V = decltype(S::load(grad));
  const V scale = V::all(factor), zero = V::all(0);
  const auto step = [&](const D* g, const D* of, D* to) {
    S::store(to, (S::load(g) * scale).where_passed(S::load(of), zero));
  };
  int64_t k = 0;
  for (; k + V::size <= count; k += V::size) step(grad + k, y + k, out + k);
  if (k == count) return;
  D gs[V::size] = {}, ys[V::size] = {}, outs[V::size];
  const size_t bytes = static_cast<size_t>(count - k) * sizeof(D);
  std::memcpy(gs, grad + k, bytes);
  std::memcpy(ys, y + k, bytes);
  step(gs, ys, outs);
  std::memcpy(out + k, outs, bytes);
}

template <class S>
void relu_backward_any(const void* grad, const void* y, void* out, DType dtype, double scale,
                       int64_t begin, int64_t end) {
  const auto go = [&](auto zero) {
    using D = decltype(zero);
    relu_backward<S>(static_cast<const D*>(grad) + begin, static_cast<const D*>(y) + begin,
                     static_cast<D*>(out) + begin, scale, end - begin);
  };
  switch (dtype) {
    case DType::float32: return go(float{});
    case DType::float64: return go(double{});
    case DType::bfloat16: return go(bfloat16{});
    case DType::float16: return go(float16{});
  }
}

// The 32-bit words of indices base + begin and on; each is handed to `use(position, word)`.
template <class S, class Use>
void each_word(uint64_t base, uint64_t key, uint32_t domain, int64_t begin, int64_t end, Use use) {
  const Drawer<S> drawer(key);
  constexpr int chunk = Drawer<S>::chunk / 4;
  uint32_t words[chunk];
  for (int64_t k = begin; k < end;) {
    const uint64_t index = base + static_cast<uint64_t>(k);
    typename S::Bytes v[Drawer<S>::vectors];
    const auto skip = static_cast<int>(index % chunk);
    drawer.bytes((index - static_cast<uint64_t>(skip)) >> 2, domain, v, [](int) {});
    for (int j = 0; j < Drawer<S>::vectors; ++j)
      v[j].store(reinterpret_cast<uint8_t*>(words) + j * S::Bytes::size);
    const int last = end - k < chunk - skip ? skip + static_cast<int>(end - k) : chunk;
    for (int j = skip; j < last; ++j) use(k + j - skip, words[j]);
    k += last - skip;
  }
}

template <class S>
void words(uint32_t* y, uint64_t base, uint64_t key, uint32_t domain, int64_t begin, int64_t end) {
  each_word<S>(base, key, domain, begin, end, [=](int64_t k, uint32_t word) { y[k] = word; });
}

template <class S>
void uniform(float* y, uint64_t base, uint64_t key, int64_t begin, int64_t end) {
  each_word<S>(base, key, kWordsDomain, begin, end, [=](int64_t k, uint32_t word) {
    y[k] = static_cast<float>(static_cast<int32_t>(word >> 8)) * 0x1p-24f;
  });
}

template <class S>
constexpr Target target() {
  return {S::name, run<S>, relu_backward_any<S>, words<S>, uniform<S>};
}

}  // namespace
}  // namespace dropkit
