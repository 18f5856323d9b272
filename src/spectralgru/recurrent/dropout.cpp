// Dropout factors from Philox 4x32-10 (Salmon et al. 2011): whole numbers, so the same ones on every processor.

#include "parallel.h"
#include "vectors.h"
#if defined(__AVX2__)
#include <immintrin.h>
#endif

typedef uint64_t Longs __attribute__((vector_size(4 * WIDTH), may_alias));
typedef uint32_t Words __attribute__((vector_size(4 * WIDTH), may_alias));

// Of the lower halves of a with b: one instruction, where a compiler takes three for whole 64-bit numbers.
static inline Longs product(const Longs &a, uint32_t b) {
#if defined(__AVX512F__)
    return reinterpret_cast<Longs>(_mm512_mul_epu32(reinterpret_cast<__m512i>(a), _mm512_set1_epi64(b)));
#elif defined(__AVX2__)
    return reinterpret_cast<Longs>(_mm256_mul_epu32(reinterpret_cast<__m256i>(a), _mm256_set1_epi64x(b)));
#else
    return (a & 0xFFFFFFFFul) * uint64_t(b);
#endif
}

// masks [length]: `factor` where a number of 24 bits is below `limit`, else 0. With G = ceil(length / 4), number i is
// word i / G of the counter (i % G, step, 0, 0) under the key `seed`; pointwise.py has the same.
static void draw(long length, uint64_t seed, uint32_t step, int limit, float factor, float *masks) {
    const long groups = (length + 3) / 4;
    along(groups, [&](long at, Part p) {
        Longs words[2][4];  // in the lower halves: of the counters with even and with odd numbers
        for (int odd = 0; odd < 2; odd++) {
            Longs a, b = Longs{} + step, c = {}, d = {};
            for (int i = 0; i < WIDTH / 2; i++) a[i] = at + 2 * i + odd;
            uint32_t low = seed, high = seed >> 32;
            for (int round = 0; round < 10; round++, low += 0x9E3779B9, high += 0xBB67AE85) {
                const Longs left = product(a, 0xD2511F53), right = product(c, 0xCD9E8D57);
                a = right >> 32 ^ b ^ uint64_t(low);
                c = left >> 32 ^ d ^ uint64_t(high);
                b = right, d = left;
            }
            words[odd][0] = a, words[odd][1] = b, words[odd][2] = c, words[odd][3] = d;
        }
        for (int j = 0; j < 4; j++) {
            const Longs both = (words[0][j] & 0xFFFFFFFFul) | words[1][j] << 32;
            const Words numbers = reinterpret_cast<const Words &>(both) >> 8;
            const long left = length - j * groups - at;
            Part{int(left < p.n ? left : p.n)}.put(
                masks + j * groups + at,
                reinterpret_cast<const Ints &>(numbers) < limit ? Floats{} + factor : Floats{});
        }
    });
}

extern "C" {

// masks [replicas, length], each from its seed.
void dropout(Pool pool, long replicas, long length, const uint64_t *seeds, uint32_t step, int limit, float factor,
             float *masks) {
    divide(pool, replicas, [&](long r) { draw(length, seeds[r], step, limit, factor, masks + r * length); });
}
}
