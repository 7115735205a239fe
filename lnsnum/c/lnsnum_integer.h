/* lnsnum_integer.h: layers of neural networks in integers alone: activations are codes as weights are, in C99.

       total[i] = sum_k w[i, k] x[k] + bias[i]          in an accumulator, which is logarithmic or has a fixed point
       y[i]     = the code nearest to total[i]

   A product adds two logarithms. A logarithmic accumulator (lnsnum_sums.h) looks the sum up; one with a fixed point takes
   2^(r / 2^F) of the product from a table, shifts it, and adds. What leaves a layer is a rank, an integer in the order of
   the numbers: it becomes a code by counting the thresholds that it reaches. All of it, bit for bit, is what a datapath
   in Python computes (lnsnum.torch_bridge.integer_twin makes it). The greatest, and what is cut off, is chosen among codes.

   There is no arithmetic of floats, nothing is allocated or global, no function of libc is called. All functions are
   static; what a program does not use is left out of it. lnsnum export --to c-network --datapath writes programs of them.

   Licence: MIT. Copyright the authors of lnsnum. */

#ifndef LNSNUM_INTEGER_H
#define LNSNUM_INTEGER_H

#include "lnsnum_net.h" /* for lnsnum_window, lnsnum_inside */
#include "lnsnum_sums.h"

#define LNSNUM_NAN_RANK INT32_MIN

/* What an accumulator with a fixed point takes terms from: round(2^(r / 2^F) 2^bits), r = 0 to 2^F - 1. */
typedef struct {
    int fraction_bits;
    const int32_t *table;
} lnsnum_powers;

/* A layer with weights. A linear one is a window as wide as its inputs, with one place. */
typedef struct {
    const uint8_t *codes;         /* (outputs, channels / groups, rows, columns) */
    const int32_t *shifts;        /* for each output, what a product's logarithm is beyond that of its codes */
    const int32_t *bias;          /* for each output, in the accumulator; NULL if there is none */
    int32_t w_nan, x_nan;         /* the sign bits of weights and inputs */
    int w_finer, x_finer;         /* by how many fraction bits the logarithm of a product has more than theirs */
    int outputs, channels, groups;
    lnsnum_window window;
    const int32_t *thresholds;    /* the least rank of each positive code of y; NULL where ranks leave the network */
    int32_t y_nan;                /* the sign bit of y */
} lnsnum_layer;

/* The place of a code in the order of numbers: its m, with the number's sign. */
LNSNUM_SUMS_FUNCTION int32_t lnsnum_rank(int32_t nan, int32_t code) {
    return code < nan ? code : code > nan ? nan - code : LNSNUM_NAN_RANK;
}

/* The same of a float from its bits. */
LNSNUM_SUMS_FUNCTION int32_t lnsnum_rank_of_float(const float *x) {
    const unsigned char *from = (const unsigned char *)x;
    uint32_t bits;
    size_t i;
    for (i = 0; i < sizeof bits; i++) ((unsigned char *)&bits)[i] = from[i];
    if ((bits & 0x7fffffffu) > 0x7f800000u) return LNSNUM_NAN_RANK;
    return bits >> 31 ? -(int32_t)(bits & 0x7fffffffu) : (int32_t)bits;
}

/* The code of a rank: how many of the nan - 1 thresholds, which rise, its size reaches; and its sign. */
LNSNUM_SUMS_FUNCTION uint8_t lnsnum_code_of(const int32_t *thresholds, int32_t nan, int32_t rank) {
    int32_t reached = 0, size, step;
    if (rank == LNSNUM_NAN_RANK) return (uint8_t)nan;
    size = rank < 0 ? -rank : rank;
    for (step = nan >> 1; step; step >>= 1)
        if (thresholds[reached + step - 1] <= size) reached += step;
    return (uint8_t)(rank < 0 && reached ? reached | nan : reached);
}

/* Floats as codes; only their bits are looked at. */
LNSNUM_SUMS_FUNCTION void lnsnum_codes_of_floats(const int32_t *thresholds, int32_t nan, int size, const float *x,
                                                 uint8_t *codes) {
    int i;
    for (i = 0; i < size; i++) codes[i] = lnsnum_code_of(thresholds, nan, lnsnum_rank_of_float(&x[i]));
}

/* The term whose logarithm, at most 0, is in steps of 2^-F octaves: to the nearest integer, half up. */
LNSNUM_SUMS_FUNCTION int32_t lnsnum_power(const lnsnum_powers *powers, int32_t log) {
    const uint32_t mask = ((uint32_t)1 << powers->fraction_bits) - 1;
    const uint32_t octaves = (mask - (uint32_t)log) >> powers->fraction_bits; /* whole ones that it lies below */
    const int32_t term = powers->table[(uint32_t)log & mask];
    if (octaves == 0) return term;
    return octaves < 31 ? (term + ((int32_t)1 << (octaves - 1))) >> octaves : 0;
}

/* y of x (channels, height, width), or ranks; `adder` or `powers`, the other one NULL, say what adds. The order of a sum
   is that of its weights, the bias last. */
