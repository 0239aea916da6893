/* The Huffman code of header blocks, RFC 7541, appendix B. */

#ifndef MOESAIC_HTTP2_HUFFMAN_H
#define MOESAIC_HTTP2_HUFFMAN_H

#include <stddef.h>
#include <sys/types.h>

/* The most that as many bytes of code stand for: no character has less than five bits. */
static inline size_t huffman_room(size_t count) { return count * 8 / 5; }

/* Puts what the code stands for to `out`. How many bytes those are, or -1 for what is none. */
ssize_t huffman_decode(const char *code, size_t count, char *out);

#endif
