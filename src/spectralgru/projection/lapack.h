// Routines of BLAS and LAPACK (lapack.py). They take columns for rows: to them a matrix that lies row by row is its
// transpose, and vectors [k, n] are n x k with a vector in each column.

#pragma once

#include <algorithm>
#include <vector>

template <class Real>
using Gemm = void(const char *, const char *, const int *, const int *, const int *, const Real *, const Real *,
                  const int *, const Real *, const int *, const Real *, Real *, const int *);
template <class Real>
using Syevd = void(const char *, const char *, const int *, Real *, const int *, Real *, Real *, const int *, int *,
                   const int *, int *);

struct Lapack {
    Gemm<float> *sgemm;
    Gemm<double> *dgemm;
    Syevd<float> *ssyevd;
    Syevd<double> *dsyevd;
    void (*sgeqrf)(const int *, const int *, float *, const int *, float *, float *, const int *, int *);
    void (*sorgqr)(const int *, const int *, const int *, float *, const int *, const float *, float *, const int *,
                   int *);
    void (*spotrf)(const char *, const int *, float *, const int *, int *);
    int (*set_threads)(int);

    // c = alpha a b + beta c
    template <class Real>
    void multiply(char a_form, char b_form, int rows, int columns, int depth, Real alpha, const Real *a, int a_apart,
                  const Real *b, int b_apart, Real beta, Real *c, int c_apart) const {
        const auto own = [&](auto *gemm) {
            gemm(&a_form, &b_form, &rows, &columns, &depth, &alpha, a, &a_apart, b, &b_apart, &beta, c, &c_apart);
        };
        if constexpr (sizeof(Real) == sizeof(float)) own(sgemm);
        else own(dgemm);
    }

    // W^T W of a weight [n, n].
    template <class Real> void gram(const Real *weight, int n, Real *gram) const {
        multiply<Real>('N', 'T', n, n, n, 1, weight, n, weight, n, 0, gram, n);
    }

    // Ascending values, and vectors in place of a symmetric matrix; whether they were found.
    template <class Real> bool eigen(int n, Real *matrix, Real *values) const {
        const int lwork = 1 + 6 * n + 2 * n * n + 64 * n, liwork = 3 + 5 * n;
        std::vector<Real> work(lwork);
        std::vector<int> whole(liwork);
        int info;
        const auto own = [&](auto *syevd) {
            syevd("V", "L", &n, matrix, &n, values, work.data(), &lwork, whole.data(), &liwork, &info);
        };
        if constexpr (sizeof(Real) == sizeof(float)) own(ssyevd);
        else own(dsyevd);
        return info == 0;
    }

    // The weight without what its vectors [count, n], with singular values `sigma`, have above the bound.
    template <class Real>
    void clip(const Real *weight, int n, int count, const Real *vectors, const Real *sigma, double bound,
              Real *clipped) const {
        std::vector<Real> images(size_t(count) * n);
        std::copy_n(weight, size_t(n) * n, clipped);
        multiply<Real>('T', 'N', n, count, n, 1, weight, n, vectors, n, 0, images.data(), n);
        for (long i = 0; i < count; i++)
            for (long j = 0; j < n; j++) images[i * n + j] *= 1 - Real(bound) / sigma[i];
        multiply<Real>('N', 'T', n, n, count, -1, vectors, n, images.data(), n, 1, clipped, n);
    }
};
