// The encoder for Python: checks everything it is given, so that nothing that comes from there can make a run read or
// write where it must not.
#include "encoder.hpp"

#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <map>
#include <tuple>
#include <utility>

#include "bindings.hpp"

namespace nb = nanobind;

namespace layertap {

namespace {

using IntArray = nb::ndarray<const std::int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using FloatArray = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using FloatMatrix = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Output = nb::ndarray<float, nb::c_contig, nb::device::cpu>;
using StoredTable = nb::ndarray<nb::ro, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

[[noreturn]] void refuse(const std::string& why) { throw nb::value_error(why.c_str()); }

template <typename Value>
Value named(const std::map<std::string, Value>& values, const std::string& name, const char* what) {
  const auto found = values.find(name);
  if (found == values.end()) refuse(std::string(what) + " '" + name + "' is not one");
  return found->second;
}

Ints ints(const IntArray& array) { return {array.data(), array.shape(0)}; }

// A dense layer: its weight [rows, columns] and, or None, its bias [rows].
using Dense = std::pair<FloatMatrix, std::optional<FloatArray>>;

class PythonEncoder {
 public:
  PythonEncoder(const std::string& instruction_set, const std::string& precision, const Shape& shape,
                const std::vector<Layer>& layers, const std::vector<std::vector<float>>& frequencies)
      : shape_(shape),
        encoder_(kernels(instruction_set), named(precisions(), precision, "precision"), checked(shape), layers, frequencies) {
    check_layers(layers, frequencies);
    has_windows_ = std::any_of(layers.begin(), layers.end(), [](const Layer& layer) { return layer.window > 0; });
    const Kernels& found = kernels(instruction_set);
    if ((precision == "bfloat16" && !found.has_bfloat16) || (precision == "int8" && !found.has_int8))
      refuse("instruction set '" + instruction_set + "' has no products in " + precision);
  }

  void set_embeddings(const StoredTable& words, const std::string& words_type, const std::optional<StoredTable>& positions,
                      const std::string& positions_type, const std::optional<StoredTable>& types,
                      const std::string& types_type, const std::optional<FloatArray>& norm_weight,
                      const std::optional<FloatArray>& norm_bias, const std::optional<FloatMatrix>& projection, const std::optional<FloatArray>& projection_bias) {
    Embeddings made;
    made.words = table(words, words_type);
    if (positions) made.positions = table(*positions, positions_type);
    if (types) made.types = table(*types, types_type);
    made.norm = norm(norm_weight, norm_bias, shape_.embedding_norm_size());
    // of equal sizes some models have one, too (ALBERT)
    if (!projection && shape_.embedding_size != shape_.hidden_size)
      refuse("tables of another width than the hidden states need a projection");
    if (projection)
      made.projection = std::make_unique<Matrix>(
          encoder_.dense({weight(*projection, projection_bias, shape_.hidden_size, shape_.embedding_size)}));
    tables_ = {words};
    for (const auto& table : {positions, types})
      if (table) tables_.push_back(*table);
    num_words_ = made.words.rows;
    num_positions_ = made.positions.rows;
    num_types_ = made.types.rows;
    encoder_.set_embeddings(std::move(made));
  }

