/* Reads weight files from stdin, each after its length in 8 bytes, and says of each what lnsnum.h makes of it:
   lines of its metadata and tensors, then "loads", or "refused STATUS SENTENCE"; the sentence and all names in hexadecimal.

   Each file lies in memory of just its size, so that a sanitizer sees every byte read beyond it. */

#define LNSNUM_IMPLEMENTATION
#include "lnsnum.h"

static void print_hex(const char *bytes, size_t size) {
    putchar(' ');
    for (; size; size--) printf("%02x", (unsigned char)*bytes++);
}

static void *room(uint64_t size) {
    void *memory = malloc((size_t)(size ? size : 1));
    if (!memory) abort();
    return memory;
}

static void print_shape(const uint64_t *shape, int ndim) {
    int d;
    putchar(' ');
    for (d = 0; d < ndim; d++) printf("%llu,", (unsigned long long)shape[d]);
}

static int show(const lnsnum_tensor *tensor, lnsnum_error *error) {
    uint64_t count = tensor->count, offsets = 1, i;
    uint32_t *codes;
    float *floats;
    double *doubles;
    int status = lnsnum_check(tensor, error), d;
    if (status) return status;
    printf("tensor");
    print_hex(tensor->name, tensor->name_length);
    printf(" %s", lnsnum_dtype_name(tensor->dtype));
    print_shape(tensor->shape, tensor->ndim);
    if (!tensor->is_lns) {
        print_hex((const char *)tensor->data, (size_t)tensor->data_size);
        putchar('\n');
        return LNSNUM_OK;
    }
    codes = (uint32_t *)room(count * 4);
    floats = (float *)room(count * 4);
    doubles = (double *)room(count * 8);
    if (lnsnum_codes(tensor, codes, error) || lnsnum_to_float(tensor, floats, error) || lnsnum_to_double(tensor, doubles, error)) abort();
    printf(" %d %d %llx ", tensor->format.bits, tensor->format.fraction_bits, (unsigned long long)lnsnum__double_bits(tensor->format.base));
    for (i = 0; i < count; i++) printf("%lx,", (unsigned long)codes[i]);
    print_shape(tensor->offset_shape, tensor->offset_ndim);
    putchar(' ');
    for (d = 0; d < tensor->offset_ndim; d++) offsets *= tensor->offset_shape[d];
    for (i = 0; i < offsets; i++) printf("%ld,", (long)tensor->offsets[i]);
    if (tensor->group_size) printf(" groups of %d along %d", tensor->group_size, tensor->group_axis);
    putchar('\n');
    free(codes);
    free(floats);
    free(doubles);
    return LNSNUM_OK;
}

int main(void) {
    unsigned char length[8];
    while (fread(length, 1, 8, stdin) == 8) {
        lnsnum_error error;
        lnsnum_file file;
        uint64_t size = 0;
        size_t i;
        int status;
        char *bytes;
        for (i = 8; i--;) size = size << 8 | length[i];
        bytes = (char *)room(size);
        if (fread(bytes, 1, (size_t)size, stdin) != size) return 2;
        status = lnsnum_open(&file, bytes, (size_t)size, &error);
        if (!status) {
            for (i = 0; i < file.metadata_count; i++) {
                printf("metadata");
                print_hex(file.metadata[i].name, file.metadata[i].name_length);
                print_hex(file.metadata[i].value, file.metadata[i].value_length);
                putchar('\n');
            }
            for (i = 0; i < file.count && !status; i++) status = show(&file.tensors[i], &error);
            lnsnum_close(&file);
        }
        free(bytes);
        if (status) {
            printf("refused %d", status);
            print_hex(error.message, strlen(error.message));
            putchar('\n');
        } else {
            puts("loads");
        }
        fflush(stdout);
    }
    return 0;
}
