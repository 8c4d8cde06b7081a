// A residual sum and its norm in one pass: a tile of rows is added, then normalized while it lies in the
// cache.
//
//   sum = (x + residual) + residual_bias, in the computing type, rounded once to x's type
//   y   = the norm of sum as it was written: rows.hpp reads it there, so the bits are those of add, then norm
//
// Or (`unrounded`, float16 and bfloat16) the norm of the float sum before it is rounded: that is the float
// norm of the float sum, rounded to x's type. The sum is then computed again block by block, never kept.
#ifndef NORMKIT_DETAIL_ADD_NORM_HPP_
#define NORMKIT_DETAIL_ADD_NORM_HPP_

#include "normkit/detail/add_block.hpp"
#include "normkit/detail/short_rows.hpp"

NORMKIT_BEGIN_NAMESPACE

struct AddNormForward {
  RowsForward rows;  // its x is the sum
  Operand x, residual, residual_bias;
  bool unrounded = false;
};

// Reads what is added, block by block.
template <typename T>
struct AddendReader {
  using C = Compute<T>;
  const AddNormForward& p;
  ParameterReader<C> bias;
  alignas(64) T x_buffer[kBlock];
  alignas(64) T residual_buffer[kBlock];

  NORMKIT_INLINE explicit AddendReader(const AddNormForward& p_)
      : p(p_), bias(p_.residual_bias, 0.0, C(-0.0)) {}

  // Elements begin .. begin+n-1 of row r of the sum; `to` may be where x or the residual lies. See add_block.
  template <bool kTotal = false, typename S>
  NORMKIT_INLINE double add(int64_t r, int64_t begin, int n, S* to) {
    const T* x = block_of(p.x, p.x.template row<const T>(r), begin, n, x_buffer);
    const T* residual = block_of(p.residual, p.residual.template row<const T>(r), begin, n, residual_buffer);
    return add_block<kTotal>(x, residual, bias.block(r, begin, n), to, n);
  }
};

// Rows first .. first+count-1 of the sum.
template <typename T>
NORMKIT_NOINLINE void add_rows(const AddNormForward& p, int64_t first, int count, AddendReader<T>& addends,
                               T* buffer) {
  const Operand& sum = p.rows.x;
  for (Blocks b(p.rows); b.more(); b.next()) {
    for (int r = 0; r < count; ++r) {
      T* row = sum.template row<T>(first + r);
      T* straight = straight_block(sum.inner, row, b.begin, b.length);
      addends.add(first + r, b.begin, b.length, straight != nullptr ? straight : buffer);
      if (straight == nullptr) scatter(buffer, sum.inner, b.begin, b.length, row);
    }
  }
}

// The same of short rows, with the total of each: while a sum is written is the time to add it up.
NORMKIT_NOINLINE inline void add_short_rows(const AddNormForward& p, int64_t first, int count,
                                            AddendReader<float>& addends, double* totals) {
  const int n = static_cast<int>(p.rows.n);
  for (int r = 0; r < count; ++r)
    totals[r] = addends.add<true>(first + r, 0, n, p.rows.x.row<float>(first + r));
}

template <typename T>
void add_norm_phase(const void* state, int64_t begin, int64_t end) {
  const FloatEnvironment environment;
  const AddNormForward& p = *static_cast<const AddNormForward*>(state);
  AddendReader<T> addends(p);
  alignas(64) T buffer[kBlock];
  double totals[kShortTileRows];
  const bool with_totals = suits_short_rows(p.rows) && p.rows.centred();
  forward_tiles<T>(p.rows, begin, end, [&](int64_t first, int count) -> const double* {
    if constexpr (sizeof(T) == sizeof(float)) {
      if (with_totals) {
        add_short_rows(p, first, count, addends, totals);
        return totals;
      }
    }
    add_rows(p, first, count, addends, buffer);
    return nullptr;
  });
}

// ---- the sum before it is rounded ----

template <typename T>
NORMKIT_NOINLINE void add_unrounded_row(const AddNormForward& p, int64_t r, AddendReader<T>& addends,
                                        ParameterReader<float>& weight, ParameterReader<float>& bias) {
  alignas(64) float sum[kBlock];
  alignas(64) T rounded[kBlock];
  MergeTree<Moments<float>> moments;
  MergeTree<Sums> squares;
  for (Blocks b(p.rows); b.more(); b.next()) {
    addends.add(r, b.begin, b.length, sum);
    if (p.rows.centred())
      moments.push(block_moments(sum, b.length, block_sum(sum, b.length)));
    else
      squares.push({block_sum_of_squares(sum, b.length), 0.0});
  }
  RowStatistics statistics;
  if (p.rows.centred()) {
    const Moments<float> m = moments.finish();
    statistics = statistics_from(p.rows, m.mean, m.mean_low, m.m2, 1.0);
  } else {
    statistics = statistics_of_squares(p.rows, squares.finish().first, 1.0);
  }
  save_statistics(p.rows, r, statistics);
  const Row<float> row = row_from(statistics, 0.0f);
  const Operand* to[] = {&p.rows.x, &p.rows.y};
  for (Blocks b(p.rows); b.more(); b.next()) {
    addends.add(r, b.begin, b.length, sum);
    for (int i = 0; i < 2; ++i) {  // first the sum, then y in its place
      if (i == 1)
        forward_block(row, sum, sum, b.length, false, weight.block(r, b.begin, b.length),
                      bias.block(r, b.begin, b.length), 0);
      round_block(sum, rounded, b.length);
      if (i == 1) activate_block(p.rows.activation, rounded, b.length);
      scatter(rounded, to[i]->inner, b.begin, b.length, to[i]->template row<T>(r));
    }
  }
}

template <typename T>
void add_unrounded_phase(const void* state, int64_t begin, int64_t end) {
  const FloatEnvironment environment;
  if constexpr (sizeof(T) < sizeof(float)) {
    const AddNormForward& p = *static_cast<const AddNormForward*>(state);
    AddendReader<T> addends(p);
    ParameterReader<float> weight(p.rows.weight, p.rows.weight_offset, 1.0f), bias(p.rows.bias, 0.0, -0.0f);
    for (int64_t r = begin; r < end; ++r) add_unrounded_row(p, r, addends, weight, bias);
  }
}

NORMKIT_END_NAMESPACE

#endif  // NORMKIT_DETAIL_ADD_NORM_HPP_
