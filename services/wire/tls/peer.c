/* Whom a certificate names. */

#include "session.h"

#include <openssl/x509v3.h>
#include <string.h>

/* Of all names together. */
#define MAX_NAMES_BYTES ((size_t)4096)

struct names {
    char text[MAX_NAMES_BYTES];
    size_t count;
    bool is_too_long;
};

/* Printable ASCII alone: what else is in a name could pass for another one, or for two. */
static bool is_plain(const unsigned char *data, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (data[i] < 0x20 || data[i] > 0x7e) return false;
    return true;
}

static void add(struct names *names, const unsigned char *data, size_t count) {
    if (count >= sizeof names->text - names->count) {
        names->is_too_long = true;
        return;
    }
    memcpy(names->text + names->count, data, count);
    names->count += count;
}

static void add_common_name(struct names *names, X509 *certificate) {
    X509_NAME *const subject = X509_get_subject_name(certificate);
    const int at = subject ? X509_NAME_get_index_by_NID(subject, NID_commonName, -1) : -1;
    /* Of several none is more the name than the others. */
    if (at < 0 || X509_NAME_get_index_by_NID(subject, NID_commonName, at) >= 0) return;
    unsigned char *text;
    ASN1_STRING *const entry = X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at));
    const int count = ASN1_STRING_to_UTF8(&text, entry);
    if (count < 0) return;
    if (is_plain(text, (size_t)count)) add(names, text, (size_t)count);
    OPENSSL_free(text);
}

static void add_uris(struct names *names, X509 *certificate) {
    GENERAL_NAMES *const all = X509_get_ext_d2i(certificate, NID_subject_alt_name, NULL, NULL);
    for (int i = 0; i < sk_GENERAL_NAME_num(all); i++) {
        const GENERAL_NAME *const name = sk_GENERAL_NAME_value(all, i);
        if (name->type != GEN_URI) continue;
        const ASN1_IA5STRING *const uri = name->d.uniformResourceIdentifier;
        const unsigned char *const data = ASN1_STRING_get0_data(uri);
        const size_t count = (size_t)ASN1_STRING_length(uri);
        if (!is_plain(data, count)) continue;
        add(names, (const unsigned char *)"\n", 1);
        add(names, data, count);
    }
    GENERAL_NAMES_free(all);
}

char *names_of(X509 *certificate) {
    struct names names = {.count = 0};
    add_common_name(&names, certificate);
    add_uris(&names, certificate);
    return names.is_too_long ? NULL : OPENSSL_strndup(names.text, names.count);
}
