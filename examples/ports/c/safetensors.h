/* safetensors files, read to double and written in any of the four types; rounding is to the nearest, ties to even. */

#ifndef DOCONV_EXAMPLE_SAFETENSORS_H
#define DOCONV_EXAMPLE_SAFETENSORS_H

#include <math.h>
#include <stdint.h>

#include "json.h"

typedef enum { F64, F32, F16, BF16 } Type;
static const char *const PROTOCOL_NAMES[] = {"float64", "float32", "float16", "bfloat16"};
static const char *const FILE_NAMES[] = {"F64", "F32", "F16", "BF16"};
static const size_t WIDTHS[] = {8, 4, 2, 2};

static Type type_named(const char *name, const char *const *names) {
    for (int type = F64; type <= BF16; type++)
        if (!strcmp(name, names[type])) return (Type)type;
    fail("unknown dtype %s", name);
    return F64;
}

/* Keeps `digits` binary digits; numbers below 2^lowest have fewer (subnormals). */
static double keep_digits(double value, int digits, int lowest) {
    int exponent;
    frexp(value, &exponent);
    int unit = (exponent > lowest ? exponent : lowest) - digits;
    return isfinite(value) ? ldexp(nearbyint(ldexp(value, -unit)), unit) : value;
}

static double round_to(double value, Type type) {
    switch (type) {
    case F64: return value;
    case F32: return (double)(float)value;
    case BF16: return (double)(float)keep_digits(value, 8, -125);
    default: value = keep_digits(value, 11, -13); return fabs(value) > 65504 ? copysign(INFINITY, value) : value;
    }
}

static void encode(double value, Type type, unsigned char *bytes) { /* little-endian, on any machine */
    uint64_t bits = 0;
    value = round_to(value, type);
    if (type == F64) memcpy(&bits, &value, 8);
    else if (type == F16) {
        int exponent;
        double fraction = frexp(fabs(value), &exponent); /* |value| = fraction * 2^exponent, 0.5 <= fraction < 1 */
        if (isnan(value)) bits = 0x7E00;
        else if (isinf(value)) bits = 0x7C00;
        else if (exponent < -13) bits = (uint64_t)ldexp(fabs(value), 24);
        else bits = (uint64_t)(exponent + 14) << 10 | (uint64_t)(ldexp(fraction, 11) - 1024);
        if (value == 0) bits = 0;
        if (signbit(value)) bits |= 0x8000;
    } else {
        float single = (float)value;
        uint32_t half;
        memcpy(&half, &single, 4);
        bits = type == BF16 ? half >> 16 : half; /* bfloat16 is the upper half of a float32 */
    }
    for (size_t i = 0; i < WIDTHS[type]; i++) bytes[i] = (unsigned char)(bits >> 8 * i);
}

static double decode(const unsigned char *bytes, Type type) {
    uint64_t bits = 0;
    for (size_t i = 0; i < WIDTHS[type]; i++) bits |= (uint64_t)bytes[i] << 8 * i;
    if (type == F64) { double value; memcpy(&value, &bits, 8); return value; }
    if (type == F16) {
        int exponent = bits >> 10 & 31, fraction = bits & 1023;
        double value = exponent == 31 ? (fraction ? NAN : INFINITY)
                     : exponent ? ldexp(1024 + fraction, exponent - 25) : ldexp(fraction, -24);
        return bits & 0x8000 ? -value : value;
    }
    uint32_t half = (uint32_t)(type == BF16 ? bits << 16 : bits);
    float value;
    memcpy(&value, &half, 4);
    return value;
}

/* A file: eight bytes N, N bytes of JSON, then the tensors. */

typedef struct { const char *name; Type type; int rank; long shape[5], size; double *data; } Tensor;
typedef struct { int count; Tensor items[8]; } Tensors;

static Tensor *add(Tensors *tensors, const char *name, Type type, int rank, const long *shape) {
    if (tensors->count == 8 || rank > 5) fail("tensor %s is too much", name);
    Tensor *tensor = &tensors->items[tensors->count++];
    *tensor = (Tensor){.name = name, .type = type, .rank = rank, .size = 1};
    for (int axis = 0; axis < rank; axis++) tensor->size *= tensor->shape[axis] = shape[axis];
    tensor->data = allocate((size_t)tensor->size * sizeof(double));
    return tensor;
}

static Tensor *find(Tensors *tensors, const char *name) { /* NULL where it is not there: D_delta, bias */
    for (int i = 0; i < tensors->count; i++)
        if (!strcmp(tensors->items[i].name, name)) return &tensors->items[i];
    return NULL;
}

static void load(const char *path, Tensors *tensors) {
    FILE *file = fopen(path, "rb");
    if (!file) fail("cannot open %s", path);
    fseek(file, 0, SEEK_END);
    long length = ftell(file);
    rewind(file);
    unsigned char *bytes = allocate((size_t)length + 1);
    size_t read = fread(bytes, 1, (size_t)length, file);
    fclose(file);
    uint64_t header = 0;
    for (int i = 0; i < 8 && length >= 8; i++) header |= (uint64_t)bytes[i] << 8 * i;
    if (read != (size_t)length || length < 8 || header > (uint64_t)length - 8) fail("%s is not a safetensors file", path);
    char *text = allocate(header + 1);
    memcpy(text, bytes + 8, header);
    for (const Json *item = parse(text)->child; item; item = item->next) {
        if (!strcmp(item->key, "__metadata__")) continue;
        long shape[5];
        int rank = 0;
        for (const Json *size = get(item, "shape")->child; size && rank < 5; size = size->next)
            shape[rank++] = (long)size->number;
        Tensor *tensor = add(tensors, item->key, type_named(text_of(item, "dtype"), FILE_NAMES), rank, shape);
        const unsigned char *data = bytes + 8 + header + (long)get(item, "data_offsets")->child->number;
        for (long i = 0; i < tensor->size; i++) tensor->data[i] = decode(data + (size_t)i * WIDTHS[tensor->type], tensor->type);
    }
}

static void save(const char *path, const Tensors *tensors) {
    char *header = allocate(4096), *end = header;
    size_t offset = 0;
    for (int i = 0; i < tensors->count; i++) {
        const Tensor *tensor = &tensors->items[i];
        size_t bytes = (size_t)tensor->size * WIDTHS[tensor->type];
        end += sprintf(end, "%c\"%s\":{\"dtype\":\"%s\",\"shape\":[", i ? ',' : '{', tensor->name, FILE_NAMES[tensor->type]);
        for (int axis = 0; axis < tensor->rank; axis++) end += sprintf(end, "%s%ld", axis ? "," : "", tensor->shape[axis]);
        end += sprintf(end, "],\"data_offsets\":[%zu,%zu]}", offset, offset + bytes);
        offset += bytes;
    }
    *end++ = '}';
    while ((end - header) % 8) *end++ = ' '; /* so that the tensors are aligned */
    FILE *file = fopen(path, "wb");
    if (!file) fail("cannot write %s", path);
    for (int i = 0; i < 8; i++) fputc((int)((uint64_t)(end - header) >> 8 * i & 255), file);
    fwrite(header, 1, (size_t)(end - header), file);
    for (int i = 0; i < tensors->count; i++)
        for (long k = 0; k < tensors->items[i].size; k++) {
            unsigned char bytes[8];
            encode(tensors->items[i].data[k], tensors->items[i].type, bytes);
            fwrite(bytes, 1, WIDTHS[tensors->items[i].type], file);
        }
    if (fclose(file)) fail("cannot write %s", path);
}

#endif
