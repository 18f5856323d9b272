// Softmax over rows of bfloat16 logits, for one network on a CPU: sums and exponentials in float32, nothing of the size
// of the logits but the logits. softmax.py calls it.

#include "parallel.h"
#include "vectors.h"

typedef uint16_t Halves __attribute__((vector_size(2 * WIDTH), aligned(2), may_alias));

static inline Floats widened(Halves halves) {
    const Ints bits = __builtin_convertvector(halves, Ints) << 16;
    return reinterpret_cast<const Floats &>(bits);
}

// To the nearest, ties to even.
static inline Halves rounded(Floats value) {
    const Ints bits = reinterpret_cast<const Ints &>(value);
    return __builtin_convertvector((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16, Halves);
}

// A row's logits of this part, with their biases; `absent` behind its end.
static inline Floats logits_at(const Part &p, const uint16_t *row, const float *bias, float absent) {
    if (p.n == WIDTH) return widened(*reinterpret_cast<const Halves *>(row)) + load(bias);
    uint16_t whole[WIDTH] = {};
    for (int i = 0; i < p.n; i++) whole[i] = row[i];
    Floats value = widened(*reinterpret_cast<const Halves *>(whole)) + p.get(bias);
    for (int i = p.n; i < WIDTH; i++) value[i] = absent;
    return value;
}

extern "C" {

// largest and total [rows]: max and sum of e^(x - max), x = logits [rows, width] + bias [width].
void softmax_sums(Pool pool, long rows, long width, const uint16_t *logits, const float *bias, float *largest,
                  float *total) {
    const float lowest = -__builtin_inff();
    divide(pool, rows, [&](long n) {
        const uint16_t *row = logits + n * width;
        Floats maxima = Floats{} + lowest, sums = {};
        along(width, [&](long i, Part p) {
            const Floats x = logits_at(p, row + i, bias + i, lowest);
            maxima = x > maxima ? x : maxima;
        });
        float top = maxima[0], sum = 0.0f;
        for (int i = 1; i < WIDTH; i++) top = maxima[i] > top ? maxima[i] : top;
        along(width, [&](long i, Part p) {
            Floats e = exp_negative(logits_at(p, row + i, bias + i, top) - top);
            for (int j = p.n; j < WIDTH; j++) e[j] = 0.0f;
            sums += e;
        });
        for (int i = 0; i < WIDTH; i++) sum += sums[i];
        largest[n] = top;
        total[n] = sum;
    });
}

// The logits [rows, width] become the gradient scale (softmax - 1 at the target) of the loss, and d_bias [width] its sum
// over rows: a part has all rows of some columns, which are added up in their order. log_total [rows]: log sum e^x.
void softmax_gradient(Pool pool, long rows, long width, const int64_t *targets, const float *scale,
                      const float *log_total, const float *bias, uint16_t *logits, float *d_bias) {
    const long vectors = (width + WIDTH - 1) / WIDTH, parts = vectors < pool.threads ? vectors : pool.threads;
    divide(pool, parts, [&](long part) {
        const long from = vectors * part / parts * WIDTH, end = vectors * (part + 1) / parts * WIDTH;
        const long to = end < width ? end : width;
        for (long i = from; i < to; i++) d_bias[i] = 0.0f;
        for (long n = 0; n < rows; n++) {
            uint16_t *row = logits + n * width + from;
            const long target = targets[n] - from;
            along(to - from, [&](long i, Part p) {
                Floats d = exp_negative(logits_at(p, row + i, bias + from + i, log_total[n]) - log_total[n]);
                if (target >= i && target < i + p.n) d[target - i] -= 1.0f;
                d *= scale[n];
                p.put(d_bias + from + i, p.get(d_bias + from + i) + d);
                const Halves halves = rounded(d);
                if (p.n == WIDTH)
                    *reinterpret_cast<Halves *>(row + i) = halves;
                else
                    for (int j = 0; j < p.n; j++) row[i + j] = halves[j];
            });
        }
    });
}
}
