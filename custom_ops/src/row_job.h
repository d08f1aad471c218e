// One call of the op: all rows of a tensor, cut into chunks for ONNX Runtime's thread pool.
#pragma once

#include <algorithm>
#include <cstddef>

#include "hccs/kernel.h"

namespace hccs {

// Rows 0..rows of n logits each. Head of a row is (row / rows_per_head) mod heads: batch and heads lie folded in front
// of the head axis, and since the axis size is a multiple of the number of heads no other axis matters.
template <class Input, class Result>
struct RowJob {
  using Kernel = void (*)(const Input*, Result*, size_t rows, size_t n, const Head&, const Form&);

  Kernel kernel;
  const Input* x;
  Result* y;
  size_t rows, n, rows_per_head;
  const Head* heads;
  size_t head_count;
  const Form* form;
  size_t rows_per_chunk;

  size_t chunks() const { return (rows + rows_per_chunk - 1) / rows_per_chunk; }

  void run(size_t begin, size_t end) const {
    while (begin < end) {
      const size_t group = begin / rows_per_head;
      const size_t stop = std::min(end, (group + 1) * rows_per_head);
      kernel(x + begin * n, y + begin * n, stop - begin, n, heads[group % head_count], *form);
      begin = stop;
    }
  }

  void run_all() const { run(0, rows); }

  // For the thread pool: `job` is a RowJob.
  static void run_chunk(void* job, size_t chunk) noexcept {
    const RowJob& self = *static_cast<const RowJob*>(job);
    const size_t begin = chunk * self.rows_per_chunk;
    self.run(begin, std::min(self.rows, begin + self.rows_per_chunk));
  }
};

// Rows that make a chunk of about `bytes`, both sides counted: large enough that the pool's cost of a few hundred
// nanoseconds is lost in it, small enough to stay in a core's cache and to even out.
inline size_t rows_per_chunk(size_t row_bytes, size_t bytes) {
  return std::max<size_t>(1, bytes / row_bytes);
}

}  // namespace hccs
