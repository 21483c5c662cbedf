// A range of work, in parts, on the threads that PyTorch works with too.
#pragma once
#include <cstdint>
#include <functional>

namespace dropkit {

// Calls part(begin, end) for consecutive parts of [0, count), at most `threads` at a time.
void parallel(int64_t count, int threads, const std::function<void(int64_t, int64_t)>& part);

}  // namespace dropkit