LNSNUM_SUMS_FUNCTION void lnsnum_run_layer(const lnsnum_layer *layer, const lnsnum_adder *adder,
                                           const lnsnum_powers *powers, const uint8_t *x, uint8_t *y, int32_t *ranks) {
    const lnsnum_window w = layer->window;
    const int32_t w_nan = layer->w_nan, x_nan = layer->x_nan, total_nan = adder ? lnsnum_nan_code(adder->format) : 0;
    const int32_t w_step = (int32_t)1 << layer->w_finer, x_step = (int32_t)1 << layer->x_finer;
    const int inputs = layer->channels / layer->groups, each = layer->outputs / layer->groups;
    int i, row, column, c, r, s;
    for (i = 0; i < layer->outputs; i++) {
        const uint8_t *group = x + (size_t)(i / each * inputs) * (size_t)(w.height * w.width);
        const uint8_t *weights = layer->codes + (size_t)i * (size_t)(inputs * w.rows * w.columns);
        const int32_t shift = layer->shifts[i];
        for (row = 0; row < w.out_height; row++) {
            for (column = 0; column < w.out_width; column++) {
                const int down = row * w.stride_y - w.padding_y, right = column * w.stride_x - w.padding_x;
                int top, bottom, first, end;
                int32_t total = 0, nan = 0;
                lnsnum_inside(down, w.dilation_y, w.height, w.rows, &top, &bottom);
                lnsnum_inside(right, w.dilation_x, w.width, w.columns, &first, &end);
                for (c = 0; c < inputs; c++) {
                    for (r = top; r < bottom; r++) {
                        const int from = (c * w.height + r * w.dilation_y + down) * w.width + right;
                        const uint8_t *codes = weights + (c * w.rows + r) * w.columns;
                        for (s = first; s < end; s++) {
                            const int32_t a = codes[s], b = group[from + s * w.dilation_x];
                            const int32_t a_m = a & (w_nan - 1), b_m = b & (x_nan - 1);
                            const int negative = !(a & w_nan) != !(b & x_nan);
                            int32_t log;
                            if (b_m == 0) { /* zero or NaN, which differ in the sign bit */
                                nan |= b;
                                continue;
                            }
                            if (a_m == 0) continue;
                            log = a_m * w_step + b_m * x_step + shift;
                            if (adder) {
                                const int32_t term = lnsnum_exactly(adder->format, log, negative ? total_nan : 0);
                                total = lnsnum_add(adder, total, term);
                            } else {
                                const int32_t term = lnsnum_power(powers, log);
                                total += negative ? -term : term;
                            }
                        }
                    }
                }
                if (adder) {
                    if (layer->bias) total = lnsnum_add(adder, total, layer->bias[i]);
                    total = lnsnum_rank(total_nan, total);
                } else if (layer->bias) {
                    total += layer->bias[i];
                }
                if (nan) total = LNSNUM_NAN_RANK;
                if (layer->thresholds) *y++ = lnsnum_code_of(layer->thresholds, layer->y_nan, total);
                else *ranks++ = total;
            }
        }
    }
}

/* The greatest of each window, as codes; NaN where it has one. What is beyond the image is not looked at. */
LNSNUM_SUMS_FUNCTION void lnsnum_max_pool_codes(int32_t nan, int channels, const lnsnum_window *window,
                                                const uint8_t *x, uint8_t *y) {
    const lnsnum_window w = *window;
    int c, row, column, r, s;
    for (c = 0; c < channels; c++, x += w.height * w.width) {
        for (row = 0; row < w.out_height; row++) {
            for (column = 0; column < w.out_width; column++) {
                const int down = row * w.stride_y - w.padding_y, right = column * w.stride_x - w.padding_x;
                int32_t greatest = -nan; /* below all but NaN, which is below this */
                int top, bottom, first, end;
                uint8_t best = 0;
                lnsnum_inside(down, w.dilation_y, w.height, w.rows, &top, &bottom);
                lnsnum_inside(right, w.dilation_x, w.width, w.columns, &first, &end);
                for (r = top; r < bottom; r++) {
                    for (s = first; s < end; s++) {
                        const uint8_t code = x[(down + r * w.dilation_y) * w.width + right + s * w.dilation_x];
                        const int32_t rank = lnsnum_rank(nan, code);
                        if (best == nan || (code != nan && rank <= greatest)) continue;
                        greatest = rank;
                        best = code;
                    }
                }
                *y++ = best;
            }
        }
    }
}

/* Codes from that of `low` to that of `high`, in place; NaN stays. */
LNSNUM_SUMS_FUNCTION void lnsnum_clip_codes(int32_t nan, int32_t low, int32_t high, int size, uint8_t *x) {
    int i;
    for (i = 0; i < size; i++) {
        const int32_t rank = lnsnum_rank(nan, x[i]);
        if (x[i] == nan) continue;
        if (rank < lnsnum_rank(nan, low)) x[i] = (uint8_t)low;
        else if (rank > lnsnum_rank(nan, high)) x[i] = (uint8_t)high;
    }
}

/* The index of the greatest rank, the first of equals: of logits, the class. Of the first NaN where there is one. */
LNSNUM_SUMS_FUNCTION int lnsnum_greatest(int size, const int32_t *ranks) {
    int i, best = 0;
    for (i = 1; i < size && ranks[best] != LNSNUM_NAN_RANK; i++)
        if (ranks[i] > ranks[best] || ranks[i] == LNSNUM_NAN_RANK) best = i;
    return best;
}

#endif /* LNSNUM_INTEGER_H */
