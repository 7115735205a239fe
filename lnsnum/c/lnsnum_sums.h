/* lnsnum_sums.h: sums of products of codes of a logarithmic number system, in integers alone, in C99.

       y[i] = sum_k w[i, k] x[k]       every addition rounded to the accumulator's format, to nearest, in the order of k

   Base 2. A product is a sum of logarithms; a sum is m_hi + sb(z) or m_hi + db(z), z = m_hi - m_lo, by look-up. The results
   are those of lnsnum.reduction.matmul with accumulator=FORMAT and order="sequential", bit for bit. There is no float, no
   multiplication, no allocation, no function of libc. The tables of an accumulator (12 bits and 7 of fraction: 5 kB) are
   what lnsnum.toolbox.export_targets.c_adder writes. The specification is docs/number_format.md and docs/arithmetic.md.

   Licence: MIT. Copyright the authors of lnsnum. */

#ifndef LNSNUM_SUMS_H
#define LNSNUM_SUMS_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define LNSNUM_SUMS_FUNCTION static __attribute__((unused))
#else
#define LNSNUM_SUMS_FUNCTION static
#endif

/* A code is a sign bit and bits - 1 of m; E = m - bias, bias = 2^(bits - 2); 0 is zero, the sign bit alone is NaN. */
typedef struct {
    int bits, fraction_bits;
} lnsnum_code_format;

/* An accumulator: its format, and what a sum and a difference add to m_hi by z (the latter is not positive, and kept
   without its sign), 0 beyond the ends; and for z below 2^F what tells differences that become zero. */
typedef struct {
    lnsnum_code_format format;
    int32_t sums, differences, halves; /* how many entries there are */
    const uint16_t *sb, *minus_db, *minus_half;
} lnsnum_adder;

LNSNUM_SUMS_FUNCTION int32_t lnsnum_nan_code(lnsnum_code_format format) { return (int32_t)1 << (format.bits - 1); }

/* The code of the number of that sign whose logarithm, from the format's bias on, is m / 2^shift: rounded to nearest, ties
   to the even E (`odd` is that of E - m); the greatest beyond the range, and below it zero or the smallest. */
LNSNUM_SUMS_FUNCTION int32_t lnsnum_place(lnsnum_code_format format, int64_t m, int shift, int odd, int32_t sign) {
    const int64_t one = (int64_t)1 << shift, octave = one << format.fraction_bits;
    const int32_t nan = lnsnum_nan_code(format);
    int64_t whole, rest;
    if (m < one) return m >= one - octave ? (1 | sign) : 0; /* from half of the smallest on */
    whole = m >> shift;
    rest = 2 * (m - (whole << shift));
    if (rest > one || (rest == one && ((whole + odd) & 1))) whole++;
    return (whole < nan ? (int32_t)whole : nan - 1) | sign;
}

/* a + b, codes of the accumulator at one scale. */
LNSNUM_SUMS_FUNCTION int32_t lnsnum_add(const lnsnum_adder *adder, int32_t a, int32_t b) {
    const int32_t nan = lnsnum_nan_code(adder->format), a_m = a & (nan - 1), b_m = b & (nan - 1);
    const int32_t hi = a_m >= b_m ? a : b, m_hi = hi & (nan - 1), z = m_hi - (a_m >= b_m ? b_m : a_m);
    int32_t m;
    if (a == nan || b == nan) return nan;
    if (z == m_hi) return hi; /* the other one is zero */
    if (!((a ^ b) & nan)) {
        m = m_hi + (z < adder->sums ? adder->sb[z] : 0);
        return (m < nan ? m : nan - 1) | (hi & nan);
    }
    if (z == 0) return 0;
    if (z < adder->halves && m_hi - adder->minus_half[z] < 1) return 0;
    m = m_hi - (z < adder->differences ? adder->minus_db[z] : 0);
    return (m > 1 ? m : 1) | (hi & nan);
}

/* The code of the number of that sign whose logarithm, from the format's bias on, is m: exact within the range, at its
   edges as `lnsnum_place`. */
LNSNUM_SUMS_FUNCTION int32_t lnsnum_exactly(lnsnum_code_format format, int32_t m, int32_t sign) {
    const int32_t nan = lnsnum_nan_code(format);
    if (m < 1) return m + ((int32_t)1 << format.fraction_bits) >= 1 ? (1 | sign) : 0;
    return (m < nan ? m : nan - 1) | sign;
}

