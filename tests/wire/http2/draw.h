/* Random numbers that a seed repeats, and messages that say themselves what they have to be. */

#ifndef MOESAIC_TESTS_DRAW_H
#define MOESAIC_TESTS_DRAW_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static uint64_t draw_state = 1;

static inline uint32_t draw(uint32_t below) {
    draw_state = draw_state * 6364136223846793005u + 1442695040888963407u;
    return below ? (uint32_t)(draw_state >> 33) % below : 0;
}

/* The byte at this place of a message with this number. */
static inline char byte_of(uint64_t number, size_t place) {
    const uint64_t mixed = (number * 0x9e3779b97f4a7c15u + place / 7) * 0xbf58476d1ce4e5b9u;
    return (char)(mixed >> 56);
}

static inline void fill(char *data, size_t count, uint64_t number) {
    for (size_t i = 0; i < count; i++) data[i] = byte_of(number, i);
}

static inline int is_filled(const char *data, size_t count, uint64_t number) {
    for (size_t i = 0; i < count; i++)
        if (data[i] != byte_of(number, i)) return 0;
    return 1;
}

#endif
