/* The newest field is the first behind the static ones; the oldest is let go first. */

#include "header_table.h"

#include <string.h>

int header_table_find(const struct header_table *table, size_t number, struct header_field *field) {
    if (!number || number > HEADER_STATIC_FIELDS + table->num_fields) return -1;
    if (number <= HEADER_STATIC_FIELDS) {
        *field = header_static_fields[number - 1];
        return 0;
    }
    const size_t back = number - HEADER_STATIC_FIELDS; /* 1 for the newest */
    const size_t place = (table->first + table->num_fields - back) % HEADER_TABLE_FIELDS;
    const struct header_place *found = &table->places[place];
    const uint32_t offset = found->at - table->num_taken;
    const struct h2_buffer *bytes = &table->bytes;
    field->name =
        bytes->data ? bytes->data + bytes->start + offset : ""; /* of empty fields alone */
    field->name_count = found->name_count;
    field->value = field->name + found->name_count;
    field->value_count = found->value_count;
    return 0;
}

static void let_go(struct header_table *table) {
    const struct header_place *oldest = &table->places[table->first];
    const size_t count = (size_t)oldest->name_count + oldest->value_count;
    h2_take(&table->bytes, count);
    table->num_taken += (uint32_t)count;
    table->size -= count + HEADER_FIELD_BYTES;
    table->first = (table->first + 1) % HEADER_TABLE_FIELDS;
    table->num_fields--;
}

void header_table_resize(struct header_table *table, size_t most) {
    table->most = most;
    while (table->size > most) let_go(table);
}

int header_table_add(struct header_table *table, const struct header_field *field) {
    const size_t count = field->name_count + field->value_count;
    if (count + HEADER_FIELD_BYTES > table->most) { /* takes all the room, and has none itself */
        while (table->num_fields) let_go(table);
        return 0;
    }
    char name[HEADER_TABLE_BYTES]; /* it may lie in the table itself */
    memcpy(name, field->name, field->name_count);
    while (table->size + count + HEADER_FIELD_BYTES > table->most) let_go(table);
    const uint32_t at = table->num_taken + (uint32_t)h2_held(&table->bytes);
    if (h2_reserve(&table->bytes, count) < 0) return -1;
    h2_append(&table->bytes, name, field->name_count);
    h2_append(&table->bytes, field->value, field->value_count);
    table->size += count + HEADER_FIELD_BYTES;
    table->places[(table->first + table->num_fields++) % HEADER_TABLE_FIELDS] =
        (struct header_place){at, (uint16_t)field->name_count, (uint16_t)field->value_count};
    return 0;
}
