// The stages of a run, and the time that each takes.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace layertap {

enum class Stage : std::uint8_t { embeddings, query_key_value, attention, attention_output, intermediate, output, norms, captures, count };
constexpr auto num_stages = static_cast<std::size_t>(Stage::count);

// Seconds by stage, summed over threads.
using StageSeconds = std::array<double, num_stages>;

}  // namespace layertap
