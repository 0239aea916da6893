/* From PEM to OpenSSL's own context. */

#include "context.h"

#include "session.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <stdlib.h>
#include <string.h>

/* What is made of AES by instructions of its own is fast; those without them ask for the last. */
#define CIPHERS_13 "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
/* Of TLS 1.2, those that HTTP/2 does not forbid (RFC 9113, appendix A). */
#define CIPHERS_12 "ECDHE+AESGCM:ECDHE+CHACHA20"

static const unsigned char OURS[] = {2, 'h', '2'};

/* Nobody is asked for a password. */
static int no_password(char *into, int room, int is_written, void *data) {
    (void)into, (void)room, (void)is_written, (void)data;
    return -1;
}

static int choose_protocol(SSL *ssl, const unsigned char **chosen, unsigned char *count,
                           const unsigned char *offered, unsigned int num_offered, void *data) {
    (void)ssl, (void)data;
    unsigned char *found;
    if (SSL_select_next_proto(&found, count, OURS, sizeof OURS, offered, num_offered) !=
        OPENSSL_NPN_NEGOTIATED)
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    *chosen = found;
    return SSL_TLSEXT_ERR_OK;
}

/* A step of what TLS itself says or hears: a peer that sends nothing else is given up. */
static void note_aside(const SSL *ssl, int where, int value) {
    (void)value;
    struct session *const session = SSL_get_app_data(ssl);
    if (where & SSL_CB_LOOP && session) session->num_asides++;
}

/* Sessions are not resumed: each connection shows its certificates, and has them judged anew. */
static bool set_rules(SSL_CTX *ssl, bool is_server) {
    SSL_CTX_set_mode(ssl, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_options(ssl, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_TICKET | SSL_OP_NO_COMPRESSION |
                                 SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA);
    SSL_CTX_set_session_cache_mode(ssl, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_info_callback(ssl, note_aside);
    if (is_server) SSL_CTX_set_alpn_select_cb(ssl, choose_protocol, NULL);
    return SSL_CTX_set_num_tickets(ssl, 0) && SSL_CTX_set_min_proto_version(ssl, TLS1_2_VERSION) &&
           SSL_CTX_set_ciphersuites(ssl, CIPHERS_13) && SSL_CTX_set_cipher_list(ssl, CIPHERS_12) &&
           SSL_CTX_set_alpn_protos(ssl, OURS, sizeof OURS) == 0;
}

static BIO *reading(struct pem pem) { return BIO_new_mem_buf(pem.data, (int)pem.count); }

/* Whether the reader came to the end of what can be read, rather than to what cannot. */
static bool is_at_end(void) {
    const unsigned long error = ERR_peek_last_error();
    ERR_clear_error();
    return ERR_GET_LIB(error) == ERR_LIB_PEM && ERR_GET_REASON(error) == PEM_R_NO_START_LINE;
}

static X509 *next_certificate(BIO *bio) { return PEM_read_bio_X509(bio, NULL, no_password, NULL); }

static bool use_certificate(SSL_CTX *ssl, struct pem pem) {
    BIO *const bio = reading(pem);
    X509 *next = bio ? next_certificate(bio) : NULL;
    bool is_used = next && SSL_CTX_use_certificate(ssl, next);
    X509_free(next);
    while (is_used && (next = next_certificate(bio))) {
        is_used = SSL_CTX_add0_chain_cert(ssl, next); /* takes it over */
        if (!is_used) X509_free(next);
    }
    BIO_free(bio);
    return is_used && is_at_end();
}

static bool use_key(SSL_CTX *ssl, struct pem pem) {
    BIO *const bio = reading(pem);
    EVP_PKEY *const key = bio ? PEM_read_bio_PrivateKey(bio, NULL, no_password, NULL) : NULL;
    const bool is_used = key && SSL_CTX_use_PrivateKey(ssl, key);
    EVP_PKEY_free(key);
    BIO_free(bio);
    return is_used;
}

static bool believe(SSL_CTX *ssl, struct pem pem) {
    BIO *const bio = reading(pem);
    X509_STORE *const store = SSL_CTX_get_cert_store(ssl);
    int num_added = 0;
    X509 *next;
    bool is_added = bio && store;
    while (is_added && (next = next_certificate(bio))) {
        is_added = X509_STORE_add_cert(store, next); /* counts it once more */
        X509_free(next);
        num_added++;
    }
    BIO_free(bio);
    return is_added && is_at_end() && num_added;
}

/* NULL, or what is wrong. */
static const char *set_up(struct context *context, struct pem certificate, struct pem key,
                          struct pem authority) {
    SSL_CTX *const ssl = context->ssl;
    if (!set_rules(ssl, context->is_server)) return "OpenSSL lacks what is needed of it";
    if (certificate.count && !use_certificate(ssl, certificate))
        return "the certificate cannot be read as PEM";
    if (key.count && !use_key(ssl, key))
        return "the key cannot be read as PEM without a password, or is not the certificate's";
    if ((certificate.count || key.count || context->is_server) && !SSL_CTX_check_private_key(ssl))
        return "the key is not the certificate's";
    if (authority.count && !believe(ssl, authority))
        return "the authority's certificates cannot be read as PEM";
    if (!authority.count && context->is_server) return NULL;
    if (!authority.count && !SSL_CTX_set_default_verify_paths(ssl))
        return "the system's authorities cannot be read";
    SSL_CTX_set_verify(ssl, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    return NULL;
}

struct context *context_make(bool is_server, struct pem certificate, struct pem key,
                             struct pem authority, const char **why) {
    struct context *const context = calloc(1, sizeof *context);
    *why = "there is no memory";
    if (!context) return NULL;
    context->shown.calls = &session_calls;
    context->is_server = is_server;
    context->num_holders = 1;
    context->ssl = SSL_CTX_new(is_server ? TLS_server_method() : TLS_client_method());
    if (context->ssl) *why = set_up(context, certificate, key, authority);
    ERR_clear_error();
    if (!*why) return context;
    context_release(&context->shown);
    return NULL;
}

void context_hold(struct tls_context *shown) {
    atomic_fetch_add(&((struct context *)shown)->num_holders, 1);
}

void context_release(struct tls_context *shown) {
    struct context *const context = (struct context *)shown;
    if (atomic_fetch_sub(&context->num_holders, 1) > 1) return;
    SSL_CTX_free(context->ssl);
    free(context);
}
