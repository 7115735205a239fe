/* A target of libFuzzer for lnsnum.h: what it opens is checked and decoded whole.

   A mutant's description is signed anew, or its checksum would end every run there. Files lie in memory of just their
   size, as the fuzzer gives them, so that a sanitizer sees every byte read beyond. */

#define LNSNUM_IMPLEMENTATION
#include "lnsnum.h"

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t most);

static void decode(const lnsnum_tensor *tensor) {
    size_t count = (size_t)tensor->count;
    lnsnum_error error;
    void *out;
    (void)lnsnum_check(tensor, &error);
    if (!tensor->is_lns || tensor->count > 1 << 16) return;
    out = malloc(count * 8 + 1);
    if (!out) abort();
    (void)lnsnum_codes(tensor, (uint32_t *)out, &error);
    (void)lnsnum_to_float(tensor, (float *)out, &error);
    (void)lnsnum_to_double(tensor, (double *)out, &error);
    free(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    lnsnum_error error;
    lnsnum_file file;
    size_t i;
    if (lnsnum_open(&file, data, size, &error)) {
        if (!error.message[0]) abort(); /* a refusal says why */
        return 0;
    }
    for (i = 0; i < file.count; i++) {
        const lnsnum_tensor *tensor = &file.tensors[i];
        if (lnsnum_find_bytes(&file, tensor->name, tensor->name_length) != tensor) abort();
        decode(tensor);
    }
    lnsnum_close(&file);
    return 0;
}

/* 0 where there is none. */
static size_t header_length(const uint8_t *data, size_t size) {
    uint64_t length = 0;
    int i;
    if (size < 8) return 0;
    for (i = 7; i >= 0; i--) length = length << 8 | data[i];
    return length > size - 8 ? 0 : (size_t)length;
}

/* Writes the checksum of the string lnsnum where the header has it. */
static void sign(uint8_t *data, size_t size) {
    static const char key[] = "\"lnsnum_crc32\":\"";
    lnsnum__json header;
    lnsnum_error error;
    uint32_t strings, text = 0;
    size_t length = header_length(data, size), at;
    int i;
    if (length < sizeof key + 8) return;
    memset(&header, 0, sizeof header);
    header.length = length;
    header.text = (char *)malloc(header.length);
    if (!header.text) abort();
    memcpy(header.text, data + 8, header.length);
    if (!lnsnum__parse(&header, "the header", &error) && header.tokens[0].type == lnsnum__object) {
        strings = lnsnum__metadata_object(&header);
        if (strings && lnsnum__is_object_of_strings(&header, strings)) text = lnsnum__member(&header, strings, "lnsnum");
    }
    if (text) {
        const lnsnum__token *token = &header.tokens[text];
        uint32_t crc = lnsnum__crc32(0, header.text + token->start, token->length);
        for (at = 8; at + sizeof key - 1 + 8 <= 8 + length; at++) {
            if (memcmp(data + at, key, sizeof key - 1)) continue;
            for (i = 0; i < 8; i++)
                data[at + sizeof key - 1 + (size_t)i] = (uint8_t)"0123456789abcdef"[crc >> (28 - 4 * i) & 15];
            break;
        }
    }
    free(header.tokens);
    free(header.text);
}

/* Three times of four within the header, whose length follows. */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t most, unsigned seed) {
    size_t length = header_length(data, size), rest = size - 8 - length, i;
    if (seed % 4 && length && most > 8 + rest) {
        uint8_t *tail = (uint8_t *)malloc(rest + 1);
        if (!tail) abort();
        memcpy(tail, data + 8 + length, rest);
        length = LLVMFuzzerMutate(data + 8, length, most - 8 - rest);
        for (i = 0; i < 8; i++) data[i] = (uint8_t)((uint64_t)length >> (8 * i));
        memcpy(data + 8 + length, tail, rest);
        size = 8 + length + rest;
        free(tail);
    } else {
        size = LLVMFuzzerMutate(data, size, most);
    }
    sign(data, size);
    return size;
}
