#include <nanobind/stl/pair.h>
#include <nanobind/stl/vector.h>

#include <numeric>
#include <utility>
#include <vector>

#include "model.hpp"
#include "schedule.hpp"
#include "testing.hpp"

namespace nb = nanobind;

namespace layertap {
namespace {

// The work of a batch of sequences of these lengths, and the time that the threads take for it by `simulated_time`.
std::pair<double, double> simulate(const std::vector<std::int32_t>& lengths, int threads, std::int64_t hidden_size,
                                   std::int64_t num_attention_heads, std::int64_t intermediate_size, int layers) {
  if (lengths.empty() || threads < 1 || layers < 1) throw nb::value_error("lengths, threads and layers: at least one");
  Shape shape{};
  shape.hidden_size = hidden_size;
  shape.num_attention_heads = shape.num_key_value_heads = num_attention_heads;
  shape.intermediate_size = intermediate_size;
  std::vector<std::int32_t> ends{0};
  for (const std::int32_t length : lengths) ends.push_back(ends.back() + length);
  const std::vector<std::int32_t> ids(static_cast<std::size_t>(ends.back()));
  const Batch batch{ids, {}, {}, ends};
  const std::vector<std::int64_t> windows(static_cast<std::size_t>(layers), 0);
  const WorkPartition partition =
      partition_work(batch, {}, threads, [&](std::int64_t length) { return cost_of_sequence(shape, windows, length); });
  const double work = std::accumulate(partition.shards.begin(), partition.shards.end(), 0.0,
                                      [](double sum, const Shard& shard) { return sum + shard.cost; });
  return {work, simulated_time(partition, shape, threads, layers)};
}

}  // namespace

void bind_schedule(nb::module_& module) {
  module.def("simulate", &simulate, nb::arg("lengths"), nb::kw_only(), nb::arg("threads"), nb::arg("hidden_size"),
             nb::arg("num_attention_heads"), nb::arg("intermediate_size"), nb::arg("layers"));
}

}  // namespace layertap
