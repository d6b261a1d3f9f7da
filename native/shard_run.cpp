#include "shard_run.hpp"

#include <algorithm>

namespace layertap {

namespace {

// Rows of the feed-forward that go through both its products together: their inner columns stay in the cache.
std::int64_t inner_rows(const Shape& shape, Format format) {
  constexpr std::int64_t cache_bytes = 768 << 10;
  const std::int64_t row_bytes = spread(shape.intermediate_size) * (format == Format::bfloat16 ? 2 : 4);
  return std::clamp(cache_bytes / row_bytes / 16 * 16, std::int64_t{48}, std::int64_t{256});
}

std::int64_t element_bytes(Format format) {
  return format == Format::float32 ? 4 : format == Format::int8 ? 1 : 2;
}

Operand from_row(Operand operand, Format format, std::int64_t row) {
  operand.data = static_cast<char*>(operand.data) + row * operand.stride * element_bytes(format);
  if (operand.scales != nullptr) operand.scales += row;
  if (operand.zeros != nullptr) operand.zeros += row;
  return operand;
}

}  // namespace

ShardRun::ShardRun(const Encoder& encoder, const Batch& batch, const Program& program,
                   const std::vector<std::shared_ptr<const Angles>>& angles, const DistanceColumns* columns, const Cut& cut,
                   const Collector& collector, Workspace& workspace, Team& team, StageSeconds& seconds)
    : encoder_(encoder),
      kernels_(encoder.kernels_),
      shape_(encoder.shape_),
      batch_(batch),
      program_(program),
      angles_(angles),
      columns_(columns),
      cut_(cut),
      collector_(collector),
      work_(workspace),
      team_(team),
      seconds_(seconds),
      stride_(padded(encoder.shape_.hidden_size)),
      key_value_stride_(padded(encoder.shape_.key_value_size())),
      qkv_stride_(stride_ + 2 * key_value_stride_) {
  // the only memory that a run takes on its way, so take it before anyone waits
  if (program.top_rows) {
    kept_.reserve(static_cast<std::size_t>(workspace.made_for.rows));
    query_rows_.reserve(static_cast<std::size_t>(workspace.made_for.rows));
  }
}

std::unique_ptr<Workspace> ShardRun::make_workspace(const Encoder& encoder, const Needs& needs) {
  const Shape& shape = encoder.shape_;
  const Format format = encoder.format_;
  const std::int64_t h = padded(shape.hidden_size);
  const std::int64_t rows = (needs.rows + 15) / 16 * 16;
  const auto buffer = [](std::int64_t count, std::int64_t columns, std::size_t element) {
    return Buffer(static_cast<std::size_t>(count * columns) * element);
  };
  const auto operand = [&](std::int64_t count, std::int64_t columns) {
    return format == Format::float32 ? OperandBuffer() : OperandBuffer(format, count, columns);
  };
  const std::size_t attention_element = encoder.attention_bfloat16_ ? sizeof(bfloat16) : sizeof(float);
  auto w = std::make_unique<Workspace>();
  w->made_for = needs;
  if (encoder.embeddings_.projection != nullptr) {
    w->tables = buffer(rows, padded(shape.embedding_size), sizeof(float));
    w->projected = operand(rows, shape.embedding_size);
  }
  w->hidden = buffer(rows, h, sizeof(float));
  w->kept = buffer(rows, h, sizeof(float));
  if (shape.is_pre_norm) {
    w->normed = buffer(rows, h, sizeof(float));
    w->kept_normed = buffer(rows, h, sizeof(float));
  }
  w->input = operand(rows, shape.hidden_size);
  w->kept_input = operand(rows, shape.hidden_size);
  // products of one sequence's rows with distances read whole tiles from wherever it begins
  const std::int64_t attention_rows = rows + (encoder.distances_ == nullptr ? 0 : 16);
  w->query_key_value = buffer(attention_rows, h + 2 * padded(shape.key_value_size()), attention_element);
  w->kept_queries = buffer(attention_rows, h, attention_element);
  w->context = buffer(rows, h, attention_element);
  if (encoder.attention_bfloat16_ && format != Format::bfloat16) w->wide = buffer(rows, h, sizeof(float));
  if (format != Format::bfloat16) w->context_operand = operand(rows, shape.hidden_size);
  const std::int64_t block = inner_rows(shape, format);
  w->inner = buffer(block, spread(shape.intermediate_size), format == Format::bfloat16 ? sizeof(bfloat16) : sizeof(float));
  if (format != Format::bfloat16) w->inner_operand = operand(block, shape.intermediate_size);
  w->folds = Buffer(needs.fold_floats * sizeof(float));
  if (needs.pooled > 0) {
    const std::int64_t pooled = (needs.pooled + 15) / 16 * 16;
    w->pooler_rows = buffer(pooled, h, sizeof(float));
    w->pooled_rows = buffer(pooled, h, sizeof(float));
    w->pooler_operand = operand(pooled, shape.hidden_size);
  }
  const std::size_t scratch =
      std::max(encoder.kernels_.product_scratch(std::max({shape.hidden_size, shape.intermediate_size, shape.embedding_size})),
               encoder.kernels_.attention_scratch(needs.longest, shape.head_size()));
  for (int i = 0; i < needs.members; ++i) {
    w->scratch.emplace_back(scratch);
    if (encoder.distances_ != nullptr) {
      const std::int64_t columns = spread(encoder.distances_->columns());
      w->query_distances.push_back(buffer(needs.longest, columns, sizeof(float)));
      w->key_distances.push_back(buffer(needs.longest, columns, sizeof(float)));
    }
    if (!needs.maps) continue;
    w->maps.push_back(buffer(needs.longest, needs.longest, sizeof(float)));
    w->near_maps.push_back(buffer(near_queries, needs.longest, sizeof(float)));
  }
  return w;
}

void ShardRun::count(Stage stage) {
  const auto now = std::chrono::steady_clock::now();
  seconds_[static_cast<std::size_t>(stage)] += std::chrono::duration<double>(now - since_).count();
  since_ = now;
}

void ShardRun::product(const Operand& a, std::int64_t row_begin, std::int64_t row_end, const Matrix& w,
                       std::int64_t panel_begin, std::int64_t panel_end, const Epilogue& epilogue) {
  if (row_begin >= row_end || panel_begin >= panel_end) return;
  kernels_.product(a, row_begin, row_end, w.packed(), panel_begin, panel_end, epilogue,
                   work_.scratch[static_cast<std::size_t>(rank_)].as<void>());
}

void ShardRun::shared_product(const Operand& a, std::int64_t row_begin, std::int64_t row_end, const Matrix& w,
                              std::int64_t panel_begin, std::int64_t panel_end, const Epilogue& epilogue) {
  const Part own = part_of(panel_end - panel_begin, 1, rank_, team_.size());
  product(a, row_begin, row_end, w, panel_begin + own.begin, panel_begin + own.end, epilogue);
}

Operand ShardRun::operand_of(float* in, std::int64_t stride, std::int64_t rows, std::int64_t columns, const OperandBuffer& buffer) {
  if (encoder_.format_ == Format::float32) return {in, stride, 0, nullptr};
  const Part own = own_rows(rows);
  if (own.begin < own.end)
    kernels_.to_operand(in + own.begin * stride, stride, own.end - own.begin, columns, encoder_.format_,
                        from_row(buffer.operand(), encoder_.format_, own.begin));
  return buffer.operand();
}

void ShardRun::begin(std::size_t shard) {
  come_to(shard);
  team_.meet();  // the shard before is done
  embed();
  count(Stage::embeddings);
  collect(0);
}

void ShardRun::come_to(std::size_t shard) {
  since_ = std::chrono::steady_clock::now();
  const Shard& own = cut_.shards[shard];
  shard_ = shard;
  row_begin_ = own.row_begin;
  rows_ = own.rows();
  active_ = rows_;
  hidden_ = work_.hidden.as<float>();
  is_kept_ = false;
  input_ = encoder_.format_ == Format::float32 ? Operand{hidden_, stride_, 0, nullptr} : work_.input.operand();
}

void ShardRun::embed() {
  const Embeddings& embeddings = encoder_.embeddings_;
  const Part own = own_rows(rows_);
  const bool is_projected = embeddings.projection != nullptr;
  const std::int64_t columns = shape_.embedding_size;
  const std::int64_t stride = padded(columns);
  const bool norm_first = embeddings.norm.is_there() && !shape_.projection_first;
  float* out = (is_projected ? work_.tables.as<float>() : hidden_) + own.begin * stride;
  const std::int64_t rows = own.end - own.begin;
  const auto ids = [&](Ints all) { return all.empty() ? nullptr : all.data() + row_begin_ + own.begin; };
  if (rows > 0) {
    const EmbeddingRows in{embeddings.words, embeddings.types, embeddings.positions,
                           ids(batch_.input_ids), ids(batch_.token_type_ids), ids(batch_.position_ids)};
    kernels_.embed(in, rows, columns, out, stride);
    if (norm_first) kernels_.normalize(out, stride, rows, columns, row_norm(embeddings.norm, shape_), out, stride, nullptr, 0);
  }
  if (is_projected) {
    const Operand tables = operand_of(work_.tables.as<float>(), stride, rows_, columns, work_.projected);
    team_.meet();
    const Matrix& projection = *embeddings.projection;
    shared_product(tables, 0, rows_, projection, 0, projection.panels(),
                   {projection.bias(), Activation::none, nullptr, 0, hidden_, stride_, false});
    team_.meet();
  }
  if (embeddings.norm.is_there() && !norm_first) normalize(embeddings.norm, hidden_, hidden_, rows_, nullptr);
  if (!shape_.is_pre_norm) operand_of(hidden_, stride_, rows_, shape_.hidden_size, work_.input);
  team_.meet();
}

void ShardRun::run_layer(int layer) {
  const Block& block = encoder_.blocks_[static_cast<std::size_t>(encoder_.layers_[static_cast<std::size_t>(layer)].block)];
  run_attention(block, layer);
  run_feed_forward(block);
  collect(layer + 1);
}

// The rows of the shard that the program needs of state `stop`.
void ShardRun::keep_rows() {
  const Ints top = *program_.top_rows;
  const auto begin = std::lower_bound(top.begin(), top.end(), row_begin_);
  const auto end = std::lower_bound(begin, top.end(), row_begin_ + rows_);
  kept_.clear();
  query_rows_.clear();
  std::int64_t sequence = cut_.shards[shard_].sequence_begin;
  for (auto row = begin; row != end; ++row) {
    kept_.push_back(static_cast<std::int32_t>(*row - row_begin_));
    while (batch_.cu_seqlens[static_cast<std::size_t>(sequence) + 1] <= *row) ++sequence;
    query_rows_.push_back(*row - batch_.cu_seqlens[static_cast<std::size_t>(sequence)]);
  }
  is_kept_ = true;
}

void ShardRun::run_kept_queries(const Block& block) {
  // gathered, so that what follows sees neighbouring rows
  const auto count = static_cast<std::int64_t>(kept_.size());
  const Part own = own_rows(count);
  float* kept = work_.kept.as<float>();
  for (std::int64_t i = own.begin; i < own.end; ++i)
    std::copy_n(hidden_ + kept_[static_cast<std::size_t>(i)] * stride_, stride_, kept + i * stride_);
  float* normed = kept;
  if (shape_.is_pre_norm && block.attention_norm.is_there()) {
    normed = work_.kept_normed.as<float>();
    normalize(block.attention_norm, kept, normed, count, nullptr);
  }
  const Operand input = operand_of(normed, stride_, count, shape_.hidden_size, work_.kept_input);
  team_.meet();
  const Matrix& qkv = block.query_key_value;
  shared_product(input, 0, count, qkv, 0, stride_ / kernels_.panel,
                 {qkv.bias(), Activation::none, nullptr, 0, work_.kept_queries.as<void>(), stride_, encoder_.attention_bfloat16_});
  hidden_ = kept;
  active_ = count;
}

void ShardRun::run_attention(const Block& block, int layer) {
  const bool bf16 = encoder_.attention_bfloat16_;
  const bool prune = program_.top_rows && layer + 1 == program_.stop;
  const Matrix& qkv = block.query_key_value;
  if (shape_.is_pre_norm) normalize_before(block.attention_norm);
  // where rows are pruned: keys and values of all, queries of those kept
  shared_product(input_, 0, rows_, qkv, prune ? stride_ / kernels_.panel : 0, qkv.panels(),
                 {qkv.bias(), Activation::none, nullptr, 0, work_.query_key_value.as<void>(), qkv_stride_, bf16});
  if (prune) {
    keep_rows();
    run_kept_queries(block);
  }
  team_.meet();
  rotate(encoder_.layers_[static_cast<std::size_t>(layer)].rotary);
  count(Stage::query_key_value);

  attend(layer);
  Operand context{work_.context.as<void>(), stride_, 0, nullptr};
  if (encoder_.format_ != Format::bfloat16) {
    float* wide = bf16 ? work_.wide.as<float>() : work_.context.as<float>();
    // attention was shared out by heads, this is by rows
    if (encoder_.format_ != Format::float32) team_.meet();
    const Part own = own_rows(active_);
    if (bf16 && own.begin < own.end)
      kernels_.widen(work_.context.as<bfloat16>() + own.begin * stride_, stride_, own.end - own.begin, shape_.hidden_size,
                     wide + own.begin * stride_, stride_);
    context = operand_of(wide, stride_, active_, shape_.hidden_size, work_.context_operand);
  }
  team_.meet();
  count(Stage::attention);

  const Matrix& dense = block.attention_output;
  shared_product(context, 0, active_, dense, 0, dense.panels(),
                 {dense.bias(), Activation::none, hidden_, stride_, hidden_, stride_, false});
  team_.meet();
  count(Stage::attention_output);
  if (!shape_.is_pre_norm) normalize_after(block.attention_norm);
}

void ShardRun::add_column_apart(const Block& block, float* inner, std::int64_t inner_stride, float* hidden, std::int64_t rows) {
  const Part own = own_rows(rows);
  for (std::int64_t i = own.begin; i < own.end; ++i) {
    float& value = inner[i * inner_stride + block.apart];
    kernels_.add_row(hidden + i * stride_, block.apart_weights.data(), value, stride_);
    value = 0;
  }
}

void ShardRun::run_feed_forward(const Block& block) {
  const Matrix& up = block.intermediate;
  const Matrix& down = block.output;
  const Format format = encoder_.format_;
  const std::int64_t inner_stride = spread(shape_.intermediate_size);
  const std::int64_t block_rows = inner_rows(shape_, format);
  if (shape_.is_pre_norm) normalize_before(block.feed_forward_norm);
  for (std::int64_t begin = 0; begin < active_; begin += block_rows) {
    const std::int64_t rows = std::min(block_rows, active_ - begin);
    const Operand input = from_row(input_, format, begin);
    Epilogue widened{up.bias(), shape_.hidden_act, nullptr, 0, work_.inner.as<void>(), inner_stride, format == Format::bfloat16};
    if (block.gate) {
      // the same columns of both are this member's
      Epilogue gates = widened;
      gates.bias = block.gate->bias();
      shared_product(input, 0, rows, *block.gate, 0, up.panels(), gates);
      widened.activation = Activation::none;
      widened.factors = widened.out;
    }
    shared_product(input, 0, rows, up, 0, up.panels(), widened);
    team_.meet();
    Operand inner{work_.inner.as<void>(), inner_stride, 0, nullptr};
    if (format != Format::bfloat16 && format != Format::float32) {
      if (block.apart >= 0) add_column_apart(block, work_.inner.as<float>(), inner_stride, hidden_ + begin * stride_, rows);
      inner = operand_of(work_.inner.as<float>(), inner_stride, rows, shape_.intermediate_size, work_.inner_operand);
      team_.meet();
    }
    count(Stage::intermediate);
    float* out = hidden_ + begin * stride_;
    shared_product(inner, 0, rows, down, 0, down.panels(), {down.bias(), Activation::none, out, stride_, out, stride_, false});
    team_.meet();
    count(Stage::output);
  }
  if (!shape_.is_pre_norm) normalize_after(block.feed_forward_norm);
}

void ShardRun::normalize(const Norm& norm, const float* in, float* out, std::int64_t rows, const OperandBuffer* rounded) {
  const Part own = own_rows(rows);
  if (own.begin >= own.end) return;
  bfloat16* halves = nullptr;
  std::int64_t halves_stride = 0;
  if (rounded != nullptr) {
    const Operand input = from_row(rounded->operand(), Format::bfloat16, own.begin);
    halves = static_cast<bfloat16*>(input.data);
    halves_stride = input.stride;
  }
  kernels_.normalize(in + own.begin * stride_, stride_, own.end - own.begin, shape_.hidden_size, row_norm(norm, shape_),
                     out + own.begin * stride_, stride_, halves, halves_stride);
}

// The states themselves are normed.
void ShardRun::normalize_after(const Norm& norm) {
  const bool rounds = encoder_.format_ == Format::bfloat16;
  normalize(norm, hidden_, hidden_, active_, rounds ? &work_.input : nullptr);
  input_ = rounds ? work_.input.operand() : operand_of(hidden_, stride_, active_, shape_.hidden_size, work_.input);
  team_.meet();
  count(Stage::norms);
}

// What the next product reads is normed, the states stay as they are.
void ShardRun::normalize_before(const Norm& norm) {
  const bool rounds = encoder_.format_ == Format::bfloat16 && norm.is_there();
  float* normed = norm.is_there() ? work_.normed.as<float>() : hidden_;
  if (norm.is_there()) normalize(norm, hidden_, normed, active_, rounds ? &work_.input : nullptr);
  input_ = rounds ? work_.input.operand() : operand_of(normed, stride_, active_, shape_.hidden_size, work_.input);
  team_.meet();
  count(Stage::norms);
}

void ShardRun::take(int state, std::optional<bool> unnormed) {
  const Part own = part_of(shape_.hidden_size, 16, rank_, team_.size());
  collector_.take(state, unnormed, {hidden_, stride_, active_, is_kept_ ? kept_.data() : nullptr}, shard_,
                  work_.folds.as<float>(), own.begin, own.end);
  // what comes next writes what this reads
  team_.meet();
}

void ShardRun::collect(int state) {
  const Norm& final_norm = encoder_.final_norm_;
  if (!final_norm.is_there() || state != static_cast<int>(encoder_.layers_.size())) {
    take(state, std::nullopt);
  } else {
    take(state, true);
    if (collector_.wants_normed(state)) {
      normalize(final_norm, hidden_, hidden_, active_, nullptr);
      team_.meet();
      take(state, false);
    }
  }
  count(Stage::captures);
}

void ShardRun::finish() {
  if (!collector_.wants_pooler()) return;
  const Part columns = part_of(shape_.hidden_size, 16, rank_, team_.size());
  const std::int64_t rows = collector_.pooler_rows(shard_);
  collector_.take_pooler_rows({hidden_, stride_, active_, is_kept_ ? kept_.data() : nullptr}, shard_, work_.pooler_rows.as<float>(),
                              columns.begin, columns.end);
  team_.meet();
  const Operand input = operand_of(work_.pooler_rows.as<float>(), stride_, rows, shape_.hidden_size, work_.pooler_operand);
  team_.meet();
  const Matrix& pooler = *encoder_.pooler_;
  shared_product(input, 0, rows, pooler, 0, pooler.panels(),
                 {pooler.bias(), Activation::tanh, nullptr, 0, work_.pooled_rows.as<void>(), stride_, false});
  team_.meet();
  collector_.put_pooled(work_.pooled_rows.as<float>(), stride_, shard_, columns.begin, columns.end);
  team_.meet();
  count(Stage::captures);
}

}  // namespace layertap
