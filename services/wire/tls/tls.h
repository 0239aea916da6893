/* TLS as the framing uses it: bytes are encrypted and decrypted in memory, and whoever has the
 * socket carries them.
 *
 * The module services.wire.tls._tls alone knows OpenSSL. Others reach it by the calls that each
 * context and session begins with, so that they are built, and run, where there is none. */

#ifndef MOESAIC_TLS_H
#define MOESAIC_TLS_H

#include <stddef.h>
#include <sys/types.h>
#include <sys/uio.h>

struct tls_calls;

/* Who a side is, and whom it believes. Counted, and never changed; any thread may use it. */
struct tls_context {
    const struct tls_calls *calls;
    /* The rest is the module's own; see context.h. */
};

/* Of one connection, and of one thread at a time. */
struct tls_session {
    const struct tls_calls *calls;
    /* The rest is the module's own; see session.h. */
};

struct tls_calls {
    void (*hold)(struct tls_context *);
    void (*release)(struct tls_context *);
    /* A connection's, which holds the context. `host` is whom a client wants to speak with, a name
     * or an IP address: the certificate has to be for it. NULL without memory, or where `host` is
     * no name. */
    struct tls_session *(*begin)(struct tls_context *, const char *host);
    void (*end)(struct tls_session *);

    /* Where bytes from the socket go, and how many at most; then how many came. There is room
     * unless `has_more`. */
    size_t (*room)(struct tls_session *, char **at);
    void (*fill)(struct tls_session *, size_t count);
    /* Decrypts to the vectors. How many bytes; 0 where more has to come first; -1 where nothing
     * more will: see `why`. The handshake goes on by it. */
    ssize_t (*read)(struct tls_session *, const struct iovec *, int num_vectors);
    /* Whether `read` would do something without more bytes from the socket. */
    int (*has_more)(const struct tls_session *);

    /* Encrypts what the vectors have behind their first `skip` bytes, as far as there is room for
     * it. How many bytes, or -1. During the handshake none, and the handshake goes on. */
    ssize_t (*write)(struct tls_session *, const struct iovec *, int num_vectors, size_t skip);
    /* What is to be written to the socket, and that so much of it was. */
    size_t (*unsent)(const struct tls_session *, const char **at);
    void (*sent)(struct tls_session *, size_t count);
    /* Says that nothing more is written. */
    void (*finish)(struct tls_session *);

    /* Whether the handshake is over, and the peer who it should be. */
    int (*is_established)(const struct tls_session *);
    /* Whom the peer's certificate names, line by line: the common name, which may be empty, then
     * each URI. NULL before the handshake is over, or where it has shown none. */
    const char *(*peer)(const struct tls_session *);
    /* Why the session is over, as words for a log; NULL where it goes on. */
    const char *(*why)(const struct tls_session *);
};

#endif
