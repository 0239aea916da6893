/* How OpenSSL gets at a session's bytes: as from and to a socket that does not block. */

#include "session.h"

#include <pthread.h>
#include <string.h>

static BIO_METHOD *method;

static int read_in(BIO *bio, char *into, int count) {
    struct ring *const in = &((struct session *)BIO_get_data(bio))->in;
    const size_t held = in->end - in->start, most = (size_t)count;
    BIO_clear_retry_flags(bio);
    if (!held) {
        BIO_set_retry_read(bio);
        return -1;
    }
    const size_t taken = held < most ? held : most;
    memcpy(into, in->data + in->start, taken);
    in->start += taken;
    if (in->start == in->end) in->start = in->end = 0;
    return (int)taken;
}

/* There is room for each record by the time it is made: `write` sees to it. */
static int write_out(BIO *bio, const char *data, int count) {
    struct ring *const out = &((struct session *)BIO_get_data(bio))->out;
    BIO_clear_retry_flags(bio);
    if ((size_t)count > OUT_BYTES - out->end) return -1;
    memcpy(out->data + out->end, data, (size_t)count);
    out->end += (size_t)count;
    return count;
}

static long control(BIO *bio, int command, long number, void *pointer) {
    (void)bio, (void)number, (void)pointer;
    return command == BIO_CTRL_FLUSH;
}

static int create(BIO *bio) {
    BIO_set_init(bio, 1);
    return 1;
}

static void make_method(void) {
    BIO_METHOD *const made = BIO_meth_new(BIO_TYPE_SOURCE_SINK | BIO_get_new_index(), "moesaic");
    if (made && BIO_meth_set_read(made, read_in) && BIO_meth_set_write(made, write_out) &&
        BIO_meth_set_ctrl(made, control) && BIO_meth_set_create(made, create))
        method = made;
}

BIO *transport_for(struct session *session) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, make_method);
    BIO *const bio = method ? BIO_new(method) : NULL;
    if (bio) BIO_set_data(bio, session);
    return bio;
}
