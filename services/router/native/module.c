/* The Python module of the router's native streams. */

#include "checksum.h"
#include "exchange_calls.h"
#include "stream.h"

static PyMethodDef methods[] = {
    METHOD(share_out),
    METHOD(send_frames),
    METHOD(await_replies),
    METHOD(sum_replies),
    {"records", call_records, METH_O, "records($module, exchange, /)\n--\n\n"},
    {"give_up", call_give_up, METH_O, "give_up($module, exchange, /)\n--\n\n"},
    {NULL, NULL, 0, NULL},
};

static int initialise(PyObject *module) {
    prepare_checksums();
    return add_stream_type(module) < 0 ? -1 : add_exchanges(module);
}

static PyModuleDef_Slot slots[] = {{Py_mod_exec, initialise}, {0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_streams",
    .m_methods = methods,
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit__streams(void) { return PyModuleDef_Init(&definition); }
