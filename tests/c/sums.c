/* Runs lnsnum_sums.h on requests of int64 from stdin, with the adders of `adders.h`; answers with int32. */

#include <stdio.h>
#include <stdlib.h>

#include "adders.h"

static int64_t next(void) {
    int64_t word;
    if (fread(&word, sizeof word, 1, stdin) != 1) exit(0);
    return word;
}

static void put(int32_t code) { fwrite(&code, sizeof code, 1, stdout); }

static lnsnum_code_format next_format(void) {
    lnsnum_code_format format;
    format.bits = (int)next();
    format.fraction_bits = (int)next();
    return format;
}

int main(void) {
    static uint8_t w[1 << 16], x[1 << 12], y[1 << 12];
    static int32_t offsets[1 << 12];
    for (;;) {
        const lnsnum_adder *adder = adders[next()];
        if (next()) { /* all pairs */
            int32_t a, b, count = (int32_t)1 << adder->format.bits;
            for (a = 0; a < count; a++)
                for (b = 0; b < count; b++) put(lnsnum_add(adder, a, b));
        } else {
            lnsnum_code_format w_format = next_format(), x_format = next_format(), out_format = next_format();
            int outputs = (int)next(), inputs = (int)next(), has_offsets = (int)next(), i;
            int64_t one = next();
            int32_t log_offset = (int32_t)next();
            for (i = 0; i < outputs; i++) offsets[i] = (int32_t)next();
            for (i = 0; i < outputs * inputs; i++) w[i] = (uint8_t)next();
            for (i = 0; i < inputs; i++) x[i] = (uint8_t)next();
            lnsnum_matvec(adder, w_format, w, has_offsets ? offsets : NULL, x_format, x, outputs, inputs, one,
                          out_format, log_offset, y);
            for (i = 0; i < outputs; i++) put(y[i]);
        }
    }
}