  void add_block(const std::vector<FloatMatrix>& weights, const std::vector<std::optional<FloatArray>>& biases,
                 const std::vector<std::optional<FloatArray>>& norms, const std::optional<Dense>& distance_keys,
                 const std::optional<Dense>& distance_queries) {
    const std::size_t dense = shape_.is_gated ? 7 : 6;
    if (weights.size() != dense || biases.size() != dense || norms.size() != 4)
      refuse("a block has 6 weights (7 with a gate), as many biases, 4 norm vectors");
    const std::int64_t h = shape_.hidden_size;
    const std::int64_t kv = shape_.key_value_size();
    const std::int64_t f = shape_.intermediate_size;
    const auto at = [&](std::size_t i, std::int64_t rows, std::int64_t columns) { return weight(weights[i], biases[i], rows, columns); };
    Block block;
    block.query_key_value = encoder_.dense({at(0, h, h), at(1, kv, h), at(2, kv, h)});
    block.attention_output = encoder_.dense({at(3, h, h)});
    block.intermediate = encoder_.dense({at(4, f, h)});
    block.output = encoder_.is_int8() ? without_column_apart(block, at(5, h, f)) : encoder_.dense({at(5, h, f)});
    if (shape_.is_gated) block.gate = encoder_.dense({at(6, f, h)});
    block.attention_norm = norm(norms[0], norms[1], h);
    block.feed_forward_norm = norm(norms[2], norms[3], h);
    if (!block.feed_forward_norm.is_there() || (!shape_.is_pre_norm && !block.attention_norm.is_there()))
      refuse("a norm of the block is not there");
    if ((distance_keys || distance_queries) != (encoder_.distances() != nullptr))
      refuse("a block has projections of distances where there are vectors of them");
    const auto projected = [&](const std::optional<Dense>& own) {
      return own ? encoder_.project_distances(weight(own->first, own->second, h, h)) : DistanceHeads();
    };
    block.distance_keys = projected(distance_keys);
    block.distance_queries = projected(distance_queries);
    encoder_.add_block(std::move(block));
  }

  void set_final_norm(const FloatArray& weight, const std::optional<FloatArray>& bias) {
    encoder_.set_final_norm(norm(weight, bias, shape_.hidden_size));
    has_final_norm_ = true;
  }

  void set_distance_bias(const FloatMatrix& bias) {
    const auto columns = static_cast<std::int64_t>(bias.shape(1));
    if (static_cast<std::int64_t>(bias.shape(0)) != shape_.num_attention_heads || columns % 2 == 0)
      refuse("a bias by distance is [heads, 2 * longest - 1]");
    Buffer copy(bias.size() * sizeof(float));
    std::copy_n(bias.data(), bias.size(), copy.as<float>());
    if (encoder_.distances() != nullptr) refuse("a bias by distance goes with no vectors of distances");
    longest_ = (columns + 1) / 2;
    encoder_.set_distance_bias(std::move(copy), longest_);
  }

  void set_distances(const FloatMatrix& vectors, const std::optional<FloatArray>& norm_weight,
                     const std::optional<FloatArray>& norm_bias) {
    const auto count = static_cast<std::int64_t>(vectors.shape(0));
    if (count < 2 || count % 2 != 0 || count > most_distances || static_cast<std::int64_t>(vectors.shape(1)) != shape_.hidden_size)
      refuse("vectors of distances are [2 * span, hidden_size]");
    if (encoder_.num_blocks() > 0) refuse("vectors of distances come before the blocks");
    if (shape_.num_key_value_heads != shape_.num_attention_heads || has_windows_ || longest_ > 0)
      refuse("vectors of distances go with neither shared keys nor windows nor a bias by distance");
    encoder_.set_distances(vectors.data(), count, norm(norm_weight, norm_bias, shape_.hidden_size));
  }

  void reach_distances(const IntArray& vectors) {
    const auto size = static_cast<std::int64_t>(vectors.shape(0));
    if (encoder_.distances() == nullptr || size % 2 == 0) refuse("distances: [2 * longest - 1], after their vectors");
    const Ints own = ints(vectors);
    if (!std::is_sorted(own.begin(), own.end()) || own.front() < 0 || own.back() >= encoder_.distances()->count())
      refuse("distances: ascending vectors that are there");
    encoder_.distances()->reach(own.data(), (size + 1) / 2);
  }

  void set_pooler(const FloatMatrix& dense, const std::optional<FloatArray>& bias) {
    encoder_.set_pooler(encoder_.dense({weight(dense, bias, shape_.hidden_size, shape_.hidden_size)}));
    has_pooler_ = true;
  }

