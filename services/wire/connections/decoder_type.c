/* The Python type `Decoder`. Fields become pairs of texts, in a list. */

#include "decoder_type.h"

#include "header_decoder.h"

struct decoder {
    PyObject base;
    struct header_decoder header;
    Py_ssize_t max_list_bytes;
};

/* What a block became. */
struct heard {
    PyObject *fields;
    Py_ssize_t left; /* of bytes that the fields may have */
    int is_too_much, is_no_text;
    int has_failed; /* an error is set */
};

static struct decoder *decoder_of(PyObject *self) { return (struct decoder *)self; }

static PyObject *text_of(struct heard *heard, const char *data, size_t count) {
    PyObject *const text = PyUnicode_DecodeUTF8(data, (Py_ssize_t)count, NULL);
    if (text) return text;
    if (PyErr_ExceptionMatches(PyExc_UnicodeDecodeError)) {
        PyErr_Clear();
        heard->is_no_text = 1;
    } else {
        heard->has_failed = 1;
    }
    return NULL;
}

static void keep(struct heard *heard, const struct header_field *field) {
    PyObject *const name = text_of(heard, field->name, field->name_count);
    PyObject *const value = name ? text_of(heard, field->value, field->value_count) : NULL;
    PyObject *const pair = value ? PyTuple_Pack(2, name, value) : NULL;
    if (pair ? PyList_Append(heard->fields, pair) < 0 : value != NULL) heard->has_failed = 1;
    Py_XDECREF(pair);
    Py_XDECREF(value);
    Py_XDECREF(name);
}

static void hear(void *owner, const struct header_field *field) {
    struct heard *const heard = owner;
    if (heard->is_too_much || heard->is_no_text || heard->has_failed) return;
    heard->left -= (Py_ssize_t)(field->name_count + field->value_count + HEADER_FIELD_BYTES);
    heard->is_too_much = heard->left < 0;
    if (!heard->is_too_much) keep(heard, field);
}

/* Decoder(max_list_bytes) */
static PyObject *new_decoder(PyTypeObject *type, PyObject *arguments,
                             PyObject *Py_UNUSED(keywords)) {
    Py_ssize_t most;
    if (!PyArg_ParseTuple(arguments, "n", &most)) return NULL;
    struct decoder *const decoder = (struct decoder *)PyType_GenericAlloc(type, 0);
    if (!decoder) return NULL;
    header_decoder_begin(&decoder->header);
    decoder->max_list_bytes = most;
    return (PyObject *)decoder;
}

static void free_decoder(PyObject *self) {
    PyTypeObject *const type = Py_TYPE(self);
    header_decoder_end(&decoder_of(self)->header);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
}

static PyObject *decode(PyObject *self, PyObject *block) {
    struct decoder *const decoder = decoder_of(self);
    char *data;
    Py_ssize_t count;
    if (PyBytes_AsStringAndSize(block, &data, &count) < 0) return NULL;
    struct heard heard = {PyList_New(0), decoder->max_list_bytes, 0, 0, 0};
    if (!heard.fields) return NULL;
    const int failed = header_decode(&decoder->header, data, (size_t)count, hear, &heard);
    if (failed && !heard.has_failed)
        PyErr_SetString(PyExc_ValueError, "it is none, or builds on what was not said");
    if (failed || heard.has_failed) {
        Py_DECREF(heard.fields);
        return NULL;
    }
    PyObject *const is_too_much = PyBool_FromLong(heard.is_too_much);
    return Py_BuildValue("NNN", heard.fields, is_too_much, PyBool_FromLong(!heard.is_no_text));
}

static PyMethodDef methods[] = {
    {"decode", decode, METH_O, "decode($self, header_block, /)\n--\n\n"},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_new, new_decoder},
    {Py_tp_dealloc, free_decoder},
    {Py_tp_methods, methods},
    {0, NULL},
};

static PyType_Spec specification = {
    .name = "services.wire.connections._connections.Decoder",
    .basicsize = sizeof(struct decoder),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = slots,
};

int add_decoder_type(PyObject *module) {
    PyObject *const type = PyType_FromSpec(&specification);
    const int failed = type ? PyModule_AddObjectRef(module, "Decoder", type) : -1;
    Py_XDECREF(type);
    return failed;
}
