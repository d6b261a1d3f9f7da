// The Python class `Encoder`. Arrays are passed on as views of their memory; the engine checks their contents.
#include "encoder.hpp"

#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <chrono>
#include <tuple>
#include <utility>

#include "bindings.hpp"
#include "names.hpp"

namespace nb = nanobind;

namespace layertap {

namespace {

using IntArray = nb::ndarray<const std::int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using FloatArray = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using FloatMatrix = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using OutputArray = nb::ndarray<float, nb::c_contig, nb::device::cpu>;

// A dense layer: its weight [rows, columns] and its bias [rows], or None.
using Dense = std::pair<FloatMatrix, std::optional<FloatArray>>;
// A norm: its weight and its bias, or None.
using NormVectors = std::pair<FloatArray, std::optional<FloatArray>>;
// A table of embeddings and its dtype, as safetensors names it.
using StoredTable = std::pair<nb::ndarray<nb::ro, nb::ndim<2>, nb::c_contig, nb::device::cpu>, std::string>;

[[noreturn]] void refuse(const char* why) { throw nb::value_error(why); }

Ints ints(const IntArray& array) { return {array.data(), array.shape(0)}; }

Weight weight_of(const FloatMatrix& matrix) {
  return {matrix.data(), static_cast<std::int64_t>(matrix.shape(0)), static_cast<std::int64_t>(matrix.shape(1)), nullptr};
}

Weight weight_of(const Dense& dense) {
  Weight weight = weight_of(dense.first);
  if (!dense.second) return weight;
  if (dense.second->shape(0) != dense.first.shape(0)) refuse("a bias has another size than its weight has rows");
  weight.bias = dense.second->data();
  return weight;
}

template <typename Given>
std::optional<Weight> weight_of(const std::optional<Given>& given) {
  return given ? std::optional(weight_of(*given)) : std::nullopt;
}

Norm norm_of(const std::optional<NormVectors>& vectors) {
  if (!vectors) return {};
  const auto copied = [](const FloatArray& vector) { return std::vector<float>(vector.data(), vector.data() + vector.shape(0)); };
  return {copied(vectors->first), vectors->second ? copied(*vectors->second) : std::vector<float>()};
}

Table table_of(const std::optional<StoredTable>& stored) {
  if (!stored) return {};
  const auto& [array, name] = *stored;
  const Table::Type type = table_type_named(name);
  if (array.itemsize() != (type == Table::Type::float32 ? 4 : 2)) refuse("a table's elements have another size than its dtype");
  if (array.shape(0) == 0) refuse("a table has no rows");
  return {array.data(), type, static_cast<std::int64_t>(array.shape(0)), static_cast<std::int64_t>(array.shape(1))};
}

// `PythonSegments` and `PythonCapture` keep the arrays alive that the views in them refer to.
struct PythonSegments {
  IntArray begin, end, offsets;
  std::optional<FloatArray> weights;

  Segments view() const {
    Segments segments{ints(begin), ints(end), ints(offsets), {}};
    if (weights) segments.weights = {weights->data(), weights->shape(0)};
    return segments;
  }
};

struct PythonCapture {
  Capture capture;
  OutputArray out;

  PythonCapture(std::vector<int> layers, const std::string& fold, std::optional<std::vector<float>> weights,
                std::optional<int> segments, const std::optional<std::string>& reduce, bool pooler, bool unnormed,
                const std::optional<std::string>& attention, std::optional<std::vector<int>> heads, OutputArray array)
      : out(std::move(array)) {
    if (segments && *segments < 0) refuse("segments: an index from 0 on, or None");
    if (heads && heads->empty()) refuse("heads: at least one, or None for all");
    capture.layers = std::move(layers);
    capture.fold_is_max = is_max_named(fold);
    if (weights) capture.weights = std::move(*weights);
    capture.segments = segments.value_or(-1);
    if (reduce) capture.reduce = reduce_named(*reduce);
    capture.pooler = pooler;
    capture.unnormed = unnormed;
    if (attention) capture.maps = maps_named(*attention);
    if (heads) capture.heads = std::move(*heads);
    capture.out = out.data();
    capture.floats = static_cast<std::int64_t>(out.size());
  }
};

class PythonEncoder {
 public:
  explicit PythonEncoder(Model model) : encoder_(std::move(model)) {}