  void run(const IntArray& input_ids, const std::optional<IntArray>& position_ids,
           const std::optional<IntArray>& token_type_ids, const IntArray& cu_seqlens, int stop,
           const std::optional<IntArray>& top_rows, const nb::list& captures, const nb::list& segments, int threads) {
    const Batch batch{ints(input_ids), position_ids ? ints(*position_ids) : Ints(),
                      token_type_ids ? ints(*token_type_ids) : Ints(), ints(cu_seqlens)};
    check_batch(batch);
    check_stop(stop);
    if (threads < 1) refuse("threads: at least 1");
    Program program;
    program.stop = stop;
    if (top_rows) {
      program.top_rows = ints(*top_rows);
      check_top_rows(*program.top_rows, batch);
    }
    for (const nb::handle item : segments) program.segments.push_back(segments_of(nb::cast<nb::tuple>(item), batch));
    for (const nb::handle item : captures) program.captures.push_back(capture_of(nb::cast<nb::tuple>(item), program, batch));

    nb::object raised;
    auto asked = std::chrono::steady_clock::now();
    bool is_done = false;
    {
      const nb::gil_scoped_release released;
      is_done = encoder_.run(batch, program, threads, [&] {
        constexpr auto pause = std::chrono::milliseconds(50);
        const auto now = std::chrono::steady_clock::now();
        if (now - asked < pause) return false;
        asked = now;
        const nb::gil_scoped_acquire held;
        return PyErr_CheckSignals() != 0;
      });
    }
    if (!is_done) throw nb::python_error();
  }

  std::size_t bytes() const { return encoder_.bytes(); }

  nb::dict stage_seconds() const {
    static constexpr const char* names[] = {"embeddings", "query_key_value", "attention", "attention_output",
                                            "intermediate", "output", "norms", "captures"};
    static_assert(std::size(names) == num_stages);
    nb::dict found;
    const StageSeconds seconds = encoder_.stage_seconds();
    for (std::size_t i = 0; i < num_stages; ++i) found[names[i]] = seconds[i];
    return found;
  }

 private:
  static const Kernels& kernels(const std::string& instruction_set) {
    const Kernels* found = kernels_of(instruction_set.c_str());
    if (found == nullptr) refuse("this machine has no instruction set '" + instruction_set + "'");
    return *found;
  }

  static const std::map<std::string, Precision>& precisions() {
    static const std::map<std::string, Precision> found = {{"float32", Precision::float32},
                                                           {"float32-high", Precision::float32_high},
                                                           {"bfloat16", Precision::bfloat16},
                                                           {"int8", Precision::int8}};
    return found;
  }

  static const Shape& checked(const Shape& shape) {
    constexpr std::int64_t most = 1 << 20;
    for (const std::int64_t size : {shape.hidden_size, shape.num_attention_heads, shape.intermediate_size, shape.embedding_size})
      if (size < 1 || size > most) refuse("a size of the model is out of range");
    if (shape.hidden_size % shape.num_attention_heads != 0) refuse("heads do not divide the hidden size");
    if (shape.num_key_value_heads < 1 || shape.num_attention_heads % shape.num_key_value_heads != 0)
      refuse("heads of keys and values do not divide the heads");
    return shape;
  }

  Table table(const StoredTable& array, const std::string& type) const {
    static const std::map<std::string, Table::Type> types = {
        {"F32", Table::Type::float32}, {"BF16", Table::Type::bfloat16}, {"F16", Table::Type::float16}};
    const Table::Type found = named(types, type, "table type");
    const std::size_t bytes = found == Table::Type::float32 ? 4 : 2;
    if (array.itemsize() != bytes || static_cast<std::int64_t>(array.shape(1)) != shape_.embedding_size || array.shape(0) == 0)
      refuse("a table has another shape or width than its model");
    return {array.data(), found, static_cast<std::int64_t>(array.shape(0)), shape_.embedding_size};
  }

