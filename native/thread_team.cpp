#include "thread_team.hpp"

#include <pthread.h>
#include <sched.h>

#include <condition_variable>
#include <memory>
#include <mutex>
#include <utility>

namespace layertap {

namespace {

// Threads that help while a run lasts. It outlives the run, for the threads that come too late.
class Helpers {
 public:
  bool enter() {
    const std::lock_guard guard(lock_);
    if (is_over_) return false;
    ++inside_;
    return true;
  }
  void leave() {
    const std::lock_guard guard(lock_);
    if (--inside_ == 0) empty_.notify_all();
  }
  // Returns when all that entered have left.
  void end() {
    std::unique_lock guard(lock_);
    is_over_ = true;
    empty_.wait(guard, [&] { return inside_ == 0; });
  }

 private:
  std::mutex lock_;
  std::condition_variable empty_;
  int inside_ = 0;
  bool is_over_ = false;
};

// Starts detached threads on other processors than the one that it was made on, where the process may use others. Left
// to the system, some begin on that one and run only when its time slice ends, milliseconds later.
class ThreadStarter {
 public:
  ThreadStarter() {
    const int own = sched_getcpu();
    if (own < 0 || own >= CPU_SETSIZE || sched_getaffinity(0, sizeof others_, &others_) != 0) return;
    CPU_CLR(static_cast<unsigned>(own), &others_);
    has_others_ = CPU_COUNT(&others_) > 0;
  }

  // Whether the process was allowed to start one more.
  bool start(std::function<void()> body) const {
    pthread_attr_t attributes;
    if (pthread_attr_init(&attributes) != 0) return false;
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    if (has_others_) pthread_attr_setaffinity_np(&attributes, sizeof others_, &others_);
    auto own = std::make_unique<std::function<void()>>(std::move(body));
    pthread_t thread{};
    const bool is_started = pthread_create(&thread, &attributes, run, own.get()) == 0;
    if (is_started) own.release();
    pthread_attr_destroy(&attributes);
    return is_started;
  }

 private:
  static void* run(void* argument) {
    const std::unique_ptr<std::function<void()>> body(static_cast<std::function<void()>*>(argument));
    (*body)();
    return nullptr;
  }

  cpu_set_t others_;
  bool has_others_ = false;
};

}  // namespace

ThreadTeam::Entry ThreadTeam::begin(std::size_t shard, double work) {
  const std::lock_guard guard(lock_);
  // the leader has passed all steps so far
  entry_ = {shard, static_cast<std::uint32_t>(claimed_.load(std::memory_order_acquire) >> 32)};
  is_under_way_ = true;
  work_left_.store(work, std::memory_order_relaxed);
  return entry_;
}

void ThreadTeam::report(double work_left) {
  const std::lock_guard guard(lock_);
  if (is_under_way_) work_left_.store(work_left, std::memory_order_relaxed);
}

void ThreadTeam::end(const Entry& entry) {
  const std::lock_guard guard(lock_);
  if (entry_.shard != entry.shard) return;  // the leader has begun another one
  is_under_way_ = false;
  work_left_.store(0, std::memory_order_relaxed);
}

std::optional<ThreadTeam::Entry> ThreadTeam::join() {
  const std::lock_guard guard(lock_);
  if (!is_under_way_) return std::nullopt;
  size_.fetch_add(1, std::memory_order_relaxed);
  return entry_;
}

void run_workers(int workers, const std::function<Rest(int)>& work) {
  const auto helpers = std::make_shared<Helpers>();
  struct Ending {
    Helpers& helpers;
    ~Ending() { helpers.end(); }
  };
  const Ending ending{*helpers};
  const ThreadStarter starter;
  for (int worker = 1; worker < workers; ++worker) {
    const bool is_started = starter.start([helpers, &work, worker] {
      while (helpers->enter()) {  // otherwise what `work` refers to may be gone
        const Rest rest = work(worker);
        helpers->leave();
        if (!rest) return;
        rest();
      }
    });
    if (!is_started) break;
  }
  while (const Rest rest = work(0)) rest();
}

}  // namespace layertap