  void load_embeddings(const StoredTable& words, const std::optional<StoredTable>& positions,
                       const std::optional<StoredTable>& types, const std::optional<NormVectors>& norm,
                       const std::optional<Dense>& projection, const std::optional<FloatMatrix>& distance_vectors,
                       const std::optional<NormVectors>& distance_norm, const std::optional<FloatMatrix>& distance_bias) {
    const EmbeddingWeights weights{table_of(words),       table_of(positions),         table_of(types),
                                   norm_of(norm),         weight_of(projection),       weight_of(distance_vectors),
                                   norm_of(distance_norm), weight_of(distance_bias)};
    encoder_.load([&](const Model& model) { return with_embeddings(model, weights); });
    // the encoder reads the tables in place
    for (const auto& table : {std::optional(words), positions, types})
      if (table) tables_.push_back(*table);
  }

  void add_block(const Dense& query, const Dense& key, const Dense& value, const Dense& attention_output,
                 const Dense& intermediate, const Dense& output, const std::optional<Dense>& gate,
                 const std::optional<NormVectors>& attention_norm, const std::optional<NormVectors>& feed_forward_norm,
                 const std::optional<Dense>& distance_keys, const std::optional<Dense>& distance_queries) {
    const BlockWeights weights{weight_of(query),        weight_of(key),      weight_of(value),
                               weight_of(attention_output), weight_of(intermediate), weight_of(output),
                               weight_of(gate),         norm_of(attention_norm), norm_of(feed_forward_norm),
                               weight_of(distance_keys), weight_of(distance_queries)};
    encoder_.load([&](const Model& model) { return with_block(model, weights); });
  }

  void set_final_norm(const std::optional<NormVectors>& norm) {
    const Norm own = norm_of(norm);
    encoder_.load([&](const Model& model) { return with_final_norm(model, own); });
  }

  void set_pooler(const Dense& dense) {
    const Weight weight = weight_of(dense);
    encoder_.load([&](const Model& model) { return with_pooler(model, weight); });
  }

  void reach_distances(const IntArray& vectors) {
    if (vectors.shape(0) % 2 == 0) refuse("distances: [2 * longest - 1]");
    const auto longest = static_cast<std::int64_t>(vectors.shape(0) + 1) / 2;
    encoder_.load([&](const Model& model) { return with_distances_reached(model, vectors.data(), longest); });
  }

  void run(const IntArray& input_ids, const std::optional<IntArray>& position_ids, const std::optional<IntArray>& token_type_ids,
           const IntArray& cu_seqlens, int stop, const std::optional<IntArray>& top_rows,
           const std::vector<PythonCapture>& captures, const std::vector<PythonSegments>& segments, int threads) {
    const auto view = [](const std::optional<IntArray>& array) { return array ? ints(*array) : Ints(); };
    const Batch batch{ints(input_ids), view(position_ids), view(token_type_ids), ints(cu_seqlens)};
    Program program;
    program.stop = stop;
    if (top_rows) program.top_rows = ints(*top_rows);
    for (const PythonCapture& own : captures) program.captures.push_back(own.capture);
    for (const PythonSegments& own : segments) program.segments.push_back(own.view());

    auto asked = std::chrono::steady_clock::now();
    const auto cancelled = [&] {
      constexpr auto pause = std::chrono::milliseconds(50);
      const auto now = std::chrono::steady_clock::now();
      if (now - asked < pause) return false;
      asked = now;
      const nb::gil_scoped_acquire held;
      return PyErr_CheckSignals() != 0;
    };
    const auto call = [](const std::function<void()>& work) {
      const nb::gil_scoped_release released;
      work();
    };
    if (!encoder_.run(batch, program, threads, cancelled, call)) throw nb::python_error();
  }

  std::size_t bytes() const { return encoder_.model()->weight_bytes(); }

  nb::dict stage_seconds() const {
    static constexpr const char* names[] = {"embeddings", "query_key_value", "attention", "attention_output",
                                            "intermediate", "output", "norms", "captures"};
    static_assert(std::size(names) == num_stages);
    nb::dict seconds_by_stage;
    const StageSeconds seconds = encoder_.stage_seconds();
    for (std::size_t i = 0; i < num_stages; ++i) seconds_by_stage[names[i]] = seconds[i];
    return seconds_by_stage;
  }