  static Norm norm(const std::optional<FloatArray>& weight, const std::optional<FloatArray>& bias, std::int64_t size) {
    const auto copied = [size](const std::optional<FloatArray>& vector) {
      if (!vector) return std::vector<float>();
      if (static_cast<std::int64_t>(vector->shape(0)) != size) refuse("a norm has another size than its model");
      return std::vector<float>(vector->data(), vector->data() + size);
    };
    return {copied(weight), copied(bias)};
  }

  static Weight weight(const FloatMatrix& dense, const std::optional<FloatArray>& bias, std::int64_t rows, std::int64_t columns) {
    if (static_cast<std::int64_t>(dense.shape(0)) != rows || static_cast<std::int64_t>(dense.shape(1)) != columns ||
        (bias && static_cast<std::int64_t>(bias->shape(0)) != rows))
      refuse("a weight has another shape than its model");
    return {dense.data(), rows, columns, bias ? bias->data() : nullptr};
  }

  // `output` but for the column that goes to the block; see Block::apart.
  Matrix without_column_apart(Block& block, const Weight& output) {
    const auto rows = static_cast<std::size_t>(output.rows);
    const auto columns = static_cast<std::size_t>(output.columns);
    float most = -1;
    for (std::size_t n = 0; n < rows; ++n) {
      const float* row = output.data + n * columns;
      double squares = 0;
      for (std::size_t k = 0; k < columns; ++k) squares += static_cast<double>(row[k]) * row[k];
      const auto scale = static_cast<float>(std::sqrt(squares / static_cast<double>(columns)));
      for (std::size_t k = 0; k < columns; ++k)
        if (std::abs(row[k]) > most * scale) {
          most = std::abs(row[k]) / scale;
          block.apart = static_cast<std::int64_t>(k);
        }
    }
    if (block.apart < 0) return encoder_.dense({output});
    std::vector<float> rest(output.data, output.data + rows * columns);
    block.apart_weights.assign(static_cast<std::size_t>(padded(output.rows)), 0.0F);
    for (std::size_t n = 0; n < rows; ++n)
      block.apart_weights[n] = std::exchange(rest[n * columns + static_cast<std::size_t>(block.apart)], 0.0F);
    return encoder_.dense({{rest.data(), output.rows, output.columns, output.bias}});
  }

  void check_batch(const Batch& batch) const {
    if (tables_.empty()) refuse("the embeddings are not there");
    const auto tokens = batch.input_ids.size();
    if (tokens == 0 || batch.cu_seqlens.size() < 2) refuse("the batch is empty");
    const Ints& ends = batch.cu_seqlens;
    if (ends.front() != 0 || static_cast<std::size_t>(ends.back()) != tokens) refuse("cu_seqlens: from 0 to the number of tokens");
    for (std::size_t b = 1; b < ends.size(); ++b)
      if (ends[b] <= ends[b - 1]) refuse("cu_seqlens: each sequence has at least one token");
    for (std::size_t b = 1; longest_ > 0 && b < ends.size(); ++b)
      if (ends[b] - ends[b - 1] > longest_) refuse("cu_seqlens: a sequence is longer than the bias by distance");
    if (encoder_.distances() != nullptr) {
      const auto reached = encoder_.distances()->reached();
      for (std::size_t b = 1; b < ends.size(); ++b)
        if (reached == nullptr || ends[b] - ends[b - 1] > reached->longest) refuse("cu_seqlens: a sequence is longer than the distances");
    }
    const auto check = [&](const Ints& ids, std::int64_t rows, const char* name) {
      if (ids.empty()) return;
      if (ids.size() != tokens) refuse(std::string(name) + ": one a token");
      const auto [least, most] = std::minmax_element(ids.begin(), ids.end());
      if (*least < 0 || *most >= rows) refuse(std::string(name) + ": beyond the table");
    };
    check(batch.input_ids, num_words_, "input_ids");
    if (num_positions_ > 0) {
      if (batch.position_ids.empty()) refuse("position_ids: there is a table of them");
      check(batch.position_ids, num_positions_, "position_ids");
    }
    check(batch.token_type_ids, num_types_, "token_type_ids");
  }

