/* lnsnum_net.h: layers of neural networks whose weights are codes of a logarithmic number system, in C99.

       y[i] = scale[i] * sum_k value(w[i, k]) x[k] + shift[i]

   A weight is a byte, its value a look-up in the 256 floats of its format; the scale of a tensor or a channel is a factor
   of the sum, and so is a batch normalization that follows. Sums are kept in float, one term after another in the order
   of k. An image is an array (channels, height, width), a weight (outputs, inputs / groups, rows, columns), as in
   PyTorch, all of them row-major and without gaps.

   Nothing is allocated, nothing is global, and no function of libc is called: a compiler for a microcontroller and a
   float of IEEE 754 are enough. All functions are static; what a program does not use is left out of it.

   lnsnum export --to c-network writes programs of them. Licence: MIT. Copyright the authors of lnsnum. */

#ifndef LNSNUM_NET_H
#define LNSNUM_NET_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define LNSNUM_NET_FUNCTION static __attribute__((unused))
#else
#define LNSNUM_NET_FUNCTION static
#endif

/* A window that moves over an image of `height` x `width`: of a convolution, or of pooling. */
typedef struct {
    int height, width;           /* of the image */
    int rows, columns;           /* of the window */
    int stride_y, stride_x;      /* from one place of it to the next */
    int padding_y, padding_x;    /* how far it begins above and to the left of the image */
    int dilation_y, dilation_x;  /* from one of its rows, columns, to the next */
    int out_height, out_width;   /* how many places it has */
} lnsnum_window;

/* The first and, exclusively, the last of `places` at which `offset` from its beginning lies within 0 to size - 1. */
LNSNUM_NET_FUNCTION void lnsnum_inside(int offset, int stride, int size, int places, int *first, int *end) {
    *first = offset < 0 ? (-offset + stride - 1) / stride : 0;
    *end = offset < size ? (size - 1 - offset) / stride + 1 : 0;
    if (*end > places) *end = places;
}

/* y (outputs) = W (outputs, inputs) x (inputs), then scale and shift. */
LNSNUM_NET_FUNCTION void lnsnum_linear(const uint8_t *codes, const float *values, const float *scale,
                                       const float *shift, int outputs, int inputs, const float *x, float *y) {
    int i, k;
    for (i = 0; i < outputs; i++) {
        float sum = 0.0f;
        for (k = 0; k < inputs; k++) sum += values[codes[k]] * x[k];
        codes += inputs;
        y[i] = scale[i] * sum + shift[i];
    }
}

/* to += value * from, for rows of so many columns; a row is `step`, or `to_step`, behind the one before. */
LNSNUM_NET_FUNCTION void lnsnum_add_rows(float value, int rows, int columns, const float *from, int step, int stride,
                                         float *to, int to_step) {
    int column;
    for (; rows > 0; rows--, from += step, to += to_step) {
        if (stride == 1)
            for (column = 0; column < columns; column++) to[column] += value * from[column];
        else
            for (column = 0; column < columns; column++) to[column] += value * from[column * stride];
    }
}

/* y (outputs, out_height, out_width) of x (channels, height, width), then scale and shift of each output. A weight is
   decoded once, and its products go to a whole image: the order of a sum is that of its weights all the same. */
LNSNUM_NET_FUNCTION void lnsnum_conv2d(const uint8_t *codes, const float *values, const float *scale,
                                       const float *shift, int outputs, int channels, int groups,
                                       const lnsnum_window *window, const float *x, float *y) {
    const lnsnum_window w = *window;
    int i, c, r, s, column;
    for (i = 0; i < outputs; i++) {
        const int inputs = channels / groups;
        const float *group = x + (size_t)(i / (outputs / groups) * inputs) * (size_t)(w.height * w.width);
        const int size = w.out_height * w.out_width;
        for (column = 0; column < size; column++) y[column] = 0.0f;
        for (c = 0; c < inputs; c++) {
            for (r = 0; r < w.rows; r++) {
                const int down = r * w.dilation_y - w.padding_y;
                int top, bottom;
                lnsnum_inside(down, w.stride_y, w.height, w.out_height, &top, &bottom);
                for (s = 0; s < w.columns; s++) {
                    const float value = values[*codes++];
                    const int right = s * w.dilation_x - w.padding_x;
                    int first, end;
                    const float *from;
                    lnsnum_inside(right, w.stride_x, w.width, w.out_width, &first, &end);
                    if (top >= bottom || first >= end) continue; /* it is beyond the image wherever it is put */
                    from = group + (c * w.height + top * w.stride_y + down) * w.width + right + first * w.stride_x;
                    lnsnum_add_rows(value, bottom - top, end - first, from, w.stride_y * w.width, w.stride_x,
                                    y + top * w.out_width + first, w.out_width);
                }
            }
        }
        for (column = 0; column < size; column++) y[column] = scale[i] * y[column] + shift[i];
        y += size;
    }
}

