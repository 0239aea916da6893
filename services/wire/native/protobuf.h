/* Protobuf's wire format, as far as frames and replies need it: plain C, nothing of Python.
 *
 * Numbers of fields are those of protos/moesaic/v1/expert.proto, all below 16, so that a tag is one
 * byte. What is read is any bytes at all: nothing beyond `end` is looked at, and lengths are
 * compared before they are added. */

#ifndef MOESAIC_PROTOBUF_H
#define MOESAIC_PROTOBUF_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum wire_type { VARINT = 0, LENGTH_DELIMITED = 2, FIXED32 = 5 };

#define TAG(field, type) ((field) << 3 | (type))
#define MOST_VARINT_BYTES 10
#define WORD_BYTES 4

/* DispatchRequest.frame and DispatchResponse.reply. */
#define BODY 1

struct bytes {
    const char *data;
    size_t count;
};

/* Counts what is put into it, and writes it where `at` is not NULL: a message is put twice, to know
 * its size first. */
struct sink {
    char *at;
    size_t count;
};

static inline void put(struct sink *to, const char *data, size_t count) {
    if (to->at) to->at = (char *)memcpy(to->at, data, count) + count;
    to->count += count;
}

static inline void put_varint(struct sink *to, uint64_t value) {
    char written[MOST_VARINT_BYTES];
    size_t count = 0;
    for (; value > 0x7f; value >>= 7) written[count++] = (char)(value | 0x80);
    written[count++] = (char)value;
    put(to, written, count);
}

/* What stands before a payload of `count` bytes. */
static inline void put_header(struct sink *to, int field, size_t count) {
    put_varint(to, TAG(field, LENGTH_DELIMITED));
    put_varint(to, count);
}

/* As all that follow: a zero is not written. */
static inline void put_number(struct sink *to, int field, uint64_t value) {
    if (!value) return;
    put_varint(to, TAG(field, VARINT));
    put_varint(to, value);
}

static inline void put_bytes(struct sink *to, int field, struct bytes bytes) {
    if (!bytes.count) return;
    put_header(to, field, bytes.count);
    put(to, bytes.data, bytes.count);
}

/* `count` bytes of a number, little-endian. */
static inline void put_fixed(struct sink *to, uint64_t value, size_t count) {
    char written[sizeof value];
    for (size_t i = 0; i < count; i++) written[i] = (char)(value >> 8 * i);
    put(to, written, count);
}

static inline void put_checksum(struct sink *to, int field, uint32_t checksum) {
    put_varint(to, TAG(field, FIXED32));
    put_fixed(to, checksum, WORD_BYTES);
}

/* What is left to read. */
struct reader {
    const unsigned char *at, *end;
};

static inline struct reader reader_of(struct bytes bytes) {
    const unsigned char *const start = (const unsigned char *)bytes.data;
    return (struct reader){start, start + bytes.count};
}

/* These return whether there was such a thing to read. */

static inline int read_varint(struct reader *from, uint64_t *value) {
    *value = 0;
    for (int shift = 0; shift < 7 * MOST_VARINT_BYTES && from->at < from->end; shift += 7) {
        const uint64_t byte = *from->at++;
        if (shift == 63 && byte > 1) return 0; /* more than 64 bits */
        *value |= (byte & 0x7f) << shift;
        if (byte <= 0x7f) return 1;
    }
    return 0;
}

/* A number of 32 bits without a sign, or an enum's that is not negative and has 31. */
static inline int read_word(struct reader *from, uint32_t most, uint32_t *value) {
    uint64_t found;
    if (!read_varint(from, &found) || found > most) return 0;
    *value = (uint32_t)found;
    return 1;
}

static inline int read_fixed32(struct reader *from, uint32_t *value) {
    if (from->end - from->at < WORD_BYTES) return 0;
    *value = 0;
    for (int i = 0; i < WORD_BYTES; i++) *value |= (uint32_t)*from->at++ << 8 * i;
    return 1;
}

static inline int read_bytes(struct reader *from, struct bytes *bytes) {
    uint64_t count;
    if (!read_varint(from, &count) || count > (uint64_t)(from->end - from->at)) return 0;
    *bytes = (struct bytes){(const char *)from->at, (size_t)count};
    from->at += count;
    return 1;
}

/* Reads a tag of a field that was not yet `seen`; 0 for any other, which no field has. */
static inline int read_new_tag(struct reader *from, uint32_t *seen) {
    const int tag =
        *from->at++; /* a longer one, of a field from 16 on, is one that the caller does not know */
    const uint32_t field = UINT32_C(1) << (tag >> 3);
    if (*seen & field) return 0;
    *seen |= field;
    return tag;
}

#endif
