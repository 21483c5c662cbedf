// The Python face: numbers and addresses in, nothing checked. What calls this has checked.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <atomic>
#include <string>
#include <vector>

#include "processor.hpp"
#include "threads.hpp"

namespace nb = nanobind;

namespace dropkit {
namespace {

using Ints = std::vector<int64_t>;
using Address = uint64_t;

constexpr int64_t kGrain = 32768;    // elements worth a thread, as in ATen
constexpr int64_t kHoldGil = 4096;   // below, others would wait less than a release costs

std::atomic<const Target*> current{nullptr};

const void* in(Address a) { return reinterpret_cast<const void*>(a); }
void* out(Address a) { return reinterpret_cast<void*>(a); }

// Runs part(target, begin, end) over `count` pieces that hold `elements` in all.
template <class Part>
void spread(int64_t count, int64_t elements, int threads, const Part& part) {
  if (count <= 0) return;
  const Target& target = *current.load(std::memory_order_relaxed);
  if (elements < kHoldGil) return part(target, int64_t{0}, count);
  nb::gil_scoped_release released;
  const int64_t worth = (elements + kGrain - 1) / kGrain;
  parallel(count, static_cast<int>(std::min<int64_t>(threads, worth)),
           [&](int64_t begin, int64_t end) { part(target, begin, end); });
}

void perform(const Layout& layout, const Job& job, int threads) {
  spread(layout.items, layout.elements, threads,
         [&](const Target& target, int64_t begin, int64_t end) {
           target.run(layout, job, begin, end);
         });
}

// Dimensions from sizes and, for each operand, its strides (null: 0 everywhere).
std::vector<Dim> dims_of(const Ints& sizes, const Ints* x, const Ints* y, const Ints* mask,
                         const Ints* rate) {
  std::vector<Dim> dims;
  if (sizes.size() > kMostDims - 2) throw nb::value_error("expected at most 64 dimensions");
  dims.reserve(sizes.size());
  const auto stride = [&](const Ints* strides, size_t d) {
    if (!strides) return int64_t{0};
    if (strides->size() != sizes.size()) throw nb::value_error("expected a stride for every size");
    return (*strides)[d];
  };
  for (size_t d = 0; d < sizes.size(); ++d)
    dims.push_back(
        {sizes[d], {stride(x, d), stride(y, d), 0, 0, stride(mask, d), stride(rate, d)}});
  return dims;
}

std::vector<Dim> one_dim(int64_t n, int64_t residual) {
  return {{n, {1, 1, residual, 0, 1, 0}}};
}

Job job_of(Form form, int dtype, Address x, Address y, uint64_t base, uint64_t key,
           uint64_t threshold, double scale) {
  Job job{};
  job.form = form;
  job.dtype = static_cast<DType>(dtype);
  job.x = in(x);
  job.y = out(y);
  job.base = base;
  job.key = key;
  job.threshold = threshold;
  job.scale = scale;
  return job;
}

void with(Job& job, double shift, double fill) {
  job.shift = shift;
  job.fill = fill;
  job.form = shift == 0 && fill == 0 ? Form::plain : Form::affine;
}

void flat(Address x, Address y, int dtype, int64_t n, uint64_t base, uint64_t key,
          uint64_t threshold, double scale, double shift, double fill, int threads) {
  Job job = job_of(Form::plain, dtype, x, y, base, key, threshold, scale);
  with(job, shift, fill);
  perform(Layout(one_dim(n, 0), base), job, threads);
}

void strided(Address x, Address y, int dtype, const Ints& sizes, const Ints& x_strides,
             const Ints& y_strides, const Ints& mask_strides, uint64_t base, uint64_t key,
             uint64_t threshold, double scale, double shift, double fill, int threads) {
  Job job = job_of(Form::plain, dtype, x, y, base, key, threshold, scale);
  with(job, shift, fill);
  auto dims = dims_of(sizes, x ? &x_strides : nullptr, &y_strides, &mask_strides, nullptr);
  perform(Layout(std::move(dims), base), job, threads);
}

void rated(Address x, Address y, int dtype, const Ints& sizes, const Ints& x_strides,
           const Ints& y_strides, const Ints& mask_strides, uint64_t base, uint64_t key,
           Address thresholds, Address scales, const Ints& rate_strides, int threads) {
  Job job = job_of(Form::plain, dtype, x, y, base, key, 0, 1);
  job.thresholds = static_cast<const uint64_t*>(in(thresholds));
  job.scales = static_cast<const double*>(in(scales));
  auto dims = dims_of(sizes, x ? &x_strides : nullptr, &y_strides, &mask_strides, &rate_strides);
  perform(Layout(std::move(dims), base), job, threads);
}

void keep(Address y, const Ints& sizes, const Ints& y_strides, const Ints& mask_strides,
          uint64_t base, uint64_t key, uint64_t threshold, int threads) {
  Job job = job_of(Form::plain, 0, 0, y, base, key, threshold, 1);
  job.keep_only = true;
  auto dims = dims_of(sizes, nullptr, &y_strides, &mask_strides, nullptr);
  perform(Layout(std::move(dims), base), job, threads);
}

void rated_keep(Address y, const Ints& sizes, const Ints& y_strides, const Ints& mask_strides,
                uint64_t base, uint64_t key, Address thresholds, const Ints& rate_strides,
                int threads) {
  Job job = job_of(Form::plain, 0, 0, y, base, key, 0, 1);
  job.keep_only = true;
  job.thresholds = static_cast<const uint64_t*>(in(thresholds));
  auto dims = dims_of(sizes, nullptr, &y_strides, &mask_strides, &rate_strides);
  perform(Layout(std::move(dims), base), job, threads);
}

void relu_flat(Address x, Address y, int dtype, int64_t n, uint64_t base, uint64_t key,
               uint64_t threshold, double scale, int threads) {
  const Job job = job_of(Form::relu, dtype, x, y, base, key, threshold, scale);
  perform(Layout(one_dim(n, 0), base), job, threads);
}

void relu_backward_flat(Address grad, Address y, Address result, int dtype, int64_t n,
                        double scale, int threads) {
  spread((n + kTile - 1) / kTile, n, threads,
         [&](const Target& target, int64_t begin, int64_t end) {
           target.relu_backward(in(grad), in(y), out(result), static_cast<DType>(dtype), scale,
                                begin * kTile, std::min(n, end * kTile));
         });
}

void add_flat(Address x, Address residual, Address y, int dtype, int64_t n, uint64_t base,
              uint64_t key, uint64_t threshold, double scale, int threads) {
  Job job = job_of(Form::add, dtype, x, y, base, key, threshold, scale);
  job.residual = in(residual);
  perform(Layout(one_dim(n, 1), base), job, threads);
}

void bias_add(Address x, Address bias, Address residual, Address y, int dtype, int64_t rows,
              int64_t columns, uint64_t base, uint64_t key, uint64_t threshold, double scale,
              int threads) {
  Job job = job_of(Form::bias_add, dtype, x, y, base, key, threshold, scale);
  job.bias = in(bias);
  job.residual = in(residual);
  std::vector<Dim> dims{{rows, {columns, columns, columns, 0, columns, 0}},
                        {columns, {1, 1, 1, 1, 1, 0}}};
  perform(Layout(std::move(dims), base), job, threads);
}

void words(Address y, int64_t n, uint64_t base, uint64_t key, uint32_t domain, int threads) {
  spread((n + kTile - 1) / kTile, n, threads,
         [&](const Target& target, int64_t begin, int64_t end) {
           target.words(static_cast<uint32_t*>(out(y)), base, key, domain, begin * kTile,
                        std::min(n, end * kTile));
         });
}

void uniform(Address y, int64_t n, uint64_t base, uint64_t key, int threads) {
  spread((n + kTile - 1) / kTile, n, threads,
         [&](const Target& target, int64_t begin, int64_t end) {
           target.uniform(static_cast<float*>(out(y)), base, key, begin * kTile,
                          std::min(n, end * kTile));
         });
}

void select(const std::string& name) {
  std::string names;
  for (const Target* target : targets()) {
    if (name == target->name) {
      current = target;
      return;
    }
    names += names.empty() ? "" : ", ";
    names += target->name;
  }
  throw nb::value_error(
      ("expected one of " + names + " (what this processor and build have); got " + name).c_str());
}

std::string selected() { return current.load()->name; }

std::vector<std::string> available() {
  std::vector<std::string> names;
  for (const Target* target : targets()) names.emplace_back(target->name);
  return names;
}

// Arguments have no names: nanobind is fastest with positions.
void define(nb::module_& m) {
  current = targets().front();
  m.def("select", &select);
  m.def("selected", &selected);
  m.def("available", &available);
  m.def("flat", &flat);
  m.def("strided", &strided);
  m.def("rated", &rated);
  m.def("keep", &keep);
  m.def("rated_keep", &rated_keep);
  m.def("relu_flat", &relu_flat);
  m.def("relu_backward_flat", &relu_backward_flat);
  m.def("add_flat", &add_flat);
  m.def("bias_add", &bias_add);
  m.def("words", &words);
  m.def("uniform", &uniform);
}

}  // namespace
}  // namespace dropkit

NB_MODULE(_native, m) { dropkit::define(m); }
