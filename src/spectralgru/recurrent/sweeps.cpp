// The GRU's sweeps through time for one network on a CPU, float32; native.py compiles, loads and calls them.
//
// A part of a sweep goes through all steps for some lanes of the batch, which never wait for the others: that is how
// threads share it. Recurrent matrices come packed in panels, as the products read them.

#include "parallel.h"
#include "vectors.h"

constexpr int ROWS = WIDTH == 16 ? 12 : 6;  // 24 sums and 2 columns of the panel in 32 registers; 12 and 2 of 16
constexpr int PANEL = 2 * WIDTH;

// c [R, PANEL] += a [R, depth] @ panel [depth, PANEL]; every sum runs in the same order whatever R is.
template <int R> static void tile(const float *a, long depth, const float *panel, float *c, long width, int columns) {
    const Part left{columns < WIDTH ? columns : WIDTH}, right{columns - left.n};
    Floats sums[R][2];
#pragma GCC unroll 16
    for (int r = 0; r < R; r++) {
        sums[r][0] = left.get(c + r * width);
        sums[r][1] = right.get(c + r * width + WIDTH);
    }
    for (long k = 0; k < depth; k++, panel += PANEL) {
        const Floats first = load(panel), second = load(panel + WIDTH);
#pragma GCC unroll 16
        for (int r = 0; r < R; r++) {
            sums[r][0] += first * a[r * depth + k];
            sums[r][1] += second * a[r * depth + k];
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; r++) {
        left.put(c + r * width, sums[r][0]);
        right.put(c + r * width + WIDTH, sums[r][1]);
    }
}

template <int R>
static void tiles(int rows, const float *a, long depth, const float *panel, float *c, long width, int columns) {
    if (rows == R) return tile<R>(a, depth, panel, c, width, columns);
    if constexpr (R > 1) tiles<R - 1>(rows, a, depth, panel, c, width, columns);
}

// c [rows, width] += a [rows, depth] @ b, packed.
static void add_product(long rows, const float *a, long depth, const float *packed, float *c, long width) {
    const long blocks = (rows + ROWS - 1) / ROWS;
    for (long column = 0; column < width; column += PANEL, packed += depth * PANEL) {
        const int columns = width - column < PANEL ? width - column : PANEL;
        for (long block = 0; block < blocks; block++) {
            const long from = rows * block / blocks, to = rows * (block + 1) / blocks;
            tiles<ROWS>(to - from, a + from * depth, depth, packed, c + from * width + column, width, columns);
        }
    }
}

extern "C" {

int panel_width() { return PANEL; }

// b [depth, width] with any strides, as panels [depth, PANEL] one after the other, zeros behind the last column.
void pack(const float *b, long depth, long width, long row_stride, long column_stride, float *packed) {
    for (long column = 0; column < width; column += PANEL)
        for (long k = 0; k < depth; k++)
            for (long j = column; j < column + PANEL; j++)
                *packed++ = j < width ? b[k * row_stride + j * column_stride] : 0.0f;
}

// All lanes, in so many parts, through all steps. gates [T, B, 2H] and candidates [T, B, H] hold the input products and
// become r, z and n; states [T + 1, B, H] begins with the first state; keep [T, B] or null; held [B, H] is scratch.
void forward(Pool pool, long parts, long steps, long batch, long hidden, int before, const float *w_gates,
             const float *w_candidate, const uint8_t *keep, float *gates, float *candidates, float *states,
             float *recurrent, float *held) {
    divide(pool, parts, [&](long part) {
        const long from = batch * part / parts, rows = batch * (part + 1) / parts - from;
        for (long t = 0; t < steps; t++) {
            const long lane = t * batch + from;
            const float *h = states + lane * hidden;
            float *rz = gates + lane * 2 * hidden, *n = candidates + lane * hidden, *q = recurrent + lane * hidden;
            float *next = states + (lane + batch) * hidden;
            if (keep) {
                float *own = held + from * hidden;
                for (long b = 0; b < rows; b++)
                    along(hidden, [&](long i, Part p) {
                        p.put(own + b * hidden + i, p.get(h + b * hidden + i) * float(keep[lane + b]));
                    });
                h = own;
            }
            add_product(rows, h, hidden, w_gates, rz, 2 * hidden);
            if (!before) {
                for (long i = 0; i < rows * hidden; i++) q[i] = 0.0f;
                add_product(rows, h, hidden, w_candidate, q, hidden);
            }
            for (long b = 0; b < rows; b++) {
                float *r = rz + b * 2 * hidden, *z = r + hidden;
                const long row = b * hidden;
                along(hidden, [&](long i, Part p) {
                    const Floats reset = sigmoid(p.get(r + i));
                    p.put(r + i, reset);
                    p.put(z + i, sigmoid(p.get(z + i)));
                    if (before)
                        p.put(q + row + i, reset * p.get(h + row + i));
                    else
                        p.put(n + row + i, p.get(n + row + i) + reset * p.get(q + row + i));
                });
            }
            if (before) add_product(rows, q, hidden, w_candidate, n, hidden);
            for (long b = 0; b < rows; b++) {
                const float *z = rz + b * 2 * hidden + hidden;
                const long row = b * hidden;
                along(hidden, [&](long i, Part p) {
                    const Floats candidate = tanh(p.get(n + row + i));
                    p.put(n + row + i, candidate);
                    p.put(next + row + i, candidate + p.get(z + i) * (p.get(h + row + i) - candidate));
                });
            }
        }
    });
}

// All lanes back through all steps, from `grad` [T, B, H] of the states after each step. previous [T, B, H]:
// the states before them, as the steps saw them. Writes d_gates, d_n (of the arguments of sigm and tanh), with reset
// "after" d_q = d_n * r, and into d_first [B, H] that of the first state; d_q is scratch otherwise.
void backward(Pool pool, long parts, long steps, long batch, long hidden, int before, const float *w_gates,
              const float *w_candidate, const uint8_t *keep, const float *grad, const float *previous,
              const float *gates, const float *candidates, const float *recurrent, float *d_gates, float *d_n,
              float *d_q, float *d_first) {
    divide(pool, parts, [&](long part) {
        const long from = batch * part / parts, rows = batch * (part + 1) / parts - from;
        float *dh = d_first + from * hidden;
        for (long i = 0; i < rows * hidden; i++) dh[i] = 0.0f;
        for (long t = steps - 1; t >= 0; t--) {
            const long lane = t * batch + from, at = lane * hidden;
            const float *h = previous + at, *n = candidates + at, *q = recurrent + at, *g = grad + at;
            const float *rz = gates + 2 * at;
            float *by_rz = d_gates + 2 * at, *by_n = d_n + at, *by_q = d_q + at;
            for (long b = 0; b < rows; b++) {
                const float *r = rz + b * 2 * hidden, *z = r + hidden;
                float *by_r = by_rz + b * 2 * hidden, *by_z = by_r + hidden;
                const long row = b * hidden;
                along(hidden, [&](long i, Part p) {
                    const Floats d = p.get(dh + row + i) + p.get(g + row + i);
                    const Floats update = p.get(z + i), candidate = p.get(n + row + i);
                    const Floats inner = d * (1.0f - update) * (1.0f - candidate * candidate);
                    p.put(by_n + row + i, inner);
                    p.put(by_z + i, d * (p.get(h + row + i) - candidate) * update * (1.0f - update));
                    p.put(dh + row + i, d * update);
                    if (before) {
                        p.put(by_q + row + i, Floats{});
                    } else {
                        const Floats reset = p.get(r + i);
                        p.put(by_q + row + i, inner * reset);
                        p.put(by_r + i, inner * p.get(q + row + i) * reset * (1.0f - reset));
                    }
                });
            }
            if (before) {
                add_product(rows, by_n, hidden, w_candidate, by_q, hidden);  // d(r * h)
                for (long b = 0; b < rows; b++) {
                    const float *r = rz + b * 2 * hidden;
                    float *by_r = by_rz + b * 2 * hidden;
                    const long row = b * hidden;
                    along(hidden, [&](long i, Part p) {
                        const Floats reset = p.get(r + i), d = p.get(by_q + row + i);
                        p.put(by_r + i, d * p.get(h + row + i) * reset * (1.0f - reset));
                        p.put(dh + row + i, p.get(dh + row + i) + d * reset);
                    });
                }
            } else {
                add_product(rows, by_q, hidden, w_candidate, dh, hidden);
            }
            add_product(rows, by_rz, 2 * hidden, w_gates, dh, hidden);
            if (keep)
                for (long b = 0; b < rows; b++)
                    along(hidden, [&](long i, Part p) {
                        p.put(dh + b * hidden + i, p.get(dh + b * hidden + i) * float(keep[lane + b]));
                    });
        }
    });
}
}
