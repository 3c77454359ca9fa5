/* JSON, enough for the protocol and for the header of a safetensors file; errors; memory that is freed once a request. */

#ifndef DOCONV_EXAMPLE_JSON_H
#define DOCONV_EXAMPLE_JSON_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char failure[512];
static jmp_buf on_failure;

static void fail(const char *format, ...) {
    va_list values;
    va_start(values, format);
    vsnprintf(failure, sizeof failure, format, values);
    va_end(values);
    longjmp(on_failure, 1);
}

static void *blocks[4096];
static int block_count;

static void *allocate(size_t size) {
    if (block_count == 4096) fail("too many blocks of memory");
    void *block = calloc(1, size ? size : 1);
    if (!block) fail("out of memory");
    return blocks[block_count++] = block;
}

static void free_all(void) {
    while (block_count) free(blocks[--block_count]);
}

/* A tree of values. */

typedef struct Json Json;
struct Json {
    char type; /* { [ s(tring) n(umber) t(rue) f(alse) z(null) */
    const char *key, *text;
    double number;
    Json *child, *next;
};

static const char *cursor;

static void skip_space(void) {
    while (*cursor == ' ' || *cursor == '\t' || *cursor == '\n' || *cursor == '\r') cursor++;
}

static char *read_string(void) {
    char *out = allocate(strlen(cursor) + 1), *end = out;
    for (cursor++; *cursor && *cursor != '"'; cursor++) {
        if (*cursor != '\\') { *end++ = *cursor; continue; }
        cursor++;
        unsigned code;
        if (*cursor == 'u' && sscanf(cursor + 1, "%4x", &code) == 1) { /* UTF-8; paths of the suite need no surrogates */
            cursor += 4;
            if (code < 0x80) *end++ = (char)code;
            else if (code < 0x800) { *end++ = (char)(0xC0 | code >> 6); *end++ = (char)(0x80 | (code & 63)); }
            else {
                *end++ = (char)(0xE0 | code >> 12);
                *end++ = (char)(0x80 | (code >> 6 & 63));
                *end++ = (char)(0x80 | (code & 63));
            }
        } else {
            const char *from = "nrtbf", *to = "\n\r\t\b\f", *found = *cursor ? strchr(from, *cursor) : NULL;
            *end++ = found ? to[found - from] : *cursor;
        }
    }
    if (*cursor++ != '"') fail("a string without an end");
    return out;
}

static Json *read_json(void) {
    Json *value = allocate(sizeof *value);
    skip_space();
    value->type = *cursor;
    if (*cursor == '{' || *cursor == '[') {
        char close = *cursor == '{' ? '}' : ']';
        Json **last = &value->child;
        cursor++;
        for (skip_space(); *cursor != close; skip_space()) {
            const char *key = NULL;
            if (*cursor == ',') cursor++;
            skip_space();
            if (close == '}') {
                if (*cursor != '"') fail("not JSON at %.20s", cursor);
                key = read_string();
                skip_space();
                if (*cursor++ != ':') fail("not JSON after %s", key);
            }
            *last = read_json();
            (*last)->key = key;
            last = &(*last)->next;
        }
        cursor++;
    } else if (*cursor == '"') {
        value->type = 's';
        value->text = read_string();
    } else if (strchr("tfn", *cursor) && *cursor) {
        value->type = *cursor == 'n' ? 'z' : *cursor;
        while (*cursor >= 'a' && *cursor <= 'z') cursor++;
    } else {
        char *end;
        value->type = 'n';
        value->number = strtod(cursor, &end);
        if (end == cursor) fail("not JSON at %.20s", cursor);
        cursor = end;
    }
    return value;
}

static Json *parse(const char *text) {
    cursor = text;
    return read_json();
}

static const Json *get(const Json *object, const char *key) {
    for (const Json *item = object->child; item; item = item->next)
        if (item->key && !strcmp(item->key, key)) return item;
    fail("no field %s", key);
    return NULL;
}

static const char *text_of(const Json *object, const char *key) { return get(object, key)->text; }
static long integer_of(const Json *object, const char *key) { return (long)get(object, key)->number; }

static void print_string(const char *text) {
    putchar('"');
    for (; *text; text++) {
        if (*text == '"' || *text == '\\') printf("\\%c", *text);
        else if ((unsigned char)*text < 32) printf("\\u%04x", *text);
        else putchar(*text);
    }
    putchar('"');
}

#endif
