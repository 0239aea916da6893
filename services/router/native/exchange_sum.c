/* From the replies of an exchange to weighted sums. */

#include "exchange.h"

/* Notes where the row of each pair lies. A pair that nobody was asked for has none. */
static void find_rows(const struct exchange *exchange, const char **rows, int64_t count) {
    memset(rows, 0, (size_t)count * sizeof *rows);
    for (int i = 0; i < exchange->num_shares; i++) {
        const struct share *const share = exchange->shares + i;
        const int64_t *const positions = exchange->pairs.positions + share->pairs->start;
        for (int64_t pair = 0; pair < share->pairs->num_pairs; pair++)
            rows[positions[pair]] = share->reply.rows.data + (size_t)pair * exchange->row_bytes;
    }
}

int exchange_sum(struct exchange *exchange, const struct level *level, struct combination call,
                 const char *weights, enum dtype weights_dtype) {
    const int64_t count = call.num_tokens * call.top_k;
    if (have_room(&exchange->sums, (size_t)count * (sizeof(char *) + sizeof(float))) < 0) return -1;
    const char **const rows = (const char **)exchange->sums.at;
    float *const widened = (float *)(rows + count);
    find_rows(exchange, rows, count);
    widen_weights(widened, weights, count, weights_dtype);
    call.rows = rows, call.weights = widened;
    return level->combine(&call);
}