/* The greatest of each window; NaN where it has one. What is beyond the image is not looked at. */
LNSNUM_NET_FUNCTION void lnsnum_max_pool2d(int channels, const lnsnum_window *window, const float *x, float *y) {
    const lnsnum_window w = *window;
    int c, row, column, r, s;
    for (c = 0; c < channels; c++, x += w.height * w.width) {
        for (row = 0; row < w.out_height; row++) {
            for (column = 0; column < w.out_width; column++) {
                float greatest = 0.0f;
                int seen = 0;
                for (r = 0; r < w.rows; r++) {
                    const int i = row * w.stride_y - w.padding_y + r * w.dilation_y;
                    if (i < 0 || i >= w.height) continue;
                    for (s = 0; s < w.columns; s++) {
                        const int j = column * w.stride_x - w.padding_x + s * w.dilation_x;
                        float v;
                        if (j < 0 || j >= w.width) continue;
                        v = x[i * w.width + j];
                        if (!seen || v > greatest || v != v) greatest = v;
                        seen = 1;
                    }
                }
                *y++ = greatest;
            }
        }
    }
}

/* The mean of each window: its sum by `rows * columns`, or (count_padding = 0) by how much of it is in the image. */
LNSNUM_NET_FUNCTION void lnsnum_avg_pool2d(int channels, const lnsnum_window *window, int count_padding,
                                           const float *x, float *y) {
    const lnsnum_window w = *window;
    int c, row, column, r, s;
    for (c = 0; c < channels; c++, x += w.height * w.width) {
        for (row = 0; row < w.out_height; row++) {
            for (column = 0; column < w.out_width; column++) {
                float sum = 0.0f;
                int count = 0;
                for (r = 0; r < w.rows; r++) {
                    const int i = row * w.stride_y - w.padding_y + r;
                    if (i < 0 || i >= w.height) continue;
                    for (s = 0; s < w.columns; s++) {
                        const int j = column * w.stride_x - w.padding_x + s;
                        if (j < 0 || j >= w.width) continue;
                        sum += x[i * w.width + j];
                        count++;
                    }
                }
                *y++ = sum / (float)(count_padding ? w.rows * w.columns : count);
            }
        }
    }
}

/* x = scale x + shift, in place, by channels of `size` elements: a batch normalization that no layer could take. */
LNSNUM_NET_FUNCTION void lnsnum_affine(int channels, int size, const float *scale, const float *shift, float *x) {
    int c, i;
    for (c = 0; c < channels; c++, x += size)
        for (i = 0; i < size; i++) x[i] = scale[c] * x[i] + shift[c];
}

/* x = max(x, 0), in place; NaN stays. */
LNSNUM_NET_FUNCTION void lnsnum_relu(int size, float *x) {
    int i;
    for (i = 0; i < size; i++) x[i] = x[i] < 0.0f ? 0.0f : x[i];
}

/* x where it is positive, else slope x, in place. */
LNSNUM_NET_FUNCTION void lnsnum_leaky_relu(int size, float slope, float *x) {
    int i;
    for (i = 0; i < size; i++) x[i] = x[i] < 0.0f ? slope * x[i] : x[i];
}

/* x from `low` to `high`, in place; NaN stays. */
LNSNUM_NET_FUNCTION void lnsnum_clip(int size, float low, float high, float *x) {
    int i;
    for (i = 0; i < size; i++) x[i] = x[i] < low ? low : x[i] > high ? high : x[i];
}

/* The index of the greatest, the first of equals: of logits, the class. Of the first NaN where there is one, as torch's. */
LNSNUM_NET_FUNCTION int lnsnum_argmax(int size, const float *x) {
    int i, best = 0;
    for (i = 1; i < size && x[best] == x[best]; i++)
        if (!(x[i] <= x[best])) best = i;
    return best;
}

#endif /* LNSNUM_NET_H */
