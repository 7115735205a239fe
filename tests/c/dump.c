/* Prints a weight file as lnsnum.h reads it: `dump FILE [tensors|single|fail K|time]`. What is refused is said on
   stderr, with exit code 1.

   tensors: a line for the file's layout, one for each text of its metadata and each tensor (names in hexadecimal), then
   the codes, floats and doubles of an LNS tensor as hexadecimal words, or the bytes of another. single:  the same
   values, each from lnsnum_decode_float and lnsnum_decode_double. fail K:  the K-th allocation finds no memory; the
   tensors are read but not printed. time:    nanoseconds an element takes, for each tensor. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static long allocations_left = -1;

static int is_out_of_memory(void) { return allocations_left >= 0 && allocations_left-- == 0; }
static void *counted_malloc(size_t size) { return is_out_of_memory() ? NULL : malloc(size); }
static void *counted_realloc(void *old, size_t size) { return is_out_of_memory() ? NULL : realloc(old, size); }

#define LNSNUM_MALLOC counted_malloc
#define LNSNUM_REALLOC counted_realloc
#define LNSNUM_FREE free
#define LNSNUM_IMPLEMENTATION
#include "lnsnum.h"

static void print_hex(const void *bytes, size_t size) {
    const unsigned char *at = (const unsigned char *)bytes;
    printf(size ? " " : " -");
    for (; size; size--) printf("%02x", *at++);
}

static void print_words(const char *what, const void *words, size_t count, size_t size) {
    size_t i;
    printf("%s", what);
    for (i = 0; i < count; i++) {
        unsigned long long wide;
        uint32_t narrow;
        if (size == 8) memcpy(&wide, (const char *)words + i * 8, 8);
        else memcpy(&narrow, (const char *)words + i * 4, 4), wide = narrow;
        printf(" %llx", wide);
    }
    putchar('\n');
}

static double nanoseconds(clock_t start, uint64_t count) {
    return (double)(clock() - start) / CLOCKS_PER_SEC * 1e9 / (double)(count ? count : 1);
}

static int show(const lnsnum_tensor *tensor, const char *mode, lnsnum_error *error) {
    size_t count = (size_t)tensor->count, i;
    int status, d, quiet = strcmp(mode, "tensors") && strcmp(mode, "single");
    uint32_t *codes = (uint32_t *)malloc(count * 4 + 1);
    float *floats = (float *)malloc(count * 4 + 1);
    double *doubles = (double *)malloc(count * 8 + 1);
    clock_t start = clock(), middle = start;
    if (!codes || !floats || !doubles) abort();
    status = lnsnum_check(tensor, error);
    if (!status && tensor->is_lns) {
        status = lnsnum_codes(tensor, codes, error);
        middle = clock();
        if (!status) status = lnsnum_to_float(tensor, floats, error);
        if (!strcmp(mode, "time")) printf("%.2f ns a float, ", nanoseconds(middle, count));
        middle = clock();
        if (!status) status = lnsnum_to_double(tensor, doubles, error);
        if (!strcmp(mode, "time"))
            printf("%.2f ns a double, all %.2f\n", nanoseconds(middle, count), nanoseconds(start, count));
    }
    if (!status && !quiet) {
        printf("tensor");
        print_hex(tensor->name, tensor->name_length);
        printf(" %s (", lnsnum_dtype_name(tensor->dtype));
        for (d = 0; d < tensor->ndim; d++) printf(d ? " %llu" : "%llu", (unsigned long long)tensor->shape[d]);
        printf(")");
        if (tensor->is_lns) {
            char name[LNSNUM_FORMAT_NAME_SIZE];
            lnsnum_format_name(tensor->format, name);
            printf(" %s%s\n", name, tensor->packed ? " packed" : "");
            if (!strcmp(mode, "single")) { /* for one offset */
                for (i = 0; i < count; i++) {
                    floats[i] = lnsnum_decode_float(tensor->format, codes[i], tensor->offsets[0]);
                    doubles[i] = lnsnum_decode_double(tensor->format, codes[i], tensor->offsets[0]);
                }
            }
            print_words("codes", codes, count, 4);
            print_words("floats", floats, count, 4);
            print_words("doubles", doubles, count, 8);
        } else {
            printf("\nbytes");
            print_hex(tensor->data, (size_t)tensor->data_size);
            putchar('\n');
        }
    }
    free(codes);
    free(floats);
    free(doubles);
    return status;
}

int main(int argc, char **argv) {
    const char *mode = argc > 2 ? argv[2] : "tensors";
    lnsnum_error error;
    lnsnum_file file;
    int status;
    size_t i;
    if (argc < 2) return 2;
    if (argc > 3) allocations_left = atol(argv[3]);
    status = lnsnum_open_path(&file, argv[1], &error);
    if (!status) {
        if (!strcmp(mode, "tensors")) printf("layout %d\n", file.layout);
        for (i = 0; i < file.metadata_count && !strcmp(mode, "tensors"); i++) {
            printf("metadata");
            print_hex(file.metadata[i].name, file.metadata[i].name_length);
            print_hex(file.metadata[i].value, file.metadata[i].value_length);
            putchar('\n');
        }
        for (i = 0; i < file.count && !status; i++) {
            if (lnsnum_find_bytes(&file, file.tensors[i].name, file.tensors[i].name_length) != &file.tensors[i])
                abort();
            status = show(&file.tensors[i], mode, &error);
        }
        lnsnum_close(&file);
    }
    if (status) fprintf(stderr, "%s\n", error.message);
    return status ? 1 : 0;
}
