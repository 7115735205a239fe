/* lnsnum.h: reads weight files of lnsnum (layouts 1 to 3) and decodes codes of a logarithmic number system, in C99.

       x = (-1)^s * base^(E / 2^F),   E = m - bias + log_offset,   each rounded once to float or double, to nearest even

   One C file of a program defines LNSNUM_IMPLEMENTATION before it includes this header; the others only include it.

       lnsnum_file file;
       lnsnum_error error;
       if (lnsnum_open_path(&file, "model.safetensors", &error)) { fprintf(stderr, "%s\n", error.message); exit(1); }
       const lnsnum_tensor *tensor = lnsnum_find(&file, "fc.weight");
       if (tensor && tensor->is_lns) {
           float *values = (float *)malloc((size_t)tensor->count * sizeof *values);
           if (!values || lnsnum_to_float(tensor, values, &error)) ...
       }
       lnsnum_close(&file);

   It needs libc, a float and a double of IEEE 754, and nothing else; it has no global state. Memory is taken by
   LNSNUM_MALLOC, LNSNUM_REALLOC and LNSNUM_FREE, which may be defined to others; what a file makes it take is at most
   about 20 times the length of the file's header, and 4 bytes for each log_offset. The specification is docs/weight_file.md and docs/number_format.md of
   lnsnum.

   Licence: MIT. Copyright the authors of lnsnum. */

#ifndef LNSNUM_H
#define LNSNUM_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define LNSNUM_LAYOUT 3    /* the newest layout that is read */
#define LNSNUM_MAX_NDIM 64 /* arrays of more dimensions are refused */
#define LNSNUM_MAX_OFFSET 1073741824
#define LNSNUM_LEAST_GROUP 16
#define LNSNUM_GREATEST_GROUP 256

/* What the functions return: 0, or why not. */
enum { LNSNUM_OK = 0, LNSNUM_REFUSED, LNSNUM_NO_MEMORY, LNSNUM_NO_FILE };

typedef struct {
    char message[256]; /* one sentence */
} lnsnum_error;        /* every pointer to one may be NULL */

typedef enum {
    LNSNUM_U8,
    LNSNUM_I8,
    LNSNUM_BOOL,
    LNSNUM_U16,
    LNSNUM_I16,
    LNSNUM_F16,
    LNSNUM_BF16,
    LNSNUM_U32,
    LNSNUM_I32,
    LNSNUM_F32,
    LNSNUM_U64,
    LNSNUM_I64,
    LNSNUM_F64
} lnsnum_dtype;

typedef struct {
    int bits;          /* 3 to 32: a code is a sign bit and bits - 1 of log magnitude */
    int fraction_bits; /* F, 0 to bits - 2 */
    double base;       /* finite and greater than 1 */
} lnsnum_format;

/* An array: a tensor of a file, or one that a program has as static data (then zero what is not said). */
typedef struct {
    const char *name;   /* UTF-8, with a NUL at its end; it may hold others */
    size_t name_length; /* in bytes, without that NUL */
    int ndim;
    const uint64_t *shape; /* may be NULL if ndim is 0 */
    uint64_t count;        /* the product of the shape */
    lnsnum_dtype dtype;    /* of the elements of data */
    int is_lns;            /* are they codes? If not, the next seven fields mean nothing */
    lnsnum_format format;
    int packed; /* data is a string of bits: code i is bits i b to i b + b - 1, the least first */
    int offset_ndim;
    const uint64_t *offset_shape; /* broadcasts to shape, aligned to its last dimension; as shape NULL if there is none */
    const int32_t *offsets;       /* as many as offset_shape takes, in row-major order: one if offset_ndim is 0 */
    int group_size; /* if not 0: along group_axis each offset is that of so many elements, the last of what is left */
    int group_axis; /* a dimension, counted from the last, -1 */
    int native_order;             /* elements have the machine's order of bytes; if 0, the least byte comes first */
    const void *data;             /* of any alignment. Of a file: unchecked until lnsnum_check was asked */
    uint64_t data_size;           /* in bytes */
    int has_checksum;
    uint32_t checksum;
} lnsnum_tensor;

typedef struct {
    const char *name, *value; /* UTF-8, with a NUL at their ends; they may hold others */
    size_t name_length, value_length;
} lnsnum_text;

typedef struct {
    int layout;
    size_t count;
    lnsnum_tensor *tensors; /* in the order of the header; without those of an optimizer's state */
    size_t metadata_count;
    lnsnum_text *metadata; /* the field `metadata` of the description */
    void *owned[8];        /* what lnsnum_close frees */
    uint32_t *by_name;     /* the tensors' indices in the order of their names' bytes */
} lnsnum_file;

/* Opens a file that lies in memory. The bytes must stay where they are until lnsnum_close: tensors point into them.
   Checks all but the tensors' data, of which it reads the log_offsets alone. What is refused needs no lnsnum_close. */
int lnsnum_open(lnsnum_file *file, const void *bytes, size_t size, lnsnum_error *error);

/* The same after reading the whole file into memory. */
int lnsnum_open_path(lnsnum_file *file, const char *path, lnsnum_error *error);
void lnsnum_close(lnsnum_file *file);

/* The tensor of that name, or NULL. */
const lnsnum_tensor *lnsnum_find(const lnsnum_file *file, const char *name);
const lnsnum_tensor *lnsnum_find_bytes(const lnsnum_file *file, const char *name, size_t name_length);

/* The text of that name in the file's metadata, or NULL. */
const char *lnsnum_metadata(const lnsnum_file *file, const char *name);

/* Are the fields of the tensor consistent, is its checksum right, and its data valid: codes that fit, no spare bits,
 * BOOLs 0 or 1? */
int lnsnum_check(const lnsnum_tensor *tensor, lnsnum_error *error);

/* The codes, the values as floats, and as doubles, of an LNS tensor: `count` elements in row-major order. All ask
   lnsnum_check first. A value is the code's exact one, rounded once; zero is +0; NaN is the quiet one without sign. */
int lnsnum_codes(const lnsnum_tensor *tensor, uint32_t *out, lnsnum_error *error);
int lnsnum_to_float(const lnsnum_tensor *tensor, float *out, lnsnum_error *error);
int lnsnum_to_double(const lnsnum_tensor *tensor, double *out, lnsnum_error *error);

/* The value of one code; NaN for what is no format, no code of it or too large an offset. Slow (up to some 0.5 ms):
   arrays of codes share what this does anew each time. */
float lnsnum_decode_float(lnsnum_format format, uint32_t code, int32_t log_offset);
double lnsnum_decode_double(lnsnum_format format, uint32_t code, int32_t log_offset);

/* "lns8f5" and the like: 0, or LNSNUM_REFUSED where the text is no name of a format. */
int lnsnum_parse_format(lnsnum_format *format, const char *text, size_t length);

/* Writes the name with a NUL, as lnsnum writes it; the base is left out if it is 2. The format must be valid. */
#define LNSNUM_FORMAT_NAME_SIZE 40
void lnsnum_format_name(lnsnum_format format, char name[LNSNUM_FORMAT_NAME_SIZE]);

const char *lnsnum_dtype_name(lnsnum_dtype dtype);
size_t lnsnum_dtype_size(lnsnum_dtype dtype);

#ifdef __cplusplus
}
#endif
#endif /* LNSNUM_H */

#if defined(LNSNUM_IMPLEMENTATION) && !defined(LNSNUM_IMPLEMENTED)
#define LNSNUM_IMPLEMENTED

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifndef LNSNUM_MALLOC
#define LNSNUM_MALLOC malloc
#define LNSNUM_REALLOC realloc
#define LNSNUM_FREE free
#endif

/* ---- Errors ---- */

static int lnsnum__refuse(lnsnum_error *error, const char *sentence, ...) {
    va_list arguments;
    va_start(arguments, sentence);
    if (error) vsnprintf(error->message, sizeof error->message, sentence, arguments);
    va_end(arguments);
    return LNSNUM_REFUSED;
}

static int lnsnum__no_memory(lnsnum_error *error) {
    lnsnum__refuse(error, "there is not enough memory");
    return LNSNUM_NO_MEMORY;
}

/* Refuses a tensor: names may hold anything, so what is not printable ASCII is shown as '?'. */
static int lnsnum__refuse_tensor(lnsnum_error *error, const lnsnum_tensor *tensor, const char *what) {
    char shown[64];
    size_t i, length = tensor->name_length < sizeof shown ? tensor->name_length : sizeof shown - 1;
    for (i = 0; i < length; i++) {
        char c = tensor->name[i];
        shown[i] = c >= ' ' && c <= '~' ? c : '?';
    }
    shown[length] = 0;
    return lnsnum__refuse(error, "tensor '%s': %s", shown, what);
}

/* Room for `count` things of `size` bytes, never of no bytes. NULL if there is none. */
static void *lnsnum__allocate(uint64_t count, size_t size) {
    if (count > (SIZE_MAX - 1) / size) return NULL;
    return LNSNUM_MALLOC((size_t)count * size + 1);
}

/* ---- Formats and types ---- */

const char *lnsnum_dtype_name(lnsnum_dtype dtype) {
    static const char *const names[] = {"U8",  "I8",  "BOOL", "U16", "I16", "F16", "BF16",
                                        "U32", "I32", "F32",  "U64", "I64", "F64"};
    return names[dtype];
}

size_t lnsnum_dtype_size(lnsnum_dtype dtype) {
    return dtype <= LNSNUM_BOOL ? 1 : dtype <= LNSNUM_BF16 ? 2 : dtype <= LNSNUM_F32 ? 4 : 8;
}

static lnsnum_dtype lnsnum__code_dtype(int bits) {
    return bits <= 8 ? LNSNUM_U8 : bits <= 16 ? LNSNUM_U16 : LNSNUM_U32;
}

/* Have the codes' words no unused bits? */
static int lnsnum__is_whole(int bits) { return bits == 8 || bits == 16 || bits == 32; }