  void check_layers(const std::vector<Layer>& layers, const std::vector<std::vector<float>>& frequencies) const {
    for (const std::vector<float>& own : frequencies)
      if (shape_.head_size() % 2 != 0 || static_cast<std::int64_t>(own.size()) != shape_.head_size() / 2)
        refuse("frequencies: one for two columns of a head");
    for (const Layer& layer : layers)
      if (layer.block < 0 || layer.window < 0 || layer.rotary < -1 || layer.rotary >= static_cast<int>(frequencies.size()))
        refuse("layers: a block, a window or 0, and a set of frequencies or -1");
  }

  void check_stop(int stop) const {
    const std::vector<Layer>& layers = encoder_.layers();
    if (stop < 0 || static_cast<std::size_t>(stop) > layers.size()) refuse("stop: beyond the layers");
    for (int i = 0; i < stop; ++i)
      if (static_cast<std::size_t>(layers[static_cast<std::size_t>(i)].block) >= encoder_.num_blocks()) refuse("a layer's block is not there");
    if (shape_.is_pre_norm && stop == static_cast<int>(layers.size()) && !has_final_norm_) refuse("the final norm is not there");
  }

  static void check_top_rows(const Ints& rows, const Batch& batch) {
    for (std::size_t i = 0; i < rows.size(); ++i)
      if (rows[i] < 0 || rows[i] >= batch.num_tokens() || (i > 0 && rows[i] <= rows[i - 1])) refuse("top_rows: ascending rows of the batch");
  }

  // (begin, end, offsets, weights or None)
  static Segments segments_of(const nb::tuple& item, const Batch& batch) {
    Segments found{ints(nb::cast<IntArray>(item[0])), ints(nb::cast<IntArray>(item[1])), ints(nb::cast<IntArray>(item[2])), {}};
    if (!item[3].is_none()) {
      const auto weights = nb::cast<FloatArray>(item[3]);
      found.weights = {weights.data(), weights.shape(0)};
      if (found.weights.size() != batch.input_ids.size()) refuse("segments: one weight a token");
    }
    const auto ranges = found.begin.size();
    if (found.end.size() != ranges || found.offsets.empty() || found.offsets.front() != 0 ||
        static_cast<std::size_t>(found.offsets.back()) != ranges || !std::is_sorted(found.offsets.begin(), found.offsets.end()))
      refuse("segments: offsets do not fit the ranges");
    for (std::size_t r = 0; r < ranges; ++r)
      if (found.begin[r] < found.end[r] && (found.begin[r] < 0 || found.end[r] > batch.num_tokens())) refuse("segments: rows of the batch");
    return found;
  }

  // (layers, fold, weights or None, segments or -1, reduce or None, pooler, unnormed, maps or None, heads or None, out)
  Capture capture_of(const nb::tuple& item, const Program& program, const Batch& batch) const {
    static const std::map<std::string, Reduce> reductions = {
        {"first", Reduce::first}, {"last", Reduce::last}, {"sum", Reduce::sum}, {"max", Reduce::max}, {"min", Reduce::min}};
    static const std::map<std::string, Maps> maps = {{"heads", Maps::heads}, {"mean", Maps::mean}};
    Capture found;
    found.layers = nb::cast<std::vector<int>>(item[0]);
    found.fold_is_max = nb::cast<std::string>(item[1]) == "max";
    if (!item[2].is_none()) found.weights = nb::cast<std::vector<float>>(item[2]);
    found.segments = nb::cast<int>(item[3]);
    if (!item[4].is_none()) found.reduce = named(reductions, nb::cast<std::string>(item[4]), "reduction");
    found.pooler = nb::cast<bool>(item[5]);
    found.unnormed = nb::cast<bool>(item[6]);
    if (!item[7].is_none()) found.maps = named(maps, nb::cast<std::string>(item[7]), "kind of maps");
    if (found.maps != Maps::none) found.heads = heads_of(item[8]);
    check_capture(found, program);
    const auto out = nb::cast<Output>(item[9]);
    found.out = out.data();
    if (static_cast<std::int64_t>(out.size()) != floats_of(found, program, batch)) refuse("a capture's array has another size");
    return found;
  }