/* What the logarithm of a product w x is beyond that of the codes, in the accumulator's steps and from its bias on;
   `offset` is by how much w's log_offset is beyond the one that makes its 1. So far outside of the range that no code
   leads back, it is cut to an int32. */
LNSNUM_SUMS_FUNCTION int32_t lnsnum_shift(const lnsnum_adder *adder, lnsnum_code_format w_format, int32_t offset,
                                          lnsnum_code_format x_format) {
    const int64_t far = (int64_t)1 << 29;
    const int f = adder->format.fraction_bits;
    int64_t shift = ((int64_t)offset - (lnsnum_nan_code(w_format) >> 1)) * ((int64_t)1 << (f - w_format.fraction_bits));
    shift -= (int64_t)(lnsnum_nan_code(x_format) >> 1) * ((int64_t)1 << (f - x_format.fraction_bits));
    shift += lnsnum_nan_code(adder->format) >> 1;
    return (int32_t)(shift > far ? far : shift < -far ? -far : shift);
}

/* w x as a code of the accumulator. */
LNSNUM_SUMS_FUNCTION int32_t lnsnum_term(const lnsnum_adder *adder, lnsnum_code_format w_format, int32_t w,
                                         int32_t shift, lnsnum_code_format x_format, int32_t x) {
    const int32_t w_nan = lnsnum_nan_code(w_format), x_nan = lnsnum_nan_code(x_format);
    const int32_t nan = lnsnum_nan_code(adder->format), w_m = w & (w_nan - 1), x_m = x & (x_nan - 1);
    const int f = adder->format.fraction_bits;
    if (w == w_nan || x == x_nan) return nan;
    if (w_m == 0 || x_m == 0) return 0;
    return lnsnum_exactly(adder->format,
                          w_m * ((int32_t)1 << (f - w_format.fraction_bits)) +
                              x_m * ((int32_t)1 << (f - x_format.fraction_bits)) + shift,
                          !(w & w_nan) != !(x & x_nan) ? nan : 0);
}

/* A total as a code of another format of no more fraction bits: `one` is the logarithm of the accumulator's 1, in its
   steps, and log_offset the scale of the result. */
LNSNUM_SUMS_FUNCTION int32_t lnsnum_total(const lnsnum_adder *adder, int32_t total, int64_t one,
                                          lnsnum_code_format out_format, int32_t log_offset) {
    const int32_t nan = lnsnum_nan_code(adder->format), out_nan = lnsnum_nan_code(out_format);
    const int shift = adder->format.fraction_bits - out_format.fraction_bits;
    int64_t m;
    if (total == nan) return out_nan;
    if (total == 0) return 0;
    m = (int64_t)(total & (nan - 1)) - (nan >> 1) + one + ((int64_t)((out_nan >> 1) - log_offset)) * ((int64_t)1 << shift);
    return lnsnum_place(out_format, m, shift, log_offset & 1, total & nan ? out_nan : 0);
}

/* y (outputs) = W (outputs, inputs) x (inputs), codes of at most 8 bits. `offsets`, one for each output, are the weights'
   log_offsets less the greatest of them, or NULL if all are one; `one` is (greatest + that of x), in the accumulator's steps. */
LNSNUM_SUMS_FUNCTION void lnsnum_matvec(const lnsnum_adder *adder, lnsnum_code_format w_format, const uint8_t *w,
                                        const int32_t *offsets, lnsnum_code_format x_format, const uint8_t *x,
                                        int outputs, int inputs, int64_t one, lnsnum_code_format out_format,
                                        int32_t log_offset, uint8_t *y) {
    int i, k;
    for (i = 0; i < outputs; i++) {
        const int32_t shift = lnsnum_shift(adder, w_format, offsets ? offsets[i] : 0, x_format);
        int32_t total = 0;
        for (k = 0; k < inputs; k++)
            total = lnsnum_add(adder, total, lnsnum_term(adder, w_format, *w++, shift, x_format, x[k]));
        y[i] = (uint8_t)lnsnum_total(adder, total, one, out_format, log_offset);
    }
}

/* max(x, 0), in place: what is negative becomes zero; NaN stays. */
LNSNUM_SUMS_FUNCTION void lnsnum_relu_codes(lnsnum_code_format format, size_t size, uint8_t *x) {
    size_t i;
    for (i = 0; i < size; i++)
        if (x[i] > lnsnum_nan_code(format)) x[i] = 0;
}

#endif /* LNSNUM_SUMS_H */
