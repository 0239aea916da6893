/* The representations of fields, RFC 7541, section 6. */

#include "header_decoder.h"

#include "huffman.h"

/* Numbers are lengths and places: none that fits into a block has more bytes behind its first. */
#define MAX_NUMBER_BYTES 4

struct reading {
    struct header_decoder *decoder;
    const unsigned char *at, *end;
    header_listener *listener;
    void *owner;
};

/* A number whose first byte has as many bits for it, RFC 7541, section 5.1; -1 for none. */
static int64_t take_number(struct reading *reading, unsigned bits) {
    if (reading->at == reading->end) return -1;
    const int64_t most = (1 << bits) - 1;
    int64_t number = *reading->at++ & most;
    if (number < most) return number;
    for (unsigned i = 0; i < MAX_NUMBER_BYTES && reading->at < reading->end; i++) {
        const unsigned char byte = *reading->at++;
        number += (int64_t)(byte & 127) << 7 * i;
        if (byte < 128) return number;
    }
    return -1;
}

/* There is room for all that the block's codes stand for. */
static int take_text(struct reading *reading, const char **text, size_t *count) {
    if (reading->at == reading->end) return -1;
    const int is_code = *reading->at & 128;
    const int64_t length = take_number(reading, 7);
    if (length < 0 || length > reading->end - reading->at) return -1;
    const char *const data = (const char *)reading->at;
    reading->at += length;
    *text = data;
    *count = (size_t)length;
    if (!is_code) return 0;
    struct h2_buffer *const decoded = &reading->decoder->decoded;
    char *const out = decoded->data + decoded->end;
    const ssize_t num_decoded = huffman_decode(data, (size_t)length, out);
    if (num_decoded < 0) return -1;
    decoded->end += (size_t)num_decoded;
    *text = out;
    *count = (size_t)num_decoded;
    return 0;
}

static int take_known(struct reading *reading) {
    struct header_field field;
    const int64_t number = take_number(reading, 7);
    if (number < 0 || header_table_find(&reading->decoder->table, (size_t)number, &field) < 0)
        return -1;
    reading->listener(reading->owner, &field);
    return 0;
}

/* Its name may be a known one's, whose number has as many bits of the first byte. */
static int take_literal(struct reading *reading, unsigned bits, int is_added) {
    struct header_table *const table = &reading->decoder->table;
    struct header_field field;
    const int64_t number = take_number(reading, bits);
    if (number < 0) return -1;
    const int failed = number ? header_table_find(table, (size_t)number, &field)
                              : take_text(reading, &field.name, &field.name_count);
    if (failed || take_text(reading, &field.value, &field.value_count) < 0) return -1;
    reading->listener(reading->owner, &field);
    return is_added ? header_table_add(table, &field) : 0;
}

static int take_size(struct reading *reading) {
    const int64_t size = take_number(reading, 5);
    if (size < 0 || size > HEADER_TABLE_BYTES) return -1;
    header_table_resize(&reading->decoder->table, (size_t)size);
    return 0;
}

static int take_fields(struct reading *reading) {
    int failed = 0;
    /* The table changes its size before the first field alone. */
    while (!failed && reading->at < reading->end && *reading->at >> 5 == 1)
        failed = take_size(reading);
    while (!failed && reading->at < reading->end) {
        const unsigned char first = *reading->at;
        if (first & 128)
            failed = take_known(reading);
        else if (first & 64)
            failed = take_literal(reading, 6, 1);
        else
            failed = first & 32 ? -1 : take_literal(reading, 4, 0);
    }
    return failed;
}

void header_decoder_begin(struct header_decoder *decoder) {
    *decoder = (struct header_decoder){.table.most = HEADER_TABLE_BYTES};
}

void header_decoder_end(struct header_decoder *decoder) {
    h2_discard(&decoder->table.bytes);
    h2_discard(&decoder->decoded);
}

int header_decode(struct header_decoder *decoder, const char *block, size_t count,
                  header_listener *listener, void *owner) {
    const unsigned char *const at = (const unsigned char *)block;
    struct reading reading = {decoder, at, at + count, listener, owner};
    if (h2_reserve(&decoder->decoded, huffman_room(count)) < 0) return -1;
    const int failed = take_fields(&reading);
    h2_take(&decoder->decoded, h2_held(&decoder->decoded));
    return failed;
}