static uint64_t lnsnum__double_bits(double value) {
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static int lnsnum__is_format(lnsnum_format format) {
    uint64_t base =
        lnsnum__double_bits(format.base); /* as integers, doubles from 1 on are in their order; no flag is raised */
    return format.bits >= 3 && format.bits <= 32 && format.fraction_bits >= 0 &&
           format.fraction_bits <= format.bits - 2 && base > UINT64_C(0x3ff) << 52 && base < UINT64_C(0x7ff) << 52;
}

static int lnsnum__hex_digit(char c) {
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Decimal digits without a leading zero. A number above 99 becomes 100, which no field takes. */
static int lnsnum__small_decimal(const char *text, size_t length, size_t *at, int *out) {
    size_t start = *at;
    *out = 0;
    while (*at < length && text[*at] >= '0' && text[*at] <= '9') {
        *out = *out * 10 + (text[(*at)++] - '0');
        if (*out > 99) *out = 100;
    }
    return *at > start && (text[start] != '0' || *at == start + 1);
}

/* "0x1.8p+0" to the double that it is exactly, if it is one and greater than 1. */
static int lnsnum__hex_double(const char *text, size_t length, double *out) {
    uint64_t mantissa = 0, bits;
    int64_t exponent = 0, written = 0, zeros = 0;
    int digits = 0, point = 0, negative;
    size_t at = 2, start;
    if (length < 2 || text[0] != '0' || text[1] != 'x') return 0;
    for (; at < length && text[at] != 'p'; at++) { /* mantissa * 2^exponent, without the digits 0 at either end */
        int digit = lnsnum__hex_digit(text[at]);
        if (text[at] == '.' && !point) {
            point = 1;
            continue;
        }
        if (digit < 0) return 0;
        digits = 1;
        exponent -= 4 * point;
        if (!digit) {
            zeros += mantissa != 0;
            continue;
        }
        for (; mantissa && zeros >= 0; zeros--) {
            if (mantissa >> 60) return 0; /* more digits than any double has */
            mantissa <<= 4;
        }
        mantissa |= (uint64_t)digit;
        zeros = 0;
    }
    exponent += 4 * zeros;
    if (!digits || !mantissa || at == length) return 0;
    negative = ++at < length && text[at] == '-';
    if (at < length && (text[at] == '-' || text[at] == '+')) at++;
    for (start = at; at < length; at++) {
        if (text[at] < '0' || text[at] > '9') return 0;
        if (written < (int64_t)1 << 40)
            written = written * 10 + (text[at] - '0'); /* more is beyond every header's digits */
    }
    if (at == start) return 0;
    exponent += negative ? -written : written;
    for (exponent += 63; !(mantissa >> 63); exponent--) mantissa <<= 1;
    if (mantissa & 0x7ff || exponent < 0 || exponent > 1023) return 0;
    bits = ((uint64_t)(exponent + 1023) << 52) | (mantissa << 1 >> 12);
    memcpy(out, &bits, sizeof *out);
    return bits != UINT64_C(0x3ff) << 52;
}

int lnsnum_parse_format(lnsnum_format *format, const char *text, size_t length) {
    size_t at = 3;
    format->base = 2.0;
    if (length < 3 || memcmp(text, "lns", 3) || !lnsnum__small_decimal(text, length, &at, &format->bits))
        return LNSNUM_REFUSED;
    if (at == length || text[at++] != 'f') return LNSNUM_REFUSED;
    if (!lnsnum__small_decimal(text, length, &at, &format->fraction_bits)) return LNSNUM_REFUSED;
    if (at < length && (text[at++] != 'b' || !lnsnum__hex_double(text + at, length - at, &format->base)))
        return LNSNUM_REFUSED;
    return lnsnum__is_format(*format) ? LNSNUM_OK : LNSNUM_REFUSED;
}

void lnsnum_format_name(lnsnum_format format, char name[LNSNUM_FORMAT_NAME_SIZE]) {
    uint64_t base = lnsnum__double_bits(format.base), fraction = base & ((UINT64_C(1) << 52) - 1);
    int exponent = (int)(base >> 52 & 0x7ff) - 1023;
    if (base == UINT64_C(0x400) << 52)
        snprintf(name, LNSNUM_FORMAT_NAME_SIZE, "lns%df%d", format.bits, format.fraction_bits);
    else
        snprintf(name, LNSNUM_FORMAT_NAME_SIZE, "lns%df%db0x1.%05lx%08lxp+%d", format.bits, format.fraction_bits,
                 (unsigned long)(fraction >> 32), (unsigned long)(fraction & 0xffffffff), exponent);
}

/* ---- Checksums: CRC-32, four bytes at a time. The table is made for each call, so there is no global state ---- */

static uint32_t lnsnum__crc32(uint32_t crc, const void *bytes, uint64_t size) {
    uint32_t table[4][256], i, k;
    const unsigned char *at = (const unsigned char *)bytes;
    for (i = 0; i < 256; i++) {
        uint32_t rest = i;
        for (k = 0; k < 8; k++) rest = rest >> 1 ^ (rest & 1 ? UINT32_C(0xedb88320) : 0);
        table[0][i] = rest;
    }
    for (k = 1; k < 4; k++)
        for (i = 0; i < 256; i++) table[k][i] = table[k - 1][i] >> 8 ^ table[0][table[k - 1][i] & 255];
    crc = ~crc;
    for (; size >= 4; size -= 4, at += 4) {
        crc ^= (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
        crc = table[3][crc & 255] ^ table[2][crc >> 8 & 255] ^ table[1][crc >> 16 & 255] ^ table[0][crc >> 24];
    }
    for (; size; size--) crc = crc >> 8 ^ table[0][(crc ^ *at++) & 255];
    return ~crc;
}

/* ---- Sorting: heap sort, for no libc promises that its qsort is never quadratic ---- */

typedef int (*lnsnum__order)(const void *context, uint32_t a, uint32_t b);

static void lnsnum__sift(uint32_t *items, size_t root, size_t count, lnsnum__order order, const void *context) {
    uint32_t item = items[root];
    size_t child;
    while ((child = 2 * root + 1) < count) {
        if (child + 1 < count && order(context, items[child], items[child + 1]) < 0) child++;
        if (order(context, item, items[child]) >= 0) break;
        items[root] = items[child];
        root = child;
    }
    items[root] = item;
}

static void lnsnum__sort(uint32_t *items, size_t count, lnsnum__order order, const void *context) {
    size_t i;
    for (i = count / 2; i-- > 0;) lnsnum__sift(items, i, count, order, context);
    for (i = count; i-- > 1;) {
        uint32_t greatest = items[0];
        items[0] = items[i];
        items[i] = greatest;
        lnsnum__sift(items, 0, i, order, context);
    }
}

static int lnsnum__compare_bytes(const char *a, size_t a_length, const char *b, size_t b_length) {
    size_t common = a_length < b_length ? a_length : b_length;
    int order = common ? memcmp(a, b, common) : 0;
    return order ? order : (a_length > b_length) - (a_length < b_length);
}

/* ---- JSON: a list of tokens, each value's before its parts'. A member of an object is its name's token and its
 * value's ---- */

enum { lnsnum__object, lnsnum__array, lnsnum__string, lnsnum__number, lnsnum__word };
enum { lnsnum__max_depth = 32 };

typedef struct {
    uint32_t type, start,
        length;    /* of a string: its bytes without quotes and escapes, undone in place. Texts end before 2^32 */
    uint32_t next; /* the token after this value and its parts */
} lnsnum__token;

typedef struct {
    char *text;
    size_t length;
    lnsnum__token *tokens;
    uint32_t count, numbers;
} lnsnum__json;

static int lnsnum__read_hex4(const lnsnum__json *json, size_t at, uint32_t *out) {
    int i;
    *out = 0;
    if (json->length - at < 4) return 0;
    for (i = 0; i < 4; i++) {
        char c = json->text[at + (size_t)i];
        int digit = lnsnum__hex_digit(c >= 'A' && c <= 'F' ? (char)(c + 32) : c);
        if (digit < 0) return 0;
        *out = *out << 4 | (uint32_t)digit;
    }
    return 1;
}

/* The character at `*at` of a string, undone: its code point, or -1 where it is none of UTF-8 or of JSON's escapes. */
static int64_t lnsnum__read_character(const lnsnum__json *json, size_t *at) {
    static const char names[] = "\"\\/bfnrt", meanings[] = "\"\\/\b\f\n\r\t";
    unsigned char c = (unsigned char)json->text[(*at)++];
    uint32_t point, low;
    int more, i;
    if (c < 32) return -1;
    if (c == '\\') {
        const char *found;
        if (*at == json->length) return -1;
        c = (unsigned char)json->text[(*at)++];
        if (c != 'u') return c && (found = strchr(names, c)) != NULL ? meanings[found - names] : -1;
        if (!lnsnum__read_hex4(json, *at, &point)) return -1;
        *at += 4;
        if (point < 0xd800 || point > 0xdfff) return point;
        if (point > 0xdbff || json->length - *at < 6 || json->text[*at] != '\\' || json->text[*at + 1] != 'u')
            return -1;
        if (!lnsnum__read_hex4(json, *at + 2, &low) || low < 0xdc00 || low > 0xdfff) return -1;
        *at += 6;
        return 0x10000 + ((point - 0xd800) << 10) + (low - 0xdc00);
    }
    if (c < 0x80) return c;
    if (c < 0xc2 || c > 0xf4) return -1;
    more = c < 0xe0 ? 1 : c < 0xf0 ? 2 : 3;
    point = c & (0x3fu >> more);
    for (i = 0; i < more; i++) {
        if (*at == json->length || ((unsigned char)json->text[*at] & 0xc0) != 0x80) return -1;
        point = point << 6 | ((unsigned char)json->text[(*at)++] & 0x3fu);
    }
    if (point < (more == 3 ? 0x10000u : more == 2 ? 0x800u : 0) || point > 0x10ffff)
        return -1; /* too long, or too large */
    return point >= 0xd800 && point <= 0xdfff ? -1 : (int64_t)point;
}

static int lnsnum__utf8(uint32_t point, char *out) {
    int size = point < 0x80 ? 1 : point < 0x800 ? 2 : point < 0x10000 ? 3 : 4, i;
    for (i = size - 1; i > 0; i--, point >>= 6) out[i] = (char)(0x80 | (point & 0x3f));
    out[0] = (char)(size == 1 ? point : (0xf00u >> size & 0xf0u) | point);
    return size;
}

/* Reads the string whose quote is at `*at` and undoes its escapes in place if `undo`, with a NUL over its last quote at
 * the latest. */
static int lnsnum__read_string(lnsnum__json *json, size_t *at, size_t *length, int undo) {
    size_t start = ++*at, end = start;
    while (*at < json->length && json->text[*at] != '"') {
        char bytes[4];
        int64_t point = lnsnum__read_character(json, at);
        int size;
        if (point < 0) return 0;
        size = lnsnum__utf8((uint32_t)point, bytes);
        if (undo) memcpy(json->text + end, bytes, (size_t)size);
        end += (size_t)size;
    }
    if (*at == json->length) return 0;
    if (undo) json->text[end] = 0;
    ++*at;
    *length = end - start;
    return 1;
}

static int lnsnum__is_digit(const lnsnum__json *json, size_t at) {
    return at < json->length && json->text[at] >= '0' && json->text[at] <= '9';
}

static int lnsnum__read_number(const lnsnum__json *json, size_t *at) {
    if (json->text[*at] == '-') ++*at;
    if (!lnsnum__is_digit(json, *at)) return 0;
    if (json->text[(*at)++] != '0')
        while (lnsnum__is_digit(json, *at)) ++*at;
    if (*at < json->length && json->text[*at] == '.') {
        if (!lnsnum__is_digit(json, ++*at)) return 0;
        while (lnsnum__is_digit(json, *at)) ++*at;
    }
    if (*at < json->length && (json->text[*at] | 32) == 'e') {
        ++*at;
        if (*at < json->length && (json->text[*at] == '+' || json->text[*at] == '-')) ++*at;
        if (!lnsnum__is_digit(json, *at)) return 0;
        while (lnsnum__is_digit(json, *at)) ++*at;
    }
    return 1;
}

static int lnsnum__read_word(const lnsnum__json *json, size_t *at) {
    static const char *const words[] = {"true", "false", "null"};
    int i;
    for (i = 0; i < 3; i++) {
        size_t length = strlen(words[i]);
        if (json->length - *at >= length && !memcmp(json->text + *at, words[i], length)) {
            *at += length;
            return 1;
        }
    }
    return 0;
}

/* Reads the text into json->tokens; only counts them, and leaves the text as it is, where that is NULL. */
static int lnsnum__scan(lnsnum__json *json, const char *what, lnsnum_error *error) {
    enum { value, value_or_end, name, name_or_end, after } state = value;
    uint32_t open[lnsnum__max_depth] = {0}, count = 0;
    int is_object[lnsnum__max_depth] = {0}, depth = 0, fill = json->tokens != NULL;
    size_t at = 0;
    json->numbers = 0;
    for (;;) {
        uint32_t type;
        size_t start, length = 0;
        char c;
        while (at < json->length && json->text[at] && strchr(" \t\n\r", json->text[at])) at++;
        if (at == json->length) break;
        c = json->text[at];
        if (depth && (state == after || state == value_or_end || state == name_or_end) &&
            c == (is_object[depth - 1] ? '}' : ']')) {
            at++;
            depth--;
            if (fill) json->tokens[open[depth]].next = count;
            state = after;
            continue;
        }
        if (state == after) {
            if (!depth || c != ',') break;
            at++;
            state = is_object[depth - 1] ? name : value;
            continue;
        }
        start = at;
        if (c == '"') {
            type = lnsnum__string;
            if (!lnsnum__read_string(json, &at, &length, fill)) break;
            start++;
        } else if (state == name || state == name_or_end) {
            break;
        } else if (c == '{' || c == '[') {
            type = c == '{' ? lnsnum__object : lnsnum__array;
            if (depth == lnsnum__max_depth) return lnsnum__refuse(error, "%s is nested more than %d deep", what, depth);
            open[depth] = count;
            is_object[depth++] = c == '{';
            at++;
        } else if (c == '-' || (c >= '0' && c <= '9')) {
            type = lnsnum__number;
            if (!lnsnum__read_number(json, &at)) break;
            length = at - start;
            json->numbers++;
        } else {
            type = lnsnum__word;
            if (!lnsnum__read_word(json, &at)) break;
            length = at - start;
        }
        if (fill) {
            lnsnum__token *token = &json->tokens[count];
            token->type = type;
            token->start = (uint32_t)start;
            token->length = (uint32_t)length;
            token->next = count + 1;
        }
        count++;
        if (state == name || state == name_or_end) {
            while (at < json->length && json->text[at] && strchr(" \t\n\r", json->text[at])) at++;
            if (at == json->length || json->text[at] != ':') break;
            at++;
            state = value;
        } else {
            state = type == lnsnum__object ? name_or_end : type == lnsnum__array ? value_or_end : after;
        }
    }
    if (at < json->length || state != after || depth) {
        return lnsnum__refuse(error, "%s is not valid JSON in UTF-8: see its byte %lu", what, (unsigned long)at);
    }
    json->count = count;
    return LNSNUM_OK;
}

static int lnsnum__order_of_strings(const void *context, uint32_t a, uint32_t b) {
    const lnsnum__json *json = (const lnsnum__json *)context;
    const lnsnum__token *x = &json->tokens[a], *y = &json->tokens[b];
    return lnsnum__compare_bytes(json->text + x->start, x->length, json->text + y->start, y->length);
}

/* Parses the text, whose strings change in place, and refuses a name that occurs twice in an object. Tokens are the
 * caller's to free. */
static int lnsnum__parse(lnsnum__json *json, const char *what, lnsnum_error *error) {
    uint32_t *names, object, at, i;
    int status = lnsnum__scan(json, what, error);
    if (status) return status;
    json->tokens = (lnsnum__token *)lnsnum__allocate(json->count, sizeof *json->tokens);
    if (!json->tokens) return lnsnum__no_memory(error);
    status = lnsnum__scan(json, what, error);
    if (status) return status;
    names = (uint32_t *)lnsnum__allocate(json->count / 2, sizeof *names);
    if (!names) return lnsnum__no_memory(error);
    for (object = 0; object < json->count && !status; object++) {
        uint32_t members = 0;
        if (json->tokens[object].type != lnsnum__object) continue;
        for (at = object + 1; at < json->tokens[object].next; at = json->tokens[at + 1].next) names[members++] = at;
        lnsnum__sort(names, members, lnsnum__order_of_strings, json);
        for (i = 1; i < members && !status; i++) {
            if (!lnsnum__order_of_strings(json, names[i - 1], names[i])) {
                status = lnsnum__refuse(error, "%s has a name twice in one object", what);
            }
        }
    }
    LNSNUM_FREE(names);
    return status;
}

static int lnsnum__is_text(const lnsnum__json *json, uint32_t token, const char *text) {
    const lnsnum__token *string = &json->tokens[token];
    size_t length = strlen(text);
    return string->type == lnsnum__string && string->length == length &&
           !memcmp(json->text + string->start, text, length);
}

/* The value of the object's member of that name; 0, which is no member's, where it has none. */
static uint32_t lnsnum__member(const lnsnum__json *json, uint32_t object, const char *name) {
    uint32_t at;
    for (at = object + 1; at < json->tokens[object].next; at = json->tokens[at + 1].next) {
        if (lnsnum__is_text(json, at, name)) return at + 1;
    }
    return 0;
}

/* Is the token an integer of at most 64 bits and a sign? One with a point, an exponent or more bits is none. */
static int lnsnum__read_integer(const lnsnum__json *json, uint32_t token, int *negative, uint64_t *magnitude) {
    const lnsnum__token *number = &json->tokens[token];
    const char *at = json->text + number->start, *end = at + number->length;
    if (number->type != lnsnum__number) return 0;
    *magnitude = 0;
    *negative = *at == '-';
    for (at += *negative; at < end; at++) {
        uint64_t digit = (uint64_t)(*at - '0');
        if (*at < '0' || *at > '9') return 0;
        if (*magnitude > (UINT64_MAX - digit) / 10) return 0;
        *magnitude = *magnitude * 10 + digit;
    }
    return 1;
}

/* A list of integers from 0 to `most`, of at most LNSNUM_MAX_NDIM: appended to the pool. */
static int lnsnum__read_shape(const lnsnum__json *json, uint32_t list, uint64_t most, uint64_t **pool,
                              const uint64_t **shape, int *ndim) {
    uint32_t at;
    *shape = *pool;
    *ndim = 0;
    if (json->tokens[list].type != lnsnum__array) return 0;
    for (at = list + 1; at < json->tokens[list].next; at = json->tokens[at].next) {
        int negative;
        if (*ndim == LNSNUM_MAX_NDIM || !lnsnum__read_integer(json, at, &negative, *pool)) return 0;
        if (**pool > most || (negative && **pool)) return 0;
        ++*pool;
        ++*ndim;
    }
    return 1;
}

static int lnsnum__read_checksum(const lnsnum__json *json, uint32_t token, uint32_t *checksum) {
    const lnsnum__token *string = &json->tokens[token];
    uint32_t i;
    if (!token || string->type != lnsnum__string || string->length != 8) return 0;
    *checksum = 0;
    for (i = 0; i < 8; i++) {
        int digit = lnsnum__hex_digit(json->text[string->start + i]);
        if (digit < 0) return 0;
        *checksum = *checksum << 4 | (uint32_t)digit;
    }
    return 1;
}

/* ---- Tensors ---- */

/* The product of the sizes; 0 for false where it leaves 64 bits. */
static int lnsnum__product(const uint64_t *shape, int ndim, uint64_t *product) {
    int i;
    *product = 1;
    for (i = 0; i < ndim; i++)
        if (!shape[i]) *product = 0;
    for (i = 0; i < ndim && *product; i++) {
        if (*product > UINT64_MAX / shape[i]) return 0;
        *product *= shape[i];
    }
    return 1;
}

/* How many groups a dimension of this size has. */
static uint64_t lnsnum__groups(const lnsnum_tensor *tensor, uint64_t size) {
    uint64_t group = (uint64_t)tensor->group_size;
    return size / group + (size % group != 0);
}

/* All that lnsnum_check checks without a look at the data. */
static int lnsnum__check_fields(const lnsnum_tensor *tensor, lnsnum_error *error) {
    uint64_t count, size, i;
    int d;
    if ((unsigned)tensor->dtype > LNSNUM_F64 || tensor->ndim < 0 || tensor->ndim > LNSNUM_MAX_NDIM) {
        return lnsnum__refuse_tensor(error, tensor, "its type or its number of dimensions is none that is known");
    }
    if (!lnsnum__product(tensor->shape, tensor->ndim, &count) || count != tensor->count) {
        return lnsnum__refuse_tensor(error, tensor,
                                     "its number of elements is not what its shape takes, or leaves 64 bits");
    }
    size = lnsnum_dtype_size(tensor->dtype);
    if (tensor->is_lns) {
        int bits = tensor->format.bits;
        if (!lnsnum__is_format(tensor->format)) return lnsnum__refuse_tensor(error, tensor, "its format is none");
        if (tensor->packed && lnsnum__is_whole(bits))
            return lnsnum__refuse_tensor(error, tensor, "it is packed, which codes of 8, 16 or 32 bits never are");
        if (tensor->dtype != (tensor->packed ? LNSNUM_U8 : lnsnum__code_dtype(bits))) {
            return lnsnum__refuse_tensor(error, tensor, "its dtype is not its format's");
        }
        if (tensor->offset_ndim < 0 || tensor->offset_ndim > tensor->ndim || !tensor->offsets) {
            return lnsnum__refuse_tensor(error, tensor, "its log_offset is missing or does not broadcast to it");
        }
        if (tensor->group_size &&
            (tensor->group_size < LNSNUM_LEAST_GROUP || tensor->group_size > LNSNUM_GREATEST_GROUP ||
             tensor->group_axis >= 0 || tensor->group_axis < -tensor->offset_ndim)) {
            return lnsnum__refuse_tensor(error, tensor,
                                         "its groups are not of 16 to 256 elements along a dimension of its log_offset");
        }
        for (d = 1; d <= tensor->offset_ndim; d++) {
            uint64_t one = tensor->offset_shape[tensor->offset_ndim - d], size = tensor->shape[tensor->ndim - d];
            int grouped = tensor->group_size && -d == tensor->group_axis;
            if (grouped ? one != lnsnum__groups(tensor, size) : one != 1 && one != size) {
                return lnsnum__refuse_tensor(error, tensor, "its log_offset does not broadcast to it");
            }
        }
        if (!lnsnum__product(tensor->offset_shape, tensor->offset_ndim, &i)) {
            return lnsnum__refuse_tensor(error, tensor, "the shape of its log_offset leaves 64 bits");
        }
        while (i-- > 0) {
            if (tensor->offsets[i] > LNSNUM_MAX_OFFSET || tensor->offsets[i] < -LNSNUM_MAX_OFFSET) {
                return lnsnum__refuse_tensor(error, tensor, "its log_offset is larger than 2^30");
            }
        }
    }
    if (tensor->is_lns && tensor->packed) {
        uint64_t bits = (uint64_t)tensor->format.bits;
        if (count > (UINT64_MAX - 7) / bits || tensor->data_size != (count * bits + 7) / 8) {
            return lnsnum__refuse_tensor(error, tensor, "its data are not the bytes that its packed_shape takes");
        }
    } else if (count > UINT64_MAX / size || tensor->data_size != count * size) {
        return lnsnum__refuse_tensor(error, tensor,
                                     "its data are not the bytes that its shape and type take, or leave 64 bits");
    }
    return LNSNUM_OK;
}

static int lnsnum__is_big_endian(void) {
    const uint16_t one = 1;
    unsigned char first;
    memcpy(&first, &one, 1);
    return !first;
}

/* The `count` codes from the element `start` on. */
static void lnsnum__read_codes(const lnsnum_tensor *tensor, uint64_t start, size_t count, uint32_t *out) {
    const unsigned char *at = (const unsigned char *)tensor->data;
    size_t i, size = lnsnum_dtype_size(tensor->dtype);
    if (tensor->packed) {
        uint64_t bit = start * (uint64_t)tensor->format.bits, held;
        int bits = tensor->format.bits, have = 8 - (int)(bit & 7);
        if (!count) return;
        at += bit >> 3;
        held = (uint64_t)*at++ >> (bit & 7);
        for (i = 0; i < count; i++, held >>= bits, have -= bits) {
            for (; have < bits; have += 8) held |= (uint64_t)*at++ << have;
            out[i] = (uint32_t)(held & ((UINT64_C(1) << bits) - 1));
        }
        return;
    }
    at += start * size;
    if (size == 1)
        for (i = 0; i < count; i++) out[i] = at[i];
    else if (tensor->native_order && lnsnum__is_big_endian()) {
        if (size == 2)
            for (i = 0; i < count; i++, at += 2) out[i] = (uint32_t)at[1] | (uint32_t)at[0] << 8;
        else
            for (i = 0; i < count; i++, at += 4)
                out[i] = (uint32_t)at[3] | (uint32_t)at[2] << 8 | (uint32_t)at[1] << 16 | (uint32_t)at[0] << 24;
    } else if (size == 2)
        for (i = 0; i < count; i++, at += 2) out[i] = (uint32_t)at[0] | (uint32_t)at[1] << 8;
    else
        for (i = 0; i < count; i++, at += 4)
            out[i] = (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

enum { lnsnum__chunk = 256 };

static size_t lnsnum__least(uint64_t a, size_t b) { return a < b ? (size_t)a : b; }

/* The checksum of a line of its type and its stored shape, and of its data. */
static int lnsnum__has_its_checksum(const lnsnum_tensor *tensor, uint32_t checksum) {
    char line[32];
    int packed = tensor->is_lns && tensor->packed, d;
    uint32_t crc =
        lnsnum__crc32(0, line, (uint64_t)snprintf(line, sizeof line, "%s", lnsnum_dtype_name(tensor->dtype)));
    for (d = 0; d < (packed ? 1 : tensor->ndim); d++) {
        uint64_t size = packed ? tensor->data_size : tensor->shape[d];
        crc = lnsnum__crc32(crc, line, (uint64_t)snprintf(line, sizeof line, " %llu", (unsigned long long)size));
    }
    crc = lnsnum__crc32(crc, "\n", 1);
    return lnsnum__crc32(crc, tensor->data, tensor->data_size) == checksum;
}

int lnsnum_check(const lnsnum_tensor *tensor, lnsnum_error *error) {
    const unsigned char *bytes = (const unsigned char *)tensor->data;
    uint64_t i;
    int status = lnsnum__check_fields(tensor, error);
    if (status) return status;
    if (tensor->has_checksum && !lnsnum__has_its_checksum(tensor, tensor->checksum)) {
        return lnsnum__refuse_tensor(error, tensor,
                                     "its checksum is not that of its data: they were changed or damaged");
    }
    if (tensor->dtype == LNSNUM_BOOL) {
        for (i = 0; i < tensor->data_size; i++) {
            if (bytes[i] > 1) return lnsnum__refuse_tensor(error, tensor, "a byte of its BOOLs is neither 0 nor 1");
        }
    }
    if (tensor->is_lns && tensor->packed) {
        uint64_t used = tensor->count * (uint64_t)tensor->format.bits % 8;
        if (used && bytes[tensor->data_size - 1] >> used)
            return lnsnum__refuse_tensor(error, tensor, "a bit after its last code is not 0");
    } else if (tensor->is_lns && !lnsnum__is_whole(tensor->format.bits)) {
        uint32_t codes[lnsnum__chunk], greatest = ((uint32_t)1 << tensor->format.bits) - 1;
        for (i = 0; i < tensor->count; i += lnsnum__chunk) {
            size_t k, count = lnsnum__least(tensor->count - i, lnsnum__chunk);
            lnsnum__read_codes(tensor, i, count, codes);
            for (k = 0; k < count; k++) {
                if (codes[k] > greatest)
                    return lnsnum__refuse_tensor(error, tensor, "a code does not fit its format's bits");
            }
        }
    }
    return LNSNUM_OK;
}

static int lnsnum__check_lns(const lnsnum_tensor *tensor, lnsnum_error *error) {
    return tensor->is_lns ? lnsnum_check(tensor, error)
                          : lnsnum__refuse_tensor(error, tensor, "it is plain, and has no codes");
}

int lnsnum_codes(const lnsnum_tensor *tensor, uint32_t *out, lnsnum_error *error) {
    uint64_t i;
    int status = lnsnum__check_lns(tensor, error);
    for (i = 0; i < tensor->count && !status; i += lnsnum__chunk) {
        lnsnum__read_codes(tensor, i, lnsnum__least(tensor->count - i, lnsnum__chunk), out + i);
    }
    return status;
}

/* ---- Decoding ----

   Positive numbers of 320 bits, a mantissa from 1 to 2 times a power of two, whose operations cut off: base^(2^-F) by F
   square roots, then its powers. E is at most 2^31 in size, so a power errs by less than 2^-280 of itself. If it is
   within 2^-224 of a number of 64 bits it is that number exactly: powers of a base of 53 bits, where they are not such
   a number, come nowhere so near one. So 64 bits and whether there are more decide every rounding. */

enum { lnsnum__limbs = 10, lnsnum__short = 3, lnsnum__digit_bits = 8, lnsnum__digits = 1 << lnsnum__digit_bits };

typedef struct {
    int64_t exponent;
    uint32_t limbs[lnsnum__limbs]; /* the mantissa, the most significant limb first: its top bit, worth 1, is set */
} lnsnum__big;

/* a b to n limbs: the error is less than one in the last. The result may be a or b. */
static void lnsnum__multiply(lnsnum__big *out, const lnsnum__big *a, const lnsnum__big *b, int n) {
    uint32_t product[2 * lnsnum__limbs] = {0};
    int i, k;
    for (i = n - 1; i >= 0; i--) {
        uint64_t carry = 0;
        for (k = n - 1; k >= 0; k--) {
            carry += (uint64_t)a->limbs[i] * b->limbs[k] + product[i + k + 1];
            product[i + k + 1] = (uint32_t)carry;
            carry >>= 32;
        }
        product[i] = (uint32_t)carry;
    }
    out->exponent = a->exponent + b->exponent + (product[0] >> 31);
    k = product[0] >> 31 ? 0 : 1;
    for (i = 0; i < n; i++) out->limbs[i] = (uint32_t)((((uint64_t)product[i] << 32 | product[i + 1]) << k) >> 32);
}

/* Integers of 11 limbs, for square roots and reciprocals, a bit at a time. */

static void lnsnum__shift_left(uint32_t x[lnsnum__limbs + 1], int by, uint32_t last) {
    int i;
    for (i = 0; i < lnsnum__limbs; i++) x[i] = x[i] << by | x[i + 1] >> (32 - by);
    x[lnsnum__limbs] = x[lnsnum__limbs] << by | last;
}

/* x -= y if x >= y; says whether. */
static int lnsnum__subtract_if_less(uint32_t x[lnsnum__limbs + 1], const uint32_t y[lnsnum__limbs + 1]) {
    uint32_t borrow = 0;
    int i = 0;
    while (i < lnsnum__limbs && x[i] == y[i]) i++;
    if (x[i] < y[i]) return 0;
    for (i = lnsnum__limbs; i >= 0; i--) {
        uint64_t difference = (uint64_t)x[i] - y[i] - borrow;
        x[i] = (uint32_t)difference;
        borrow = (uint32_t)(difference >> 63);
    }
    return 1;
}

/* The square root of x >= 1: the integer s of 320 bits with s^2 <= mantissa 2^319 (or 2^320 if the exponent is odd) <
 * (s + 1)^2. */
static void lnsnum__square_root(lnsnum__big *x) {
    uint32_t rest[lnsnum__limbs + 1] = {0}, root[lnsnum__limbs + 1] = {0};
    int odd = (int)(x->exponent & 1), step, k;
    for (step = 0; step < 32 * lnsnum__limbs; step++) {
        uint32_t pair = 0;
        for (k = 2 * step; k < 2 * step + 2; k++) {
            int bit = odd ? k : k - 1;
            pair = pair << 1 | (bit >= 0 && bit < 32 * lnsnum__limbs ? x->limbs[bit / 32] >> (31 - bit % 32) & 1 : 0);
        }
        lnsnum__shift_left(rest, 2, pair);
        lnsnum__shift_left(root, 2,
                           1); /* the root so far, r, becomes 4 r + 1: what r 2 + 1 squared has more than r 2 squared */
        pair = (uint32_t)lnsnum__subtract_if_less(rest, root);
        for (k = lnsnum__limbs; k >= 0; k--) root[k] = root[k] >> 1 | (k ? root[k - 1] << 31 : 0);
        root[lnsnum__limbs] |= pair;
    }
    for (k = 0; k < lnsnum__limbs; k++) x->limbs[k] = root[k + 1];
    x->exponent = (x->exponent - odd) / 2;
}

/* 1 / x for an x that is no power of two: 2^639 / mantissa, cut off, has 320 bits. */
static void lnsnum__reciprocal(lnsnum__big *x) {
    uint32_t rest[lnsnum__limbs + 1] = {0}, divisor[lnsnum__limbs + 1] = {0}, quotient[lnsnum__limbs + 1] = {0};
    int step, k;
    for (k = 0; k < lnsnum__limbs; k++) divisor[k + 1] = x->limbs[k];
    rest[1] = (uint32_t)1 << 31;
    for (step = 0; step < 32 * lnsnum__limbs; step++) {
        lnsnum__shift_left(rest, 1, 0);
        lnsnum__shift_left(quotient, 1, (uint32_t)lnsnum__subtract_if_less(rest, divisor));
    }
    for (k = 0; k < lnsnum__limbs; k++) x->limbs[k] = quotient[k + 1];
    x->exponent = -x->exponent - 1;
}

/* base^(2^-F) */
static lnsnum__big lnsnum__root(lnsnum_format format) {
    uint64_t bits = lnsnum__double_bits(format.base), mantissa = (bits << 11) | UINT64_C(1) << 63;
    lnsnum__big root;
    int i;
    memset(&root, 0, sizeof root);
    root.exponent = (int64_t)(bits >> 52) - 1023;
    root.limbs[0] = (uint32_t)(mantissa >> 32);
    root.limbs[1] = (uint32_t)mantissa;
    for (i = 0; i < format.fraction_bits; i++) lnsnum__square_root(&root);
    return root;
}

/* A number for rounding: top / 2^63 * 2^exponent, and `more` if the number is a little greater. */
typedef struct {
    uint64_t top;
    int64_t exponent;
    int more;
} lnsnum__exact;

/* A number of 320 bits that errs by less than 2^-280 of itself, to all that rounding it takes. */
static lnsnum__exact lnsnum__settle(const lnsnum__big *x) {
    lnsnum__exact out;
    int i, zeros = 0, ones = 0;
    for (i = 2; i < 7; i++) { /* the bits of 2^-64 to 2^-223 */
        zeros += x->limbs[i] == 0;
        ones += x->limbs[i] == UINT32_C(0xffffffff);
    }
    out.top = (uint64_t)x->limbs[0] << 32 | x->limbs[1];
    out.exponent = x->exponent;
    out.more = zeros < 5 && ones < 5;
    if (ones == 5 && !++out.top) {
        out.top = UINT64_C(1) << 63;
        out.exponent++;
    }
    return out;
}

/* E = q 2^F + r for a base that is a power of two, so that the power is that of r times 2^(q log2 base): what is exact
   stays so. For other bases q is 0 and r has the sign of E. */
typedef struct {
    int64_t shift; /* q log2 base */
    uint64_t size; /* |r| */
    int negative;
} lnsnum__split;

static lnsnum__split lnsnum__split_exponent(lnsnum_format format, int64_t exponent) {
    uint64_t bits = lnsnum__double_bits(format.base);
    lnsnum__split out;
    out.shift = 0;
    out.negative = exponent < 0;
    out.size = exponent < 0 ? 0 - (uint64_t)exponent : (uint64_t)exponent;
    if (!(bits << 12)) {
        out.negative = 0;
        out.size = (uint64_t)exponent & ((UINT64_C(1) << format.fraction_bits) - 1);
        out.shift =
            (exponent - (int64_t)out.size) / ((int64_t)1 << format.fraction_bits) * ((int64_t)(bits >> 52) - 1023);
    }
    return out;
}

/* The powers of the root, and those of its reciprocal, by digits of the exponent: powers[side][digit place * 256 +
 * digit]. */
typedef struct {
    lnsnum_format format;
    lnsnum__big *powers[2];
    void *owned;
} lnsnum__decoder;

static int lnsnum__make_decoder(lnsnum__decoder *decoder, lnsnum_format format, int64_t largest_offset) {
    lnsnum__split least = lnsnum__split_exponent(format, -1);
    uint64_t largest = (UINT64_C(1) << (format.bits - 2)) - 1 + (uint64_t)largest_offset;
    size_t places = 0, sides = least.negative ? 2 : 1, side, place, i;
    lnsnum__big step = lnsnum__root(format);
    if (sides == 1 && largest > least.size) largest = least.size; /* 2^F - 1 */
    while (largest >> (places * lnsnum__digit_bits)) places++;
    decoder->format = format;
    decoder->owned = lnsnum__allocate(sides * places * lnsnum__digits, sizeof step);
    if (!decoder->owned) return 0;
    for (side = 0; side < sides; side++) {
        lnsnum__big *powers = (lnsnum__big *)decoder->owned + side * places * lnsnum__digits;
        decoder->powers[side] = powers;
        if (side) {
            step = lnsnum__root(format);
            lnsnum__reciprocal(&step);
        }
        for (place = 0; place < places; place++, powers += lnsnum__digits) {
            memset(powers, 0, sizeof *powers);
            powers[0].limbs[0] = (uint32_t)1 << 31;
            for (i = 1; i < lnsnum__digits; i++) lnsnum__multiply(&powers[i], &powers[i - 1], &step, lnsnum__limbs);
            lnsnum__multiply(&step, &powers[lnsnum__digits - 1], &step, lnsnum__limbs);
        }
    }
    return 1;
}

static lnsnum__exact lnsnum__decode_with(const lnsnum__decoder *decoder, int64_t exponent) {
    lnsnum__split split = lnsnum__split_exponent(decoder->format, exponent);
    int n;
    lnsnum__exact out;
    out.top = UINT64_C(1) << 63;
    out.exponent = split.shift;
    out.more = 0;
    if (!split.size) return out;
    for (n = lnsnum__short;; n = lnsnum__limbs) {
        const lnsnum__big *powers = decoder->powers[split.negative], *factor = NULL;
        lnsnum__big product;
        uint64_t rest;
        for (rest = split.size; rest; rest >>= lnsnum__digit_bits, powers += lnsnum__digits) {
            const lnsnum__big *power = &powers[rest & (lnsnum__digits - 1)];
            if (!(rest & (lnsnum__digits - 1))) continue;
            if (!factor) {
                factor = power;
            } else {
                if (n == lnsnum__short) lnsnum__multiply(&product, factor, power, lnsnum__short);
                else lnsnum__multiply(&product, factor, power, lnsnum__limbs);
                factor = &product;
            }
        }
        if (n == lnsnum__limbs) out = lnsnum__settle(factor);
        else {
            /* 96 bits, too small by less than 14 in the last: four factors, three products. They nearly always do. */
            out.top = (uint64_t)factor->limbs[0] << 32 | factor->limbs[1];
            out.exponent = factor->exponent;
            out.more = 1;
            if (factor->limbs[2] == 0 || factor->limbs[2] > UINT32_C(0xffffffff) - 16) continue;
        }
        out.exponent += split.shift;
        return out;
    }
}

/* The bits of the float or double (`wide`) nearest to the number, ties to even. */
static uint64_t lnsnum__round(lnsnum__exact x, int wide) {
    int64_t least = wide ? -1022 : -126, below = x.exponent < least ? least - x.exponent : 0;
    int fraction_bits = wide ? 52 : 23,
        cut = 63 - fraction_bits; /* bits of `top` that are rounded away, in the normal range */
    uint64_t infinity = wide ? UINT64_C(0x7ff) << 52 : UINT64_C(0xff) << 23, kept, half;
    if (x.exponent > -least + 1) return infinity;
    if (below > 64 - cut) return 0; /* less than half of the smallest subnormal */
    cut += (int)below;              /* at most 64 */
    half = UINT64_C(1) << (cut - 1);
    kept = cut == 64 ? 0 : x.top >> cut;
    if ((x.top & half) && ((x.top & (half - 1)) || x.more || (kept & 1))) kept++;
    return below ? kept
                 : ((uint64_t)(x.exponent - least) << fraction_bits) +
                       kept; /* a carry moves the exponent, up to infinity */
}

/* What a code is beside its size: its sign is added to results other than zero. */
static uint64_t lnsnum__value_bits(const lnsnum__decoder *decoder, lnsnum_format format, uint32_t code, int32_t offset,
                                   int wide) {
    uint32_t sign = (uint32_t)1 << (format.bits - 1), m = code & (sign - 1);
    int64_t exponent = (int64_t)m - ((int64_t)1 << (format.bits - 2)) + offset;
    lnsnum__exact exact;
    uint64_t bits;
    if (!m) return !(code & sign) ? 0 : wide ? UINT64_C(0xfff) << 51 : UINT64_C(0x1ff) << 22;
    if (decoder) {
        exact = lnsnum__decode_with(decoder, exponent);
    } else {
        lnsnum__split split = lnsnum__split_exponent(format, exponent);
        lnsnum__big square = lnsnum__root(format), power;
        uint64_t rest;
        memset(&power, 0, sizeof power);
        power.limbs[0] = (uint32_t)1 << 31;
        if (split.negative) lnsnum__reciprocal(&square);
        for (rest = split.size; rest; rest >>= 1) {
            if (rest & 1) lnsnum__multiply(&power, &power, &square, lnsnum__limbs);
            lnsnum__multiply(&square, &square, &square, lnsnum__limbs);
        }
        exact = lnsnum__settle(&power);
        exact.exponent += split.shift;
    }
    bits = lnsnum__round(exact, wide);
    return bits && (code & sign) ? bits | (wide ? UINT64_C(1) << 63 : UINT64_C(1) << 31) : bits;
}

static uint64_t lnsnum__one_value(lnsnum_format format, uint32_t code, int32_t offset, int wide) {
    if (!lnsnum__is_format(format) || (uint64_t)code >> format.bits || offset > LNSNUM_MAX_OFFSET ||
        offset < -LNSNUM_MAX_OFFSET) {
        return wide ? UINT64_C(0xfff) << 51 : UINT64_C(0x1ff) << 22;
    }
    return lnsnum__value_bits(NULL, format, code, offset, wide);
}

float lnsnum_decode_float(lnsnum_format format, uint32_t code, int32_t log_offset) {
    uint32_t bits = (uint32_t)lnsnum__one_value(format, code, log_offset, 0);
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

double lnsnum_decode_double(lnsnum_format format, uint32_t code, int32_t log_offset) {
    uint64_t bits = lnsnum__one_value(format, code, log_offset, 1);
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static void lnsnum__store(unsigned char *out, uint64_t bits, int wide) {
    uint32_t narrow = (uint32_t)bits;
    if (wide) memcpy(out, &bits, 8);
    else memcpy(out, &narrow, 4);
}

/* `count` values at one offset; where that is more than there are codes, by a table of all of them. */
static int lnsnum__decode_run(const lnsnum__decoder *decoder, const lnsnum_tensor *tensor, uint64_t start,
                              uint64_t count, int32_t offset, unsigned char *out, int wide) {
    uint32_t codes[lnsnum__chunk], code, all = tensor->format.bits <= 16 ? (uint32_t)1 << tensor->format.bits : 0;
    size_t size = wide ? 8 : 4, i;
    unsigned char *table = NULL;
    if (all && count > all) {
        table = (unsigned char *)lnsnum__allocate(all, size);
        if (!table) return 0;
        for (code = 0; code < all; code++) {
            lnsnum__store(table + code * size, lnsnum__value_bits(decoder, tensor->format, code, offset, wide), wide);
        }
    }
    while (count) {
        size_t n = lnsnum__least(count, lnsnum__chunk);
        lnsnum__read_codes(tensor, start, n, codes);
        if (table && wide)
            for (i = 0; i < n; i++) memcpy(out + i * 8, table + (size_t)codes[i] * 8, 8);
        else if (table)
            for (i = 0; i < n; i++) memcpy(out + i * 4, table + (size_t)codes[i] * 4, 4);
        else
            for (i = 0; i < n; i++)
                lnsnum__store(out + i * size, lnsnum__value_bits(decoder, tensor->format, codes[i], offset, wide),
                              wide);
        start += n;
        count -= n;
        out += n * size;
    }
    LNSNUM_FREE(table);
    return 1;
}

static int lnsnum__to_values(const lnsnum_tensor *tensor, unsigned char *out, int wide, lnsnum_error *error) {
    uint64_t stride[LNSNUM_MAX_NDIM], index[LNSNUM_MAX_NDIM] = {0}, step = 1, inner = 1, start, run, place = 0;
    uint64_t group = (uint64_t)tensor->group_size;
    int64_t largest = 0;
    int status = lnsnum__check_lns(tensor, error), d, outer = tensor->ndim, grouped;
    lnsnum__decoder decoder;
    if (status || !tensor->count) return status;
    for (d = tensor->ndim - 1; d >= 0; d--) { /* how far the next element along a dimension has its offset */
        int own = d - (tensor->ndim - tensor->offset_ndim);
        uint64_t size = own < 0 ? 1 : tensor->offset_shape[own];
        stride[d] = size == 1 ? 0 : step;
        step *= size;
    }
    grouped = group ? tensor->ndim + tensor->group_axis : -1;
    while (outer > 0 && !stride[outer - 1]) inner *= tensor->shape[--outer];
    for (start = 0; start < step; start++) {
        int64_t offset = tensor->offsets[start];
        if (offset < 0) offset = -offset;
        if (offset > largest) largest = offset;
    }
    if (!lnsnum__make_decoder(&decoder, tensor->format, largest)) return lnsnum__no_memory(error);
    for (start = 0; start < tensor->count && !status; start += run) {
        uint64_t by = 1; /* indices of the dimension outer - 1 that share an offset and lie in a row: a group's */
        if (grouped >= 0 && grouped == outer - 1) by = lnsnum__least(tensor->shape[grouped] - index[grouped], group);
        run = by * inner;
        if (!lnsnum__decode_run(&decoder, tensor, start, run, tensor->offsets[place], out, wide))
            status = lnsnum__no_memory(error);
        out += (size_t)run * (wide ? 8 : 4);
        for (d = outer - 1; d >= 0; d--, by = 1) {
            place -= stride[d] * (d == grouped ? index[d] / group : index[d]);
            index[d] = index[d] + by < tensor->shape[d] ? index[d] + by : 0;
            place += stride[d] * (d == grouped ? index[d] / group : index[d]);
            if (index[d]) break;
        }
    }
    LNSNUM_FREE(decoder.owned);
    return status;
}

int lnsnum_to_float(const lnsnum_tensor *tensor, float *out, lnsnum_error *error) {
    return lnsnum__to_values(tensor, (unsigned char *)out, 0, error);
}

int lnsnum_to_double(const lnsnum_tensor *tensor, double *out, lnsnum_error *error) {
    return lnsnum__to_values(tensor, (unsigned char *)out, 1, error);
}

/* ---- Files ---- */

/* What is known while a file is read. Sizes of shapes go to one pool, offsets to another; each is as long as there are
 * numbers. */
typedef struct {
    lnsnum_file *file;
    lnsnum__json header, description;
    uint32_t description_crc;
    uint64_t *sizes;
    const unsigned char *buffer;
    uint64_t buffer_size;
    unsigned char *claimed; /* of layout 3: which stored tensors entries of the description are of */
    lnsnum_error *error;
} lnsnum__reader;

#define LNSNUM__METADATA "__metadata__" /* the member of the header that is no tensor */

static uint32_t lnsnum__metadata_object(const lnsnum__json *header) {
    return lnsnum__member(header, 0, LNSNUM__METADATA);
}

static int lnsnum__is_object_of_strings(const lnsnum__json *json, uint32_t object) {
    uint32_t at;
    if (json->tokens[object].type != lnsnum__object) return 0;
    for (at = object + 1; at < json->tokens[object].next; at = json->tokens[at + 1].next) {
        if (json->tokens[at + 1].type != lnsnum__string) return 0;
    }
    return 1;
}

/* The header's entry of one tensor. */
static int lnsnum__read_tensor(lnsnum__reader *reader, uint32_t entry, lnsnum_tensor *tensor) {
    const lnsnum__json *header = &reader->header;
    uint32_t dtype, shape, place;
    uint64_t *pool = reader->sizes, begin, end;
    const uint64_t *place_values;
    int known, two;
    if (header->tokens[entry].type != lnsnum__object)
        return lnsnum__refuse_tensor(reader->error, tensor, "its entry of the header is no object");
    dtype = lnsnum__member(header, entry, "dtype");
    shape = lnsnum__member(header, entry, "shape");
    place = lnsnum__member(header, entry, "data_offsets");
    if (!dtype || !shape || !place)
        return lnsnum__refuse_tensor(reader->error, tensor, "its dtype, shape or data_offsets is missing");
    for (known = LNSNUM_U8; known <= LNSNUM_F64; known++) {
        tensor->dtype = (lnsnum_dtype)known;
        if (lnsnum__is_text(header, dtype, lnsnum_dtype_name(tensor->dtype))) break;
    }
    if (known > LNSNUM_F64)
        return lnsnum__refuse_tensor(reader->error, tensor, "its dtype is none of those of a weight file");
    if (!lnsnum__read_shape(header, place, UINT64_MAX, &pool, &place_values, &two) || two != 2) {
        return lnsnum__refuse_tensor(reader->error, tensor,
                                     "its data_offsets are no list of two integers from 0 to 2^64 - 1");
    }
    begin = place_values[0];
    end = place_values[1];
    if (begin > end || end > reader->buffer_size)
        return lnsnum__refuse_tensor(reader->error, tensor, "its data_offsets are not within the file");
    tensor->data = reader->buffer + begin;
    tensor->data_size = end - begin;
    if (!lnsnum__read_shape(header, shape, UINT64_MAX, &reader->sizes, &tensor->shape, &tensor->ndim)) {
        return lnsnum__refuse_tensor(reader->error, tensor,
                                     "its shape is no list of at most 64 integers from 0 to 2^64 - 1");
    }
    if (!lnsnum__product(tensor->shape, tensor->ndim, &tensor->count)) {
        return lnsnum__refuse_tensor(reader->error, tensor, "the size of its shape leaves 64 bits");
    }
    return lnsnum__check_fields(tensor, reader->error);
}

static int lnsnum__order_of_names(const void *context, uint32_t a, uint32_t b) {
    const lnsnum_tensor *x = (const lnsnum_tensor *)context + a, *y = (const lnsnum_tensor *)context + b;
    return lnsnum__compare_bytes(x->name, x->name_length, y->name, y->name_length);
}

/* By the place of the data; an empty one comes before the one that begins where it lies. */
static int lnsnum__order_of_data(const void *context, uint32_t a, uint32_t b) {
    const lnsnum_tensor *x = (const lnsnum_tensor *)context + a, *y = (const lnsnum_tensor *)context + b;
    const unsigned char *x_data = (const unsigned char *)x->data, *y_data = (const unsigned char *)y->data;
    return x_data != y_data ? (x_data > y_data) - (x_data < y_data)
                            : (x->data_size > y->data_size) - (x->data_size < y->data_size);
}

static int lnsnum__read_tensors(lnsnum__reader *reader) {
    const lnsnum__json *header = &reader->header;
    lnsnum_file *file = reader->file;
    uint32_t at, i;
    uint64_t end = 0;
    for (at = 1; at < header->tokens[0].next; at = header->tokens[at + 1].next)
        file->count += !lnsnum__is_text(header, at, LNSNUM__METADATA);
    file->tensors = (lnsnum_tensor *)(file->owned[1] = lnsnum__allocate(file->count, sizeof *file->tensors));
    file->by_name = (uint32_t *)(file->owned[2] = lnsnum__allocate(file->count, sizeof *file->by_name));
    if (!file->tensors || !file->by_name) return lnsnum__no_memory(reader->error);
    memset(file->tensors, 0, file->count * sizeof *file->tensors);
    for (at = 1, i = 0; at < header->tokens[0].next; at = header->tokens[at + 1].next) {
        lnsnum_tensor *tensor = &file->tensors[i];
        int status;
        if (lnsnum__is_text(header, at, LNSNUM__METADATA)) continue;
        tensor->name = header->text + header->tokens[at].start;
        tensor->name_length = header->tokens[at].length;
        status = lnsnum__read_tensor(reader, at + 1, tensor);
        if (status) return status;
        file->by_name[i] = i;
        i++;
    }
    lnsnum__sort(file->by_name, file->count, lnsnum__order_of_data, file->tensors);
    for (i = 0; i < file->count; i++) {
        const lnsnum_tensor *tensor = &file->tensors[file->by_name[i]];
        if ((const unsigned char *)tensor->data != reader->buffer + end) {
            return lnsnum__refuse_tensor(reader->error, tensor, "its data overlap others or leave a gap before them");
        }
        end += tensor->data_size;
    }
    if (end != reader->buffer_size)
        return lnsnum__refuse(reader->error, "the data of the tensors do not end where the file ends");
    lnsnum__sort(file->by_name, file->count, lnsnum__order_of_names, file->tensors);
    return LNSNUM_OK;
}

/* Suffixes of what layout 3 stores: codes, their offsets, the tensors of an optimizer. */
#define LNSNUM__CODES ".lnsnum_codes"
#define LNSNUM__OFFSETS ".lnsnum_offsets"
#define LNSNUM__OPTIMIZER ".lnsnum_optimizer"

/* The stored tensor whose name is `name` and a suffix after it, NULL where there is none. */
static lnsnum_tensor *lnsnum__find_joined(const lnsnum_file *file, const char *name, size_t length,
                                          const char *suffix) {
    size_t low = 0, high = file->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        lnsnum_tensor *tensor = &file->tensors[file->by_name[middle]];
        size_t shared = tensor->name_length < length ? tensor->name_length : length;
        int order = lnsnum__compare_bytes(name, length, tensor->name, shared);
        if (!order)
            order = lnsnum__compare_bytes(suffix, strlen(suffix), tensor->name + shared, tensor->name_length - shared);
        if (!order) return tensor;
        if (order < 0) high = middle;
        else low = middle + 1;
    }
    return NULL;
}

/* The one name that no entry has: in the header it is that of what is no tensor. */
static int lnsnum__check_name(lnsnum__reader *reader, uint32_t name) {
    if (lnsnum__is_text(&reader->description, name, LNSNUM__METADATA))
        return lnsnum__refuse(reader->error, "the description has an entry for __metadata__, which names no tensor");
    return LNSNUM_OK;
}

/* Marks a stored tensor as what an entry tells of; a second entry of the same is refused. */
static int lnsnum__claim(lnsnum__reader *reader, const lnsnum_tensor *stored) {
    unsigned char *claimed = &reader->claimed[stored - reader->file->tensors];
    if (*claimed) return lnsnum__refuse_tensor(reader->error, stored, "two entries of the description are of it");
    *claimed = 1;
    return LNSNUM_OK;
}

/* `log_offset` of an entry of layout 3 that is an object: what a stored tensor has. */
static int lnsnum__read_stored_offsets(lnsnum__reader *reader, uint32_t token, const char *name, size_t length,
                                       lnsnum_tensor *tensor, int32_t **pool) {
    const lnsnum__json *json = &reader->description;
    lnsnum_tensor *stored = lnsnum__find_joined(reader->file, name, length, LNSNUM__OFFSETS);
    uint32_t size = lnsnum__member(json, token, "group_size"), axis = lnsnum__member(json, token, "axis"), checksum;
    const unsigned char *at;
    uint64_t i;
    int status, negative;
    if (!stored) return lnsnum__refuse_tensor(reader->error, tensor, "the tensor of its log_offset is not in the file");
    status = lnsnum__claim(reader, stored);
    if (status) return status;
    if (stored->dtype != LNSNUM_I32)
        return lnsnum__refuse_tensor(reader->error, tensor, "its log_offset is not of I32, the dtype of log_offsets");
    if (!lnsnum__read_checksum(json, lnsnum__member(json, token, "crc32"), &checksum)) {
        return lnsnum__refuse_tensor(
            reader->error, tensor, "the crc32 of its log_offset is no string of eight hexadecimal digits in lower case");
    }
    if (!lnsnum__has_its_checksum(stored, checksum))
        return lnsnum__refuse_tensor(reader->error, tensor, "the checksum of its log_offset is not that of its data");
    if (size || axis) {
        uint64_t elements, from_last;
        if (!size || !axis || !lnsnum__read_integer(json, size, &negative, &elements) || negative ||
            !lnsnum__read_integer(json, axis, &negative, &from_last) || !negative || elements < LNSNUM_LEAST_GROUP ||
            elements > LNSNUM_GREATEST_GROUP || from_last < 1 || from_last > LNSNUM_MAX_NDIM) {
            return lnsnum__refuse_tensor(
                reader->error, tensor, "its log_offset has not both a group_size of 16 to 256 and a negative axis");
        }
        tensor->group_size = (int)elements;
        tensor->group_axis = -(int)from_last;
    }
    tensor->offset_ndim = stored->ndim;
    tensor->offset_shape = stored->shape;
    tensor->offsets = *pool;
    at = (const unsigned char *)stored->data;
    for (i = 0; i < stored->count; i++, at += 4) {
        uint32_t bits = (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
        memcpy((*pool)++, &bits, 4); /* two's complement, which int32_t is */
    }
    return LNSNUM_OK;
}

/* `log_offset` of an entry: an integer, or an object of shape and values. */
static int lnsnum__read_offsets(lnsnum__reader *reader, uint32_t token, lnsnum_tensor *tensor, int32_t **pool) {
    const lnsnum__json *json = &reader->description;
    uint32_t at = token, end = token ? json->tokens[token].next : 0;
    uint64_t count = 0, expected = 1;
    tensor->offsets = *pool;
    if (token && json->tokens[token].type == lnsnum__object) {
        uint32_t shape = lnsnum__member(json, token, "shape"), values = lnsnum__member(json, token, "values");
        if (!shape || !values || json->tokens[values].type != lnsnum__array ||
            !lnsnum__read_shape(json, shape, UINT64_MAX, &reader->sizes, &tensor->offset_shape, &tensor->offset_ndim) ||
            !lnsnum__product(tensor->offset_shape, tensor->offset_ndim, &expected)) {
            return lnsnum__refuse_tensor(reader->error, tensor,
                                         "its log_offset has no shape and values that are lists of integers");
        }
        at = values + 1;
        end = json->tokens[values].next;
    }
    for (; at < end; at = json->tokens[at].next, count++) {
        uint64_t size;
        int negative;
        if (!lnsnum__read_integer(json, at, &negative, &size) || size > LNSNUM_MAX_OFFSET) {
            return lnsnum__refuse_tensor(reader->error, tensor,
                                         "its log_offset is no integer of at most 2^30 in size and no array of them");
        }
        *(*pool)++ = negative ? -(int32_t)size : (int32_t)size;
    }
    if (!token || count != expected)
        return lnsnum__refuse_tensor(reader->error, tensor,
                                     "its log_offset is missing, or not of as many values as its shape takes");
    return LNSNUM_OK;
}

/* The description's entry of one tensor. */
static int lnsnum__read_entry(lnsnum__reader *reader, uint32_t entry, lnsnum_tensor *tensor, int32_t **offsets,
                              int32_t **stored_offsets) {
    const lnsnum__json *json = &reader->description;
    int layout = reader->file->layout, status;
    uint32_t format, packed, offset;
    if (json->tokens[entry].type != lnsnum__object)
        return lnsnum__refuse_tensor(reader->error, tensor, "its entry of the description is no object");
    format = lnsnum__member(json, entry, "format");
    packed = layout == 1 ? 0 : lnsnum__member(json, entry, "packed_shape");
    if (layout > 1) {
        if (!lnsnum__read_checksum(json, lnsnum__member(json, entry, "crc32"), &tensor->checksum)) {
            return lnsnum__refuse_tensor(reader->error, tensor,
                                         "its crc32 is no string of eight hexadecimal digits in lower case");
        }
        tensor->has_checksum = 1;
    }
    if (!format && (packed || lnsnum__member(json, entry, "log_offset"))) {
        return lnsnum__refuse_tensor(reader->error, tensor, "it has a log_offset or a packed_shape but no format");
    }
    if (!format) return LNSNUM_OK;
    if (json->tokens[format].type != lnsnum__string ||
        lnsnum_parse_format(&tensor->format, json->text + json->tokens[format].start, json->tokens[format].length)) {
        return lnsnum__refuse_tensor(reader->error, tensor, "its format is no name of one, like lns8f5");
    }
    tensor->is_lns = 1;
    if (packed) {
        if (tensor->ndim != 1)
            return lnsnum__refuse_tensor(reader->error, tensor,
                                         "it has a packed_shape, but its data are not of one dimension");
        if (!lnsnum__read_shape(json, packed, INT64_MAX, &reader->sizes, &tensor->shape, &tensor->ndim) ||
            !lnsnum__product(tensor->shape, tensor->ndim, &tensor->count)) {
            return lnsnum__refuse_tensor(
                reader->error, tensor,
                "its packed_shape is no list of at most 64 integers from 0 to 2^63 - 1, or too large");
        }
        tensor->packed = 1;
    }
    offset = lnsnum__member(json, entry, "log_offset");
    if (layout > 2 && offset && json->tokens[offset].type == lnsnum__object) {
        const lnsnum__token *name = &json->tokens[entry - 1];
        status = lnsnum__read_stored_offsets(reader, offset, json->text + name->start, name->length, tensor,
                                             stored_offsets);
    } else {
        status = lnsnum__read_offsets(reader, offset, tensor, offsets);
    }
    return status ? status : lnsnum__check_fields(tensor, reader->error);
}

/* The entry of one tensor of layout 3's section of the optimizer: it is there, and has a checksum. */
static int lnsnum__read_moment(lnsnum__reader *reader, uint32_t entry, const lnsnum_tensor *stored) {
    const lnsnum__json *json = &reader->description;
    uint32_t checksum;
    if (json->tokens[entry].type != lnsnum__object ||
        !lnsnum__read_checksum(json, lnsnum__member(json, entry, "crc32"), &checksum)) {
        return lnsnum__refuse_tensor(reader->error, stored,
                                     "its crc32 is no string of eight hexadecimal digits in lower case");
    }
    return LNSNUM_OK;
}

/* The section of the optimizer, of which no more is read than that its tensors are all there. */
static int lnsnum__read_optimizer(lnsnum__reader *reader) {
    const lnsnum__json *json = &reader->description;
    uint32_t section = lnsnum__member(json, 0, "optimizer"), state, tensors, at;
    int status = LNSNUM_OK;
    if (!section) return LNSNUM_OK;
    if (json->tokens[section].type != lnsnum__object)
        return lnsnum__refuse(reader->error, "the field optimizer is no object");
    state = lnsnum__member(json, section, "state");
    tensors = lnsnum__member(json, section, "tensors");
    if (!state || !tensors || json->tokens[state].type != lnsnum__object ||
        json->tokens[tensors].type != lnsnum__object) {
        return lnsnum__refuse(reader->error, "the field optimizer has no state and tensors that are objects");
    }
    for (at = tensors + 1; at < json->tokens[tensors].next && !status; at = json->tokens[at + 1].next) {
        const lnsnum_tensor *stored = lnsnum__find_joined(reader->file, json->text + json->tokens[at].start,
                                                          json->tokens[at].length, LNSNUM__OPTIMIZER);
        status = lnsnum__check_name(reader, at);
        if (status) return status;
        if (!stored)
            return lnsnum__refuse(reader->error, "the description has an entry of a tensor that is not in the file");
        status = lnsnum__claim(reader, stored);
        if (!status) status = lnsnum__read_moment(reader, at + 1, stored);
    }
    return status;
}

/* Leaves the tensors that have entries of their own, by the names of these: a suffix is cut off. */
static void lnsnum__keep_named(lnsnum_file *file) {
    size_t i, kept = 0;
    for (i = 0; i < file->count; i++) {
        lnsnum_tensor tensor = file->tensors[i];
        if (!tensor.has_checksum) continue;
        if (tensor.is_lns) {
            tensor.name_length -= strlen(LNSNUM__CODES);
            ((char *)tensor.name)[tensor.name_length] = 0; /* in our copy of the header */
        }
        file->by_name[kept] = (uint32_t)kept;
        file->tensors[kept++] = tensor;
    }
    file->count = kept;
    lnsnum__sort(file->by_name, file->count, lnsnum__order_of_names, file->tensors);
}

static int lnsnum__read_description(lnsnum__reader *reader) {
    const lnsnum__json *json = &reader->description;
    lnsnum_file *file = reader->file;
    uint32_t layout, tensors, metadata, at, crc;
    uint64_t version = 0;
    size_t entries = 0, i;
    int negative = 0, status;
    int32_t *offsets, *stored_offsets = NULL;
    if (json->tokens[0].type != lnsnum__object)
        return lnsnum__refuse(reader->error, "the string lnsnum is no JSON object");
    layout = lnsnum__member(json, 0, "layout");
    if (!layout || !lnsnum__read_integer(json, layout, &negative, &version) || negative || version < 1 ||
        version > LNSNUM_LAYOUT) {
        return lnsnum__refuse(reader->error, "the file's layout is none of those that are known, 1 to 3");
    }
    file->layout = (int)version;
    if (version > 1) {
        uint32_t strings = lnsnum__metadata_object(&reader->header);
        if (!lnsnum__read_checksum(&reader->header, lnsnum__member(&reader->header, strings, "lnsnum_crc32"), &crc) ||
            crc != reader->description_crc) {
            return lnsnum__refuse(reader->error,
                                  "lnsnum_crc32 is missing or not the checksum: the file was changed or damaged");
        }
    }
    metadata = lnsnum__member(json, 0, "metadata");
    if (metadata) {
        if (!lnsnum__is_object_of_strings(json, metadata))
            return lnsnum__refuse(reader->error, "the field metadata is no object of strings");
        for (at = metadata + 1; at < json->tokens[metadata].next; at += 2) file->metadata_count++;
        file->metadata =
            (lnsnum_text *)(file->owned[3] = lnsnum__allocate(file->metadata_count, sizeof *file->metadata));
        if (!file->metadata) return lnsnum__no_memory(reader->error);
        for (at = metadata + 1, i = 0; i < file->metadata_count; at += 2, i++) {
            file->metadata[i].name = json->text + json->tokens[at].start;
            file->metadata[i].name_length = json->tokens[at].length;
            file->metadata[i].value = json->text + json->tokens[at + 1].start;
            file->metadata[i].value_length = json->tokens[at + 1].length;
        }
    }
    tensors = lnsnum__member(json, 0, "tensors");
    if (!tensors || json->tokens[tensors].type != lnsnum__object)
        return lnsnum__refuse(reader->error, "the field tensors is no object");
    offsets = (int32_t *)(file->owned[4] = lnsnum__allocate(json->numbers, sizeof *offsets));
    if (!offsets) return lnsnum__no_memory(reader->error);
    if (version > 2) {
        uint64_t stored = 0;
        for (i = 0; i < file->count; i++) {
            const lnsnum_tensor *tensor = &file->tensors[i];
            size_t length = strlen(LNSNUM__OFFSETS);
            if (tensor->dtype == LNSNUM_I32 && tensor->name_length >= length &&
                !memcmp(tensor->name + tensor->name_length - length, LNSNUM__OFFSETS, length)) {
                stored += tensor->count;
            }
        }
        stored_offsets = (int32_t *)(file->owned[7] = lnsnum__allocate(stored, sizeof *stored_offsets));
        reader->claimed = (unsigned char *)lnsnum__allocate(file->count, 1);
        if (!stored_offsets || !reader->claimed) return lnsnum__no_memory(reader->error);
        memset(reader->claimed, 0, file->count);
    }
    for (at = tensors + 1; at < json->tokens[tensors].next; at = json->tokens[at + 1].next, entries++) {
        const char *name = json->text + json->tokens[at].start, *suffix = "";
        lnsnum_tensor *found;
        status = lnsnum__check_name(reader, at);
        if (status) return status;
        if (version > 2 && json->tokens[at + 1].type == lnsnum__object && lnsnum__member(json, at + 1, "format"))
            suffix = LNSNUM__CODES;
        found = lnsnum__find_joined(file, name, json->tokens[at].length, suffix);
        if (!found)
            return lnsnum__refuse(reader->error, "the description has an entry of a tensor that is not in the file");
        status = version > 2 ? lnsnum__claim(reader, found) : LNSNUM_OK;
        if (!status) status = lnsnum__read_entry(reader, at + 1, found, &offsets, &stored_offsets);
        if (status) return status;
    }
    if (version > 2) {
        status = lnsnum__read_optimizer(reader);
        if (status) return status;
    }
    for (i = 0; i < file->count && version > 1; i++) { /* every entry of layout 2 brought a checksum */
        if (version > 2 ? !reader->claimed[i] : !file->tensors[i].has_checksum)
            return lnsnum__refuse_tensor(reader->error, &file->tensors[i], "it has no entry in the description");
    }
    if (version > 2) lnsnum__keep_named(file);
    return LNSNUM_OK;
}

static int lnsnum__read_file(lnsnum__reader *reader) {
    lnsnum__json *header = &reader->header, *description = &reader->description;
    uint32_t strings, text;
    int status = lnsnum__parse(header, "the header", reader->error);
    if (status) return status;
    if (header->tokens[0].type != lnsnum__object) return lnsnum__refuse(reader->error, "the header is no JSON object");
    strings = lnsnum__metadata_object(header);
    if (!strings || !lnsnum__is_object_of_strings(header, strings) ||
        !(text = lnsnum__member(header, strings, "lnsnum"))) {
        return lnsnum__refuse(
            reader->error,
            "the header has no __metadata__ of strings with the string lnsnum: it is no weight file of lnsnum");
    }
    description->text = header->text + header->tokens[text].start;
    description->length = header->tokens[text].length;
    reader->description_crc = lnsnum__crc32(0, description->text, description->length);
    status = lnsnum__parse(description, "the string lnsnum", reader->error);
    if (status) return status;
    reader->sizes = (uint64_t *)(reader->file->owned[0] = lnsnum__allocate(
                                     (uint64_t)header->numbers + description->numbers, sizeof *reader->sizes));
    if (!reader->sizes) return lnsnum__no_memory(reader->error);
    status = lnsnum__read_tensors(reader);
    return status ? status : lnsnum__read_description(reader);
}

int lnsnum_open(lnsnum_file *file, const void *bytes, size_t size, lnsnum_error *error) {
    const unsigned char *at = (const unsigned char *)bytes;
    lnsnum__reader reader;
    uint64_t length = 0;
    int i, status;
    memset(file, 0, sizeof *file);
    memset(&reader, 0, sizeof reader);
    if (error) error->message[0] = 0;
    if (size < 8)
        return lnsnum__refuse(error, "the file has %lu bytes, fewer than the 8 of the header's length",
                              (unsigned long)size);
    for (i = 7; i >= 0; i--) length = length << 8 | at[i];
    if (length > 100000000 || length > size - 8)
        return lnsnum__refuse(error, "the header's length is more than 100,000,000 or than the file's");
    if (!length || at[8] != '{') return lnsnum__refuse(error, "the header does not begin with '{'");
    reader.file = file;
    reader.error = error;
    reader.buffer = at + 8 + length;
    reader.buffer_size = size - 8 - length;
    reader.header.length = (size_t)length;
    reader.header.text = (char *)(file->owned[5] = lnsnum__allocate(length, 1));
    if (!reader.header.text) return lnsnum__no_memory(error);
    memcpy(reader.header.text, at + 8, (size_t)length);
    status = lnsnum__read_file(&reader);
    LNSNUM_FREE(reader.header.tokens);
    LNSNUM_FREE(reader.description.tokens);
    LNSNUM_FREE(reader.claimed);
    if (status) lnsnum_close(file);
    return status;
}

int lnsnum_open_path(lnsnum_file *file, const char *path, lnsnum_error *error) {
    FILE *stream = fopen(path, "rb");
    size_t size = 0, room = 0, got;
    unsigned char *bytes = NULL;
    int status = LNSNUM_OK;
    memset(file, 0, sizeof *file);
    while (stream && !status) {
        if (size == room) { /* by what was read, not by what the system says: that may be no file with a size */
            unsigned char *more =
                room > SIZE_MAX / 2 ? NULL : (unsigned char *)LNSNUM_REALLOC(bytes, room = room ? 2 * room : 65536);
            if (!more) {
                status = lnsnum__no_memory(error);
                break;
            }
            bytes = more;
        }
        got = fread(bytes + size, 1, room - size, stream);
        size += got;
        if (!got) break;
    }
    if (!stream || ferror(stream)) {
        lnsnum__refuse(error, "the file cannot be read");
        status = LNSNUM_NO_FILE;
    }
    if (stream) fclose(stream);
    if (!status) status = lnsnum_open(file, bytes, size, error);
    if (status) LNSNUM_FREE(bytes);
    else file->owned[6] = bytes;
    return status;
}

void lnsnum_close(lnsnum_file *file) {
    size_t i;
    for (i = 0; i < sizeof file->owned / sizeof *file->owned; i++) LNSNUM_FREE(file->owned[i]);
    memset(file, 0, sizeof *file);
}

const lnsnum_tensor *lnsnum_find_bytes(const lnsnum_file *file, const char *name, size_t name_length) {
    size_t low = 0, high = file->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const lnsnum_tensor *tensor = &file->tensors[file->by_name[middle]];
        int order = lnsnum__compare_bytes(name, name_length, tensor->name, tensor->name_length);
        if (!order) return tensor;
        if (order < 0) high = middle;
        else low = middle + 1;
    }
    return NULL;
}

const lnsnum_tensor *lnsnum_find(const lnsnum_file *file, const char *name) {
    return lnsnum_find_bytes(file, name, strlen(name));
}

const char *lnsnum_metadata(const lnsnum_file *file, const char *name) {
    size_t i, length = strlen(name);
    for (i = 0; i < file->metadata_count; i++) {
        const lnsnum_text *text = &file->metadata[i];
        if (!lnsnum__compare_bytes(text->name, text->name_length, name, length)) return text->value;
    }
    return NULL;
}

#endif /* LNSNUM_IMPLEMENTATION */
