#include "encoder.hpp"

#include <algorithm>
#include <atomic>
#include <deque>
#include <stdexcept>
#include <string>
#include <utility>

#include "checks.hpp"
#include "collector.hpp"
#include "partition.hpp"
#include "schedule.hpp"
#include "shard_run.hpp"
#include "thread_team.hpp"

namespace layertap {

namespace {

Needs needs_of(const Batch& batch, const Program& program, const WorkPartition& partition, const Collector& collector) {
  Needs needs;
  for (std::size_t i = 0; i < partition.shards.size(); ++i) {
    needs.rows = std::max(needs.rows, partition.shards[i].rows());
    needs.pooled = std::max(needs.pooled, collector.pooler_rows(i));
  }
  for (std::size_t b = 1; b < batch.cu_seqlens.size(); ++b)
    needs.longest = std::max<std::int64_t>(needs.longest, batch.cu_seqlens[b] - batch.cu_seqlens[b - 1]);
  needs.fold_floats = collector.fold_floats(needs.rows);
  for (const Capture& capture : program.captures) needs.maps = needs.maps || capture.maps != Maps::none;
  return needs;
}

}  // namespace

std::shared_ptr<const Model> Encoder::model() const {
  const std::lock_guard guard(lock_);
  return model_;
}

void Encoder::load(const std::function<Model(const Model&)>& load) {
  const std::lock_guard loading(loading_);
  auto loaded = std::make_shared<const Model>(load(*model()));
  const std::lock_guard guard(lock_);
  model_ = std::move(loaded);
}

StageSeconds Encoder::stage_seconds() const {
  const std::lock_guard guard(lock_);
  return seconds_;
}

bool Encoder::run(const Batch& batch, const Program& program, int threads, const std::function<bool()>& cancelled,
                  const std::function<void(const std::function<void()>&)>& call) {
  constexpr int most_threads = 1024;
  if (threads < 1 || threads > most_threads) throw std::invalid_argument("threads: from 1 to " + std::to_string(most_threads));
  const std::shared_ptr<const Model> model = this->model();
  check_batch(*model, batch);
  check_program(*model, batch, program);

  std::vector<std::int64_t> windows;
  for (int layer = 0; layer < program.stop; ++layer) windows.push_back(model->layer(layer).window);
  const WorkPartition partition =
      partition_work(batch, program, threads, [&](std::int64_t length) { return cost_of_sequence(model->shape, windows, length); });
  const Collector collector(model->kernels, program, partition, model->shape.hidden_size);
  const auto workers = static_cast<std::size_t>(threads);

  // All memory is taken here: nothing can fail while threads wait for each other.
  const Needs needs = needs_of(batch, program, partition, collector);
  Cancellation cancellation(cancelled);
  RunContext context{*model, batch, program, partition, collector, cancellation, threads, {}};
  for (const auto& rotary : model->rotary) context.angles.push_back(rotary->angles(needs.longest));
  std::vector<std::unique_ptr<Workspace>> workspaces;
  for (std::size_t i = 0; i < std::min(workers, partition.shards.size()); ++i)
    workspaces.push_back(workspaces_.take(*model, needs));
  std::vector<std::unique_ptr<ThreadSpace>> spaces;
  for (std::size_t i = 0; i < workers; ++i) spaces.push_back(thread_spaces_.take(*model, needs));
  const auto teams = std::make_shared<std::vector<ShardTeam>>(workspaces.size());
  std::vector<StageSeconds> seconds(workers, StageSeconds{});
  std::deque<ShardRun> runs;
  for (std::size_t worker = 0; worker < workers; ++worker)
    runs.emplace_back(context, *spaces[worker], seconds[worker], worker == 0);

  Schedule schedule(partition, *teams);
  std::atomic<std::size_t> leaders{0};
  const auto work = [&](int worker) -> Rest {
    ShardRun& run = runs[static_cast<std::size_t>(worker)];
    if (auto shard = schedule.take()) {
      const std::size_t own = leaders++;
      ShardTeam& team = (*teams)[own];
      team.workspace = workspaces[own].get();
      while (shard && run.lead(*shard, team, [&] { schedule.is_joinable(); })) shard = schedule.take();
    }
    while (ShardTeam* team = schedule.team_to_join(cancellation)) {
      const auto entry = team->threads.join();
      if (!entry) continue;
      const auto missing = run.follow(*team, *entry);
      team->threads.leave();
      if (missing) return [teams, team, step = *missing] { team->threads.sleep_until_passed(step); };
    }
    return {};
  };
  call([&] { run_workers(static_cast<int>(workers), work); });

  for (auto& workspace : workspaces) workspaces_.give_back(std::move(workspace));
  for (auto& space : spaces) thread_spaces_.give_back(std::move(space));
  const std::lock_guard guard(lock_);
  for (const StageSeconds& own : seconds)
    for (std::size_t i = 0; i < num_stages; ++i) seconds_[i] += own[i];
  return !cancellation.is_stopped();
}

}  // namespace layertap
