/* Sessions as peers have them with the framing, of random frames, and altered. */

#ifndef MOESAIC_TESTS_SESSIONS_H
#define MOESAIC_TESTS_SESSIONS_H

#include "draw.h"
#include "services/wire/http2/frames.h"

static size_t put(char *at, uint32_t count, int type, int flags, uint32_t stream) {
    h2_put_frame(at, (struct h2_frame){count, (uint8_t)type, (uint8_t)flags, stream});
    return H2_FRAME_HEADER_BYTES + count;
}

/* The peer of this session, which mostly keeps to the rules. */
static struct {
    int is_client;
    uint32_t num_opened;
    uint32_t left[16]; /* of the message that each stream is in */
    char has_ended[16];
} peer;

static uint32_t open_stream(void) {
    for (int tries = 0; tries < 4; tries++) {
        const uint32_t number = draw(peer.num_opened + 1);
        if (number < peer.num_opened && !peer.has_ended[number]) return 2 * number + 1;
    }
    return draw(50) ? 1 : draw(40);
}

/* Messages, the last of which may go on in the stream's next frame. */
static uint32_t put_messages(char *at, uint32_t *left) {
    uint32_t used = *left < 900 ? *left : draw(900);
    *left -= used;
    for (uint32_t i = draw(3); i && !*left; i--) {
        const uint32_t length = draw(30) ? draw(200) : draw(20000);
        const uint32_t most = draw(3) ? length : draw(length + 1), now = most < 5000 ? most : 5000;
        at[used] = draw(200) ? 0 : 1;
        h2_put_word(at + used + 1, length);
        used += H2_MESSAGE_PREFIX_BYTES + now;
        *left = length - now;
    }
    return used;
}

static size_t put_data(char *at, uint32_t stream) {
    uint32_t *left = &peer.left[stream / 2 % 16];
    char *payload = at + H2_FRAME_HEADER_BYTES;
    if (draw(8)) {
        const uint32_t used = put_messages(payload, left);
        const int ends = (!*left && !draw(8)) || !draw(100);
        peer.has_ended[stream / 2 % 16] = (char)ends;
        return put(at, used, H2_DATA, ends, stream);
    }
    const uint32_t padding = draw(256);
    *payload = (char)padding;
    return put(at, 1 + put_messages(payload + 1, left) + padding, H2_DATA, H2_PADDED, stream);
}

static size_t put_headers(char *at) {
    uint32_t stream = open_stream(), flags = draw(8) ? 0 : H2_END_STREAM;
    if (peer.is_client && peer.num_opened < 16 && draw(20)) stream = 2 * peer.num_opened++ + 1;
    peer.has_ended[stream / 2 % 16] = (char)flags;
    if (draw(3)) return put(at, draw(80), H2_HEADERS, (int)flags | H2_END_HEADERS, stream);
    at[H2_FRAME_HEADER_BYTES] = (char)draw(20);
    if (draw(2)) flags |= H2_PADDED;
    if (draw(2)) flags |= H2_PRIORITISED;
    const size_t used = put(at, 30 + draw(200), H2_HEADERS, (int)flags, stream);
    return used + put(at + used, draw(200), H2_CONTINUATION, draw(20) ? H2_END_HEADERS : 0, stream);
}

static size_t put_settings(char *at) {
    static const uint32_t usual[] = {0, 0, 0, 100, 0, 16384, 1000, 5};
    const uint32_t ids = draw(4);
    for (uint32_t i = 0; i < ids; i++) {
        char *setting = at + H2_FRAME_HEADER_BYTES + i * H2_SETTING_BYTES;
        const uint32_t id = draw(8), more = draw(8) ? draw(70000) : draw(1u << 31);
        setting[0] = 0;
        setting[1] = (char)id;
        h2_put_word(setting + 2, usual[id] + (id == 2 ? 0 : more));
    }
    return put(at, ids * H2_SETTING_BYTES, H2_SETTINGS, 0, 0);
}

static size_t put_control(char *at) {
    char *payload = at + H2_FRAME_HEADER_BYTES;
    for (int i = 0; i < 8; i++) payload[i] = 0;
    switch (draw(8)) {
    case 0: return put_settings(at);
    case 1: return put(at, 8, H2_PING, (int)draw(2), 0);
    case 2: payload[3] = (char)draw(12); return put(at, 4, H2_RST_STREAM, 0, open_stream());
    case 3: return put(at, 5, H2_PRIORITY, 0, open_stream());
    case 4:
        if (draw(10)) return put(at, draw(100), 10 + (int)draw(246), (int)draw(256), draw(8));
        return put(at, draw(20), (int)draw(10), (int)draw(256), draw(8));
    case 5: h2_put_word(payload, draw(20)); return draw(10) ? 0 : put(at, 8, H2_GOAWAY, 0, 0);
    default:
        h2_put_word(payload, draw(50) ? 1 + draw(100000) : draw(1u << 31));
        return put(at, 4, H2_WINDOW_UPDATE, 0, draw(2) ? open_stream() : 0);
    }
}

static size_t put_any(char *at) {
    const uint32_t kind = draw(10);
    if (kind < 2) return put_headers(at);
    return kind < 5 ? put_control(at) : put_data(at, open_stream());
}

static size_t session(char *bytes, size_t room, int is_server) {
    size_t count = 0;
    memset(bytes, 0, room);
    memset(&peer, 0, sizeof peer);
    peer.is_client = is_server;
    peer.num_opened = is_server ? 0 : 2;
    if (is_server) {
        memcpy(bytes, H2_PREFACE, H2_PREFACE_BYTES);
        count = H2_PREFACE_BYTES;
    }
    count += put(bytes + count, 0, H2_SETTINGS, 0, 0);
    for (uint32_t frames = draw(100); frames && count < room - 20000; frames--)
        count += put_any(bytes + count);
    return count;
}

/* Changes, puts in or takes out a few bytes. What is left. */
static size_t alter(char *bytes, size_t count) {
    for (uint32_t times = draw(2) ? 0 : draw(5); times; times--) {
        const size_t at = draw((uint32_t)count);
        const size_t length = draw((uint32_t)(count - at)) % 40;
        switch (draw(5)) {
        case 0: bytes[at] = (char)draw(256); break;
        case 1: bytes[at] = (char)(bytes[at] ^ 1 << draw(8)); break;
        case 2: bytes[at] = draw(2) ? -1 : 0; break;
        case 3:
            memmove(bytes + at + length, bytes + at, count - at);
            count += length;
            break;
        default: memmove(bytes + at, bytes + at + length, count - at - length); count -= length;
        }
    }
    return count;
}

#endif
