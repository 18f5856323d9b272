// Vectors of float32 as wide as the processor's registers, and the functions that the sweeps and the softmax need of them.

#pragma once

#include <cstdint>

#ifdef __AVX512F__
constexpr int WIDTH = 16;
#else
constexpr int WIDTH = 8;
#endif
typedef float Floats __attribute__((vector_size(4 * WIDTH), aligned(4), may_alias));
typedef int32_t Ints __attribute__((vector_size(4 * WIDTH), aligned(4), may_alias));

static inline Floats load(const float *at) { return *reinterpret_cast<const Floats *>(at); }
static inline void store(float *at, Floats value) { *reinterpret_cast<Floats *>(at) = value; }

// e^x within 2 units in the last place for x <= 0; below -87, e^-87. NaN stays NaN.
static inline Floats exp_negative(Floats x) {
    x = x < -87.0f ? Floats{} - 87.0f : x;
    const Floats shift = Floats{} + 12582912.0f;  // 1.5 * 2^23: adding it rounds to a whole number
    const Floats rounded = x * 1.44269504f + shift;
    const Floats whole = rounded - shift;
    const Floats r = (x - whole * 0.693145752f) - whole * 1.42860677e-6f;
    Floats p = r * 1.98756912e-4f + 1.39819994e-3f;
    p = p * r + 8.33345205e-3f;
    p = p * r + 4.16657962e-2f;
    p = p * r + 1.66666657e-1f;
    p = p * r + 0.5f;
    p = (p * r) * r + (r + 1.0f);
    const Ints power = (reinterpret_cast<const Ints &>(rounded) - 0x4B400000 + 127) << 23;
    return p * reinterpret_cast<const Floats &>(power);
}

static inline Floats absolute(Floats x) { return x < 0.0f ? -x : x; }

static inline Floats sigmoid(Floats x) {
    const Floats e = exp_negative(-absolute(x));
    return (x < 0.0f ? e : Floats{} + 1.0f) / (1.0f + e);
}

// By its series near zero, where the quotient would cancel.
static inline Floats tanh(Floats x) {
    const Floats size = absolute(x), s = x * x;
    const Floats e = exp_negative(-2.0f * size);
    const Floats large = (1.0f - e) / (1.0f + e);
    const Floats small =
        x * (1.0f - s * (0.333333333f - s * (0.133333333f - s * (0.0539682540f - s * 0.0218694885f))));
    return size < 0.25f ? small : x < 0.0f ? -large : large;
}

// Up to WIDTH numbers of a row.
struct Part {
    int n;
    Floats get(const float *at) const {
        if (n == WIDTH) return load(at);
        float whole[WIDTH] = {};
        for (int i = 0; i < n; i++) whole[i] = at[i];
        return load(whole);
    }
    void put(float *at, Floats value) const {
        if (n == WIDTH) return store(at, value);
        for (int i = 0; i < n; i++) at[i] = value[i];
    }
};

// each(at, part) for all of a row, WIDTH numbers at a time and then the rest.
template <class Each> static inline void along(long width, Each each) {
    long at = 0;
    for (; at + WIDTH <= width; at += WIDTH) each(at, Part{WIDTH});
    if (at < width) each(at, Part{int(width - at)});
}