  std::vector<int> heads_of(const nb::handle& given) const {
    std::vector<int> heads;
    if (given.is_none()) {
      for (int head = 0; head < shape_.num_attention_heads; ++head) heads.push_back(head);
    } else {
      heads = nb::cast<std::vector<int>>(given);
    }
    for (const int head : heads)
      if (head < 0 || head >= shape_.num_attention_heads) refuse("a head is not there");
    return heads;
  }

  void check_capture(const Capture& capture, const Program& program) const {
    const bool of_maps = capture.maps != Maps::none;
    if (capture.layers.empty() || !std::is_sorted(capture.layers.begin(), capture.layers.end()) ||
        capture.layers.front() < (of_maps ? 1 : 0) || capture.layers.back() > program.stop)
      refuse("a capture's layers are not there");
    if (!capture.weights.empty() && capture.weights.size() != capture.layers.size()) refuse("a capture has one weight a layer");
    if (capture.segments >= static_cast<int>(program.segments.size()) || (capture.segments < 0) != (capture.reduce == Reduce::none))
      refuse("a capture's segments are not there");
    if (capture.unnormed && (!shape_.is_pre_norm || capture.layers.back() != static_cast<int>(encoder_.layers().size())))
      refuse("a capture before the final norm is one of the last state");
    if (capture.pooler && (!has_pooler_ || capture.segments < 0 || capture.layers.size() != 1 || capture.layers.front() != program.stop))
      refuse("a capture of the pooler needs the pooler, segments and the last state");
    if (program.top_rows && capture.segments < 0 && capture.layers.back() == program.stop)
      refuse("a capture of every row cannot come from some of them");
    if (program.top_rows && capture.segments >= 0 && capture.layers.back() == program.stop) check_kept(capture, program);
  }

  // The rows that a reduction reads are among those kept.
  static void check_kept(const Capture& capture, const Program& program) {
    const Segments& segments = program.segments[static_cast<std::size_t>(capture.segments)];
    const Ints& kept = *program.top_rows;
    for (std::int64_t s = 0; s < segments.size(); ++s) {
      const auto first = static_cast<std::size_t>(segments.offsets[static_cast<std::size_t>(s)]);
      const auto end = static_cast<std::size_t>(segments.offsets[static_cast<std::size_t>(s) + 1]);
      for (std::size_t r = first; r < end; ++r) {
        const bool edge = capture.reduce == Reduce::first || capture.reduce == Reduce::last;
        const std::int32_t from = capture.reduce == Reduce::last ? segments.end[r] - 1 : segments.begin[r];
        const std::int32_t to = edge ? from + 1 : segments.end[r];
        if (segments.begin[r] >= segments.end[r]) continue;
        const auto at = std::lower_bound(kept.begin(), kept.end(), from);
        if (kept.end() - at < to - from || *at != from || at[to - from - 1] != to - 1) refuse("top_rows: a capture needs other rows");
        if (capture.reduce == Reduce::first) break;
      }
    }
  }

  std::int64_t floats_of(const Capture& capture, const Program& program, const Batch& batch) const {
    if (capture.maps == Maps::none)
      return shape_.hidden_size *
             (capture.segments < 0 ? batch.num_tokens() : program.segments[static_cast<std::size_t>(capture.segments)].size());
    std::int64_t squares = 0;
    for (std::size_t b = 1; b < batch.cu_seqlens.size(); ++b) {
      const std::int64_t length = batch.cu_seqlens[b] - batch.cu_seqlens[b - 1];
      squares += length * length;
    }
    return squares * (capture.maps == Maps::mean ? 1 : static_cast<std::int64_t>(capture.heads.size()));
  }

