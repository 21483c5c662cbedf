#include "threads.hpp"

#include <atomic>
#include <thread>
#include <vector>

#ifdef __linux__
#include <dlfcn.h>
#endif
#ifndef _WIN32
#include <pthread.h>
#endif

namespace dropkit {
namespace {

struct Work {
  int64_t count;
  int parts;
  const std::function<void(int64_t, int64_t)>& part;

  void run(int number) const {
    part(count * number / parts, count * (number + 1) / parts);
  }
};

// A forked child has one thread, and OpenMP waits for the others for ever.
std::atomic<bool> forked{false};

#ifndef _WIN32
const int registered = pthread_atfork(nullptr, nullptr, [] { forked = true; });
#endif

// Threads of our own, for the length of a call.
void on_new_threads(const Work& work) {
  std::vector<std::thread> helpers;
  helpers.reserve(static_cast<size_t>(work.parts - 1));
  for (int k = 1; k < work.parts; ++k) helpers.emplace_back([&work, k] { work.run(k); });
  work.run(0);
  for (auto& helper : helpers) helper.join();
}

#ifdef __linux__
// GNU OpenMP as PyTorch has loaded it: its workers spin between two pieces of work, so a pool of
// ours would fight them for the cores.
struct OpenMP {
  void (*parallel)(void (*)(void*), void*, unsigned, unsigned);
  int (*thread_number)();
  int (*team_size)();

  OpenMP() {
    const auto find = [](auto& function, const char* name) {
      function = reinterpret_cast<std::decay_t<decltype(function)>>(dlsym(RTLD_DEFAULT, name));
      return function != nullptr;
    };
    if (!find(thread_number, "omp_get_thread_num") || !find(team_size, "omp_get_num_threads") ||
        !find(parallel, "GOMP_parallel"))
      parallel = nullptr;
  }
};

bool on_openmp(const Work& work) {
  static const OpenMP openmp;
  if (!openmp.parallel) return false;
  struct Call {
    const Work& work;
  } call{work};
  const auto body = [](void* data) {  // a team may be smaller than was asked for
    const Work& todo = static_cast<Call*>(data)->work;
    for (int k = openmp.thread_number(); k < todo.parts; k += openmp.team_size()) todo.run(k);
  };
  openmp.parallel(body, &call, static_cast<unsigned>(work.parts), 0);
  return true;
}
#else
bool on_openmp(const Work&) { return false; }
#endif

}  // namespace

void parallel(int64_t count, int threads, const std::function<void(int64_t, int64_t)>& part) {
  const int parts = static_cast<int>(count < threads ? count : threads);
  const Work work{count, parts, part};
  if (parts <= 1 || forked)
    part(0, count);
  else if (!on_openmp(work))
    on_new_threads(work);
}

}  // namespace dropkit
