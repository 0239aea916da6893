/* Header blocks for tests, of fields that no table takes in: RFC 7541, section 6.2.3. */

#ifndef MOESAIC_TESTS_BLOCKS_H
#define MOESAIC_TESTS_BLOCKS_H

#include <string.h>

struct block {
    char data[512];
    size_t count;
};

static inline void put_text(struct block *block, const char *text) {
    const size_t length = strlen(text); /* below 127: one byte says it */
    block->data[block->count++] = (char)length;
    memcpy(block->data + block->count, text, length);
    block->count += length;
}

static inline void put_field(struct block *block, const char *name, const char *value) {
    block->data[block->count++] = 0x10;
    put_text(block, name);
    put_text(block, value);
}

static inline struct block request_block(const char *path) {
    struct block block = {.count = 0};
    put_field(&block, ":method", "POST");
    put_field(&block, ":scheme", "http");
    put_field(&block, ":path", path);
    put_field(&block, ":authority", "localhost");
    put_field(&block, "te", "trailers");
    put_field(&block, "content-type", "application/grpc");
    return block;
}

static inline struct block response_block(void) {
    struct block block = {.count = 0};
    put_field(&block, ":status", "200");
    put_field(&block, "content-type", "application/grpc");
    return block;
}

static inline struct block trailers_block(const char *status) {
    struct block block = {.count = 0};
    put_field(&block, "grpc-status", status);
    put_field(&block, "grpc-message", "as tested");
    return block;
}

static inline struct block refusal_block(const char *status) {
    struct block block = response_block();
    put_field(&block, "grpc-status", status);
    return block;
}

#endif
