// aie::mmul<M, K, N, A, B>: C[M][N] += A[M][K] * B[K][N], lanes row by row.
// Shapes: AIE API guide (UG1529), "Supported Matrix Multiplication Modes", real integer types.
#pragma once

#include "multiply.hpp"

namespace aie {

namespace detail {

struct shape {
  unsigned m, k, n;
  constexpr bool operator==(const shape&) const = default;
};

template <unsigned ABytes, unsigned BBytes>
constexpr bool has_shape(shape wanted) {
  constexpr unsigned factors = ABytes * 10 + BBytes;
  const auto among = [wanted](auto... shapes) { return ((wanted == shapes) || ...); };
  using S = shape;
#if __AIE_ARCH__ == 10
  if constexpr (factors == 11) {
    return among(S{4, 8, 4}, S{4, 16, 4}, S{8, 8, 4}, S{2, 8, 8}, S{4, 8, 8}, S{1, 16, 8}, S{2, 16, 8}, S{4, 16, 8});
  } else if constexpr (factors == 21) {
    return among(S{4, 4, 4}, S{8, 4, 4}, S{4, 8, 4}, S{4, 4, 8});
  } else if constexpr (factors == 12) {
    return among(S{4, 4, 8}, S{4, 4, 4}, S{8, 8, 1});
  } else if constexpr (factors == 22) {
    return among(S{4, 4, 4}, S{2, 4, 8}, S{4, 4, 8}, S{4, 2, 8}, S{8, 8, 1});
  } else if constexpr (factors == 42) {
    return among(S{2, 4, 8}, S{4, 4, 4}, S{4, 2, 4}, S{2, 2, 4}, S{2, 4, 4}, S{4, 4, 2}, S{2, 2, 8});
  } else if constexpr (factors == 24) {
    return among(S{4, 2, 2}, S{2, 4, 8}, S{4, 4, 4});
  } else if constexpr (factors == 44) {
    return among(S{4, 2, 4}, S{2, 2, 2}, S{2, 4, 2}, S{2, 8, 2}, S{4, 2, 2}, S{4, 4, 2}, S{2, 4, 4}, S{4, 4, 1});
  }
#elif __AIE_ARCH__ == 20
  if constexpr (factors == 11) {
    return among(S{4, 8, 4}, S{4, 16, 4}, S{8, 8, 4}, S{2, 8, 8}, S{4, 8, 8}, S{8, 8, 8}, S{1, 16, 8}, S{2, 16, 8},
                 S{4, 16, 8});
  } else if constexpr (factors == 21) {
    return among(S{4, 4, 4}, S{8, 4, 4}, S{4, 8, 4}, S{4, 4, 8}, S{8, 4, 8}, S{2, 8, 8});
  } else if constexpr (factors == 12) {
    return among(S{4, 4, 8}, S{4, 4, 4});
  } else if constexpr (factors == 22) {
    return among(S{4, 4, 4}, S{2, 4, 8}, S{4, 4, 8}, S{4, 2, 8}, S{8, 2, 8}, S{8, 1, 8});
  } else if constexpr (factors == 42) {
    return among(S{2, 4, 8}, S{4, 4, 8}, S{4, 4, 4}, S{4, 2, 4}, S{4, 1, 8});
  } else if constexpr (factors == 24) {
    return among(S{2, 4, 8}, S{4, 4, 4});
  } else if constexpr (factors == 44) {
    return among(S{4, 2, 4}, S{4, 4, 4}, S{8, 2, 4}, S{4, 1, 8}, S{8, 1, 8});
  }
#else
  if constexpr (factors == 11) {
    return among(S{4, 8, 8}, S{8, 8, 8});
  } else if constexpr (factors == 21) {
    return among(S{4, 4, 8}, S{8, 4, 8}, S{4, 8, 8}, __AIE_ARCH__ == 21 ? S{2, 8, 8} : S{8, 2, 8});
  } else if constexpr (factors == 12) {
    return among(S{8, 2, 8}, S{4, 4, 8});
  } else if constexpr (factors == 22) {
    return among(S{4, 2, 8}, S{8, 2, 8}, S{2, 4, 8}, S{4, 4, 8}, S{8, 1, 8});
  } else if constexpr (factors == 42) {
    return among(S{4, 2, 8}, S{2, 4, 8}, S{4, 4, 8}, S{4, 1, 8});
  } else if constexpr (factors == 24) {
    return among(S{4, 4, 8});
  } else if constexpr (factors == 44) {
    return among(S{4, 2, 8}, S{4, 4, 4}, S{4, 4, 8}, S{8, 2, 8}, S{4, 1, 8});
  }
#endif
  return false;
}

// On XDNA 2 and AIE-MLv2 some 16 x 16 shapes come with one accumulator width only.
template <unsigned ABytes, unsigned BBytes, AccumTag Tag>
constexpr bool has_accumulator(shape wanted) {
  if constexpr (is_ml_v2 && ABytes == 2 && BBytes == 2) {
    return (wanted.k == 4) == (accumulator_bits<Tag> == 64);
  } else if constexpr (is_ml_v2 && ABytes == 1 && BBytes == 1) {
    return accumulator_bits<Tag> == 32;
  }
  return true;
}

}  // namespace detail

template <unsigned M, unsigned K, unsigned N, class A, class B = A, class Tag = accauto>
class mmul {
  using tag = detail::product_tag<Tag, A, B>;
  static_assert(detail::has_shape<sizeof(A), sizeof(B)>({M, K, N}), "this architecture has no mmul of this shape");
  static_assert(detail::has_accumulator<sizeof(A), sizeof(B), tag>({M, K, N}),
                "this shape has another accumulator width on this architecture: name acc32 or acc64");

 public:
  static constexpr unsigned M_elems = M, K_elems = K, N_elems = N;
  static constexpr unsigned size_A = M * K, size_B = K * N, size_C = M * N;
  using accum_type = accum<tag, size_C>;

  mmul() = default;  // undefined, but the first mac of a fresh object multiplies only, as in the API
  template <class Other>
  mmul(const accum<Other, size_C>& c) : c_(c), fresh_(false) {}
  template <detail::Integer T>
  explicit mmul(const vector<T, size_C>& c, int shift = 0) : c_(c, shift), fresh_(false) {}

  void mul(const vector<A, size_A>& a, const vector<B, size_B>& b) {
    fresh_ = true;
    mac(a, b);
  }
  void mac(const vector<A, size_A>& a, const vector<B, size_B>& b) {
    constexpr unsigned bits = detail::accumulator_bits<tag>;
    using wide = emulation::int128;
    emulation::count(&emulation::operation_counts::multiply, emulation::operations_for(M * K * N, detail::macs<A, B>));
    for (unsigned i = 0; i < M; ++i) {
      for (unsigned j = 0; j < N; ++j) {
        auto& lane = c_.lanes[i * N + j];
        wide sum = fresh_ ? wide{0} : wide{lane};
        for (unsigned k = 0; k < K; ++k) sum += wide{a.lanes[i * K + k]} * wide{b.lanes[k * N + j]};
        lane = detail::wrap<bits>(sum);
      }
    }
    fresh_ = false;
  }

  accum_type to_accum() const {
    emulation::require(!fresh_, "an mmul is read before anything was multiplied");
    return c_;
  }
  operator accum_type() const { return to_accum(); }
  template <detail::Integer T>
  vector<T, size_C> to_vector(int shift = 0) const {
    return to_accum().template to_vector<T>(shift);
  }

 private:
  accum_type c_;
  bool fresh_ = true;
};

}  // namespace aie
