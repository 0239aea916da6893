/* One connection's TLS: the handshake, and what is encrypted and decrypted after it. */

#include "session.h"

#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Steps in a row, without a byte of data, of which a change of keys or a ticket takes several. */
#define MAX_ASIDES 128
/* First bytes of what TLS sends first: an alert, or the handshake. */
#define ALERT 0x15
#define HANDSHAKE 0x16

static ssize_t fail(struct session *session, const char *what, const char *why) {
    if (!*session->why) snprintf(session->why, sizeof session->why, "%s%s", what, why);
    ERR_clear_error();
    return -1;
}

static const char *reason(unsigned long error) {
    const char *const text = ERR_reason_error_string(error);
    return text ? text : "for a reason that OpenSSL does not say";
}

/* After a call of OpenSSL that did nothing: 0 where it waits for the peer, or -1. */
static ssize_t judge(struct session *session, int result) {
    const int error = SSL_get_error(session->ssl, result);
    const unsigned long said = ERR_peek_error();
    const long verified = SSL_get_verify_result(session->ssl);
    if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) return 0;
    if (error == SSL_ERROR_ZERO_RETURN) return fail(session, "the peer closed the connection", "");
    if (verified != X509_V_OK)
        return fail(session,
                    "the peer's certificate is refused: ", X509_verify_cert_error_string(verified));
    if (ERR_GET_LIB(said) == ERR_LIB_SSL && ERR_GET_REASON(said) >= SSL_AD_REASON_OFFSET)
        return fail(session, "the peer gave TLS up: ", reason(said));
    return fail(session, "TLS with the peer failed: ", reason(said));
}

/* The handshake is over: whether the peer is one to go on with. */
static ssize_t look_at_peer(struct session *session) {
    const unsigned char *protocol;
    unsigned int count;
    SSL_get0_alpn_selected(session->ssl, &protocol, &count);
    if (count != 2 || memcmp(protocol, "h2", 2))
        return fail(session, "the peer does not agree to HTTP/2 over TLS", "");
    X509 *const certificate = SSL_get1_peer_certificate(session->ssl);
    if (certificate) {
        session->peer = names_of(certificate);
        X509_free(certificate);
        if (!session->peer) return fail(session, "the peer's certificate has too many names", "");
    }
    session->is_established = true;
    session->num_asides = 0;
    return 0;
}

static ssize_t shake_hands(struct session *session) {
    if (*session->why) return -1;
    ERR_clear_error();
    const int result = SSL_do_handshake(session->ssl);
    return result == 1 ? look_at_peer(session) : judge(session, result);
}

static size_t room(struct tls_session *shown, char **at) {
    struct ring *const in = &session_of(shown)->in;
    memmove(in->data, in->data + in->start, in->end - in->start);
    in->end -= in->start;
    in->start = 0;
    *at = in->data + in->end;
    return IN_BYTES - in->end;
}

static void fill(struct tls_session *shown, size_t count) {
    struct session *const session = session_of(shown);
    const char first = session->in.data[session->in.start];
    session->in.end += count;
    if (!session->has_first && first != HANDSHAKE && first != ALERT)
        fail(session, "the peer does not speak TLS", "");
    session->has_first = true;
}

/* Whether a read would find more; to ask OpenSSL costs as much as a short record does. */
static bool is_more(struct session *session) {
    session->is_full = session->in.start < session->in.end || SSL_pending(session->ssl);
    return session->is_full;
}

/* As much as there is for one vector; how much. */
static size_t read_to(struct session *session, const struct iovec *into) {
    size_t done = 0, got = 0;
    while (done < into->iov_len) {
        char *const at = (char *)into->iov_base + done;
        const int result = SSL_read_ex(session->ssl, at, into->iov_len - done, &got);
        if (result != 1) {
            session->is_full = false;
            judge(session, result);
            break;
        }
        done += got;
        if (!is_more(session)) break;
    }
    if (done) session->num_asides = 0;
    return done;
}

static ssize_t read_plain(struct tls_session *shown, const struct iovec *into, int num_vectors) {
    struct session *const session = session_of(shown);
    size_t done = 0;
    if (*session->why) return -1;
    if (!session->is_established && shake_hands(session) < 0) return -1;
    if (!session->is_established) return 0;
    ERR_clear_error();
    session->is_full = true;
    for (int i = 0; i < num_vectors && session->is_full; i++) done += read_to(session, into + i);
    if (session->num_asides > MAX_ASIDES) fail(session, "the peer sends nothing but TLS", "");
    return done || !*session->why ? (ssize_t)done : -1;
}

static int has_more(const struct tls_session *shown) {
    const struct session *const session = (const struct session *)shown;
    return session->is_full || *session->why;
}

/* What is left of the vectors. */
struct rest {
    const struct iovec *next, *end;
    size_t offset;
};

static void skip_over(struct rest *rest, size_t count) {
    rest->offset += count;
    while (rest->next < rest->end && rest->offset >= rest->next->iov_len)
        rest->offset -= rest->next++->iov_len;
}