  static constexpr std::int64_t most_distances = 1 << 20;

  Shape shape_;
  Encoder encoder_;
  std::vector<StoredTable> tables_;  // kept alive: the encoder reads them where they are
  std::int64_t num_words_ = 0, num_positions_ = 0, num_types_ = 0;
  std::int64_t longest_ = 0;  // see Encoder::set_distance_bias
  bool has_windows_ = false;
  bool has_pooler_ = false;
  bool has_final_norm_ = false;
};

Activation activation_named(const std::string& name) {
  static const std::map<std::string, Activation> activations = {{"gelu", Activation::gelu},
                                                                {"gelu_tanh", Activation::gelu_tanh},
                                                                {"relu", Activation::relu},
                                                                {"silu", Activation::silu}};
  return named(activations, name, "activation");
}

}  // namespace

void bind_encoder(nb::module_& module) {
  using namespace nb::literals;
  nb::class_<PythonEncoder>(module, "Encoder")
      .def(
          "__init__",
          [](PythonEncoder* self, const std::string& instruction_set, const std::string& precision, std::int64_t hidden_size,
             std::int64_t num_attention_heads, std::int64_t num_key_value_heads, std::int64_t intermediate_size,
             std::int64_t embedding_size, const std::string& hidden_act, float layer_norm_eps, bool pre_norm, bool rms_norms,
             bool gated, bool projection_first, const std::vector<std::tuple<int, std::int64_t, int>>& layers,
             const std::vector<std::vector<float>>& frequencies) {
            std::vector<Layer> made;
            for (const auto& [block, window, rotary] : layers) made.push_back({block, window, rotary});
            const Shape shape{hidden_size,    num_attention_heads, intermediate_size, embedding_size, activation_named(hidden_act),
                              layer_norm_eps, num_key_value_heads, pre_norm,          rms_norms,      gated,
                              projection_first};
            new (self) PythonEncoder(instruction_set, precision, shape, made, frequencies);
          },
          nb::kw_only(), "instruction_set"_a, "precision"_a, "hidden_size"_a, "num_attention_heads"_a, "num_key_value_heads"_a,
          "intermediate_size"_a, "embedding_size"_a, "hidden_act"_a, "layer_norm_eps"_a, "pre_norm"_a, "rms_norms"_a, "gated"_a,
          "projection_first"_a, "layers"_a, "frequencies"_a)
      .def("set_embeddings", &PythonEncoder::set_embeddings, nb::kw_only(), "words"_a, "words_type"_a, "positions"_a.none(),
           "positions_type"_a, "types"_a.none(), "types_type"_a, "norm_weight"_a.none(), "norm_bias"_a.none(),
           "projection"_a.none(),
           "projection_bias"_a.none())
      .def("add_block", &PythonEncoder::add_block, nb::kw_only(), "weights"_a, "biases"_a, "norms"_a,
           "distance_keys"_a.none(), "distance_queries"_a.none())
      .def("set_distances", &PythonEncoder::set_distances, nb::kw_only(), "vectors"_a, "norm_weight"_a.none(), "norm_bias"_a.none())
      .def("reach_distances", &PythonEncoder::reach_distances, "vectors"_a)
      .def("set_distance_bias", &PythonEncoder::set_distance_bias, "bias"_a)
      .def("set_final_norm", &PythonEncoder::set_final_norm, "weight"_a, "bias"_a.none())
      .def("set_pooler", &PythonEncoder::set_pooler, "weight"_a, "bias"_a.none())
      .def("run", &PythonEncoder::run, nb::kw_only(), "input_ids"_a, "position_ids"_a.none(), "token_type_ids"_a.none(),
           "cu_seqlens"_a, "stop"_a, "top_rows"_a.none(), "captures"_a, "segments"_a, "threads"_a)
      .def("stage_seconds", &PythonEncoder::stage_seconds)
      .def_prop_ro("bytes", &PythonEncoder::bytes);
}

}  // namespace layertap
