/* Header blocks of random representations of fields, altered, as a connection has them. */

#ifndef MOESAIC_TESTS_ALTERED_BLOCKS_H
#define MOESAIC_TESTS_ALTERED_BLOCKS_H

#include "draw.h"
#include "services/wire/http2/header_decoder.h"
#include "sessions.h"

/* A number whose first byte has as many bits for it, and others for what it is of. */
static size_t put_number(char *at, unsigned kind, unsigned bits, uint32_t number) {
    const uint32_t most = (1u << bits) - 1;
    size_t used = 1;
    at[0] = (char)(kind | (number < most ? number : most));
    if (number < most) return used;
    for (number -= most; number > 127; number >>= 7) at[used++] = (char)(number | 128);
    at[used++] = (char)number;
    return used;
}

/* Plain, or as codes, of which eight in five bytes are mostly whole. */
static size_t put_characters(char *at) {
    const int is_code = draw(2);
    const uint32_t length = draw(8) ? draw(20) : draw(2000);
    const uint32_t count = is_code && draw(20) ? length / 5 * 5 : length;
    const size_t used = put_number(at, is_code ? 128 : 0, 7, count);
    for (uint32_t i = 0; i < count; i++)
        at[used + i] = (char)(is_code && draw(200) ? 0 : draw(256));
    return used + count;
}

static size_t put_representation(char *at) {
    const uint32_t place = draw(8) ? 1 + draw(61) : 62 + draw(draw(20) ? 2 : 200);
    const unsigned is_named = draw(2);
    size_t used;
    switch (draw(4)) {
    case 0: return put_number(at, 128, 7, place);
    case 1: used = put_number(at, 64, 6, is_named ? place : 0); break;
    default: used = put_number(at, draw(2) ? 16 : 0, 4, is_named ? place : 0);
    }
    if (!is_named) used += put_characters(at + used);
    return used + put_characters(at + used);
}

static size_t put_block(char *block) {
    size_t used = draw(6) ? 0 : put_number(block, 32, 5, draw(2) ? draw(5000) : draw(200));
    for (uint32_t fields = draw(12); fields; fields--) used += put_representation(block + used);
    return draw(3) || !used ? used : alter(block, used);
}

#endif