/* The next bytes for one record: where they lie if there are enough, or gathered; none at the end.
 */
static struct iovec take_piece(struct rest *rest, char *gathered) {
    struct iovec piece = {gathered, 0};
    while (rest->next < rest->end && piece.iov_len < RECORD_BYTES) {
        char *const at = (char *)rest->next->iov_base + rest->offset;
        const size_t held = rest->next->iov_len - rest->offset;
        const size_t most = RECORD_BYTES - piece.iov_len, count = held < most ? held : most;
        const bool is_whole = !piece.iov_len && (held >= most || rest->next + 1 == rest->end);
        skip_over(rest, count);
        if (is_whole) return (struct iovec){at, count};
        memcpy(gathered + piece.iov_len, at, count);
        piece.iov_len += count;
    }
    return piece;
}

static bool has_room(const struct session *session) {
    return OUT_BYTES - session->out.end >= RECORD_BYTES + RECORD_MORE_BYTES;
}

static ssize_t write_plain(struct tls_session *shown, const struct iovec *vectors, int num_vectors,
                           size_t skip) {
    struct session *const session = session_of(shown);
    struct rest rest = {vectors, vectors + num_vectors, 0};
    char gathered[RECORD_BYTES];
    size_t done = 0, taken;
    if (!session->is_established && shake_hands(session) < 0) return -1;
    if (*session->why) return -1;
    skip_over(&rest, skip);
    ERR_clear_error();
    while (session->is_established && has_room(session)) {
        const struct iovec piece = take_piece(&rest, gathered);
        if (!piece.iov_len) break;
        const int result = SSL_write_ex(session->ssl, piece.iov_base, piece.iov_len, &taken);
        if (result != 1 || taken < piece.iov_len) {
            judge(session, result);
            return fail(session, "TLS takes no more", "");
        }
        done += taken;
    }
    return (ssize_t)done;
}

static size_t unsent(const struct tls_session *shown, const char **at) {
    const struct ring *const out = &((const struct session *)shown)->out;
    *at = out->data + out->start;
    return out->end - out->start;
}

static void sent(struct tls_session *shown, size_t count) {
    struct ring *const out = &session_of(shown)->out;
    out->start += count;
    if (out->start == out->end) out->start = out->end = 0;
}

static void finish(struct tls_session *shown) {
    struct session *const session = session_of(shown);
    if (session->is_established && !*session->why) SSL_shutdown(session->ssl);
    ERR_clear_error();
}

static int is_established(const struct tls_session *shown) {
    return ((const struct session *)shown)->is_established;
}

static const char *peer(const struct tls_session *shown) {
    return ((const struct session *)shown)->peer;
}

static const char *why(const struct tls_session *shown) {
    const char *const words = ((const struct session *)shown)->why;
    return *words ? words : NULL;
}

/* Whom the certificate has to be for: an address, or else a name, which the server is told. */
static bool expect(SSL *ssl, const char *host) {
    X509_VERIFY_PARAM *const rules = SSL_get0_param(ssl);
    if (X509_VERIFY_PARAM_set1_ip_asc(rules, host)) return true;
    SSL_set_hostflags(ssl,
                      X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS | X509_CHECK_FLAG_NEVER_CHECK_SUBJECT);
    return *host && SSL_set1_host(ssl, host) && SSL_set_tlsext_host_name(ssl, host);
}

static bool set_up(struct session *session, const char *host) {
    SSL *const ssl = session->ssl = SSL_new(session->context->ssl);
    BIO *const transport = ssl ? transport_for(session) : NULL;
    if (!transport) return false;
    SSL_set_bio(ssl, transport, transport); /* takes it over */
    SSL_set_app_data(ssl, session);
    if (session->context->is_server) {
        SSL_set_accept_state(ssl);
        return true;
    }
    SSL_set_connect_state(ssl);
    return host && expect(ssl, host);
}

static void end(struct tls_session *shown) {
    struct session *const session = session_of(shown);
    SSL_free(session->ssl);
    OPENSSL_free(session->peer);
    context_release(&session->context->shown);
    free(session);
}

static struct tls_session *begin(struct tls_context *context, const char *host) {
    struct session *const session = malloc(sizeof *session);
    if (!session) return NULL;
    memset(session, 0, offsetof(struct session, in_data)); /* the rest is touched as it is needed */
    session->shown.calls = &session_calls;
    session->in.data = session->in_data;
    session->out.data = session->out_data;
    session->context = (struct context *)context;
    context_hold(context);
    if (set_up(session, host)) return &session->shown;
    ERR_clear_error();
    end(&session->shown);
    return NULL;
}

const struct tls_calls session_calls = {
    .hold = context_hold,
    .release = context_release,
    .begin = begin,
    .end = end,
    .room = room,
    .fill = fill,
    .read = read_plain,
    .has_more = has_more,
    .write = write_plain,
    .unsent = unsent,
    .sent = sent,
    .finish = finish,
    .is_established = is_established,
    .peer = peer,
    .why = why,
};
