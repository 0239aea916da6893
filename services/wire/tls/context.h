/* What a side shows and believes, made of PEM. */

#ifndef MOESAIC_TLS_CONTEXT_H
#define MOESAIC_TLS_CONTEXT_H

#include "tls.h"

#include <openssl/ssl.h>
#include <stdatomic.h>
#include <stdbool.h>

struct context {
    struct tls_context shown; /* comes first: its address is the context's */
    SSL_CTX *ssl;
    bool is_server;
    _Atomic size_t num_holders;
};

/* PEM, of which `data` may be NULL. */
struct pem {
    const char *data;
    size_t count;
};

/* `certificate` is a chain that begins with the own one, to which `key` belongs. A client may do
 * without both. With an `authority` the peer has to have a certificate of it; without one, a client
 * asks for one of an authority that the system knows, and a server for none.
 *
 * One holder has it. NULL with `*why` set: words that say what is wrong with which of them. */
struct context *context_make(bool is_server, struct pem certificate, struct pem key,
                             struct pem authority, const char **why);
void context_hold(struct tls_context *);
void context_release(struct tls_context *);

#endif