 private:
  Encoder encoder_;
  std::vector<StoredTable> tables_;  // keeps their memory
};

}  // namespace

void bind_encoder(nb::module_& module) {
  using namespace nb::literals;
  nb::class_<PythonSegments>(module, "Segments")
      .def(
          "__init__",
          [](PythonSegments* self, const IntArray& begin, const IntArray& end, const IntArray& offsets,
             const std::optional<FloatArray>& weights) { new (self) PythonSegments{begin, end, offsets, weights}; },
          nb::kw_only(), "begin"_a, "end"_a, "offsets"_a, "weights"_a.none());
  nb::class_<PythonCapture>(module, "Capture")
      .def(nb::init<std::vector<int>, const std::string&, std::optional<std::vector<float>>, std::optional<int>,
                    const std::optional<std::string>&, bool, bool, const std::optional<std::string>&,
                    std::optional<std::vector<int>>, OutputArray>(),
           nb::kw_only(), "layers"_a, "fold"_a = "sum", "weights"_a.none() = nb::none(), "segments"_a.none() = nb::none(),
           "reduce"_a.none() = nb::none(), "pooler"_a = false, "unnormed"_a = false, "attention"_a.none() = nb::none(),
           "heads"_a.none() = nb::none(), "out"_a.noconvert());
  nb::class_<PythonEncoder>(module, "Encoder")
      .def(
          "__init__",
          [](PythonEncoder* self, const std::string& instruction_set, const std::string& precision, std::int64_t hidden_size,
             std::int64_t num_attention_heads, std::int64_t num_key_value_heads, std::int64_t intermediate_size,
             std::int64_t embedding_size, const std::string& hidden_act, float layer_norm_eps, bool pre_norm, bool rms_norms,
             bool gated, bool projection_first, const std::vector<std::tuple<int, std::int64_t, int>>& layers,
             const std::vector<std::vector<float>>& frequencies) {
            std::vector<Layer> own;
            for (const auto& [block, window, rotary] : layers) own.push_back({block, window, rotary});
            const Shape shape{.hidden_size = hidden_size,
                              .num_attention_heads = num_attention_heads,
                              .intermediate_size = intermediate_size,
                              .embedding_size = embedding_size,
                              .hidden_act = activation_named(hidden_act),
                              .layer_norm_eps = layer_norm_eps,
                              .num_key_value_heads = num_key_value_heads,
                              .is_pre_norm = pre_norm,
                              .has_rms_norms = rms_norms,
                              .is_gated = gated,
                              .projection_first = projection_first};
            new (self) PythonEncoder(
                empty_model(kernels_named(instruction_set), precision_named(precision), shape, std::move(own), frequencies));
          },
          nb::kw_only(), "instruction_set"_a, "precision"_a, "hidden_size"_a, "num_attention_heads"_a, "num_key_value_heads"_a,
          "intermediate_size"_a, "embedding_size"_a, "hidden_act"_a, "layer_norm_eps"_a, "pre_norm"_a, "rms_norms"_a, "gated"_a,
          "projection_first"_a, "layers"_a, "frequencies"_a)
      .def("load_embeddings", &PythonEncoder::load_embeddings, nb::kw_only(), "words"_a, "positions"_a.none() = nb::none(),
           "types"_a.none() = nb::none(), "norm"_a.none() = nb::none(), "projection"_a.none() = nb::none(),
           "distance_vectors"_a.none() = nb::none(), "distance_norm"_a.none() = nb::none(),
           "distance_bias"_a.none() = nb::none())
      .def("add_block", &PythonEncoder::add_block, nb::kw_only(), "query"_a, "key"_a, "value"_a, "attention_output"_a,
           "intermediate"_a, "output"_a, "gate"_a.none() = nb::none(), "attention_norm"_a.none() = nb::none(),
           "feed_forward_norm"_a.none() = nb::none(), "distance_keys"_a.none() = nb::none(),
           "distance_queries"_a.none() = nb::none())
      .def("set_final_norm", &PythonEncoder::set_final_norm, "norm"_a)
      .def("set_pooler", &PythonEncoder::set_pooler, "dense"_a)
      .def("reach_distances", &PythonEncoder::reach_distances, "vectors"_a)
      .def("run", &PythonEncoder::run, nb::kw_only(), "input_ids"_a, "position_ids"_a.none(), "token_type_ids"_a.none(),
           "cu_seqlens"_a, "stop"_a, "top_rows"_a.none(), "captures"_a, "segments"_a, "threads"_a)
      .def("stage_seconds", &PythonEncoder::stage_seconds)
      .def_prop_ro("bytes", &PythonEncoder::bytes);
}

}  // namespace layertap
