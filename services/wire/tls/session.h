/* What the files of TLS share about a session. */

#ifndef MOESAIC_TLS_SESSION_H
#define MOESAIC_TLS_SESSION_H

#include "context.h"

/* A record's plain bytes at most, and what TLS adds to them at most (RFC 8446, section 5.2, and RFC
 * 5246, section 6.2.3, with the header). */
#define RECORD_BYTES ((size_t)16384)
#define RECORD_MORE_BYTES ((size_t)2048 + 5)
/* Encrypted bytes that came, and that have to go: some records, so that a layer's message takes few
 * calls of the system. The latter have room for a whole flight of the handshake. */
#define IN_BYTES ((size_t)131072)
#define OUT_BYTES (8 * (RECORD_BYTES + RECORD_MORE_BYTES))

struct ring {
    char *data;
    size_t start, end;
};

struct session {
    struct tls_session shown; /* comes first: its address is the session's */
    struct context *context;
    SSL *ssl;
    /* The handshake is over and the peer who it should be; the last read ended for want of room. */
    bool is_established, is_full;
    bool has_first; /* the peer's first byte was looked at */
    int num_asides; /* steps of TLS itself since the last byte of data */
    char *peer;
    char why[256];
    struct ring in, out;
    char in_data[IN_BYTES], out_data[OUT_BYTES];
};

static inline struct session *session_of(struct tls_session *shown) {
    return (struct session *)shown;
}

/* transport.c. OpenSSL's way to `in` and `out`; NULL without memory. */
BIO *transport_for(struct session *);

/* peer.c. Whom the certificate names, as `peer` in tls.h has it, to be freed; NULL without memory,
 * or where that is more than anybody needs. */
char *names_of(X509 *);

extern const struct tls_calls session_calls;

#endif
