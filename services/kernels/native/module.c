/* The Python module, which level of the instruction set it uses, and how many threads. */

#include "calls.h"
#include "interface.h"
#include "matrix_check.h"

#define MAX_LEVELS 5

const struct level *active;

/* The levels of this processor, the best first. */
static int usable_levels(const struct level **levels) {
    int count = 0;
#if defined(__x86_64__)
    __builtin_cpu_init();
    const int has_avx512 = __builtin_cpu_supports("avx512f") &&
                           __builtin_cpu_supports("avx512bw") &&
                           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    const int has_bf16 = has_avx512 && __builtin_cpu_supports("avx512bf16");
#if defined(HAS_MATRIX_UNIT)
    if (has_bf16 && find_matrix_unit() == UNIT_USABLE) levels[count++] = &level_amx_bf16;
#endif
    if (has_bf16) levels[count++] = &level_avx512_bf16;
    if (has_avx512) levels[count++] = &level_avx512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        levels[count++] = &level_avx2;
#endif
    levels[count++] = &level_portable;
    return count;
}

static PyObject *levels(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored)) {
    const struct level *usable[MAX_LEVELS];
    const int count = usable_levels(usable);
    PyObject *names = PyTuple_New(count);
    for (int i = 0; names && i < count; i++) {
        PyObject *name = PyUnicode_FromString(usable[i]->name);
        if (!name || PyTuple_SetItem(names, i, name) < 0) Py_CLEAR(names);
    }
    return names;
}

static PyObject *level(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored)) {
    return PyUnicode_FromString(active->name);
}

static PyObject *set_level(PyObject *Py_UNUSED(module), PyObject *name) {
    const struct level *known[MAX_LEVELS + 1];
    const int count = usable_levels(known);
    known[count] = &level_amx_emulated;
    for (int i = 0; i <= count; i++) {
        if (PyUnicode_Check(name) && PyUnicode_CompareWithASCIIString(name, known[i]->name) == 0) {
            active = known[i];
            Py_RETURN_NONE;
        }
    }
    PyErr_Format(PyExc_ValueError, "this processor has no level %R", name);
    return NULL;
}

/* Why the processor's matrix unit is not used; None where it is, or there is none. */
static PyObject *unused_unit(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored)) {
    switch (find_matrix_unit()) {
    case UNIT_REFUSED: return PyUnicode_FromString("the system does not lend it");
    case UNIT_WRONG: return PyUnicode_FromString("it computed other numbers than it should");
    default: Py_RETURN_NONE;
    }
}

static PyObject *threads(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored)) {
    return PyLong_FromLongLong(num_threads());
}

#define SET_THREADS(X)                                                                             \
    X(number, count)                                                                               \
    X(number, numbers_each)

CALL(set_threads, SET_THREADS);

static PyObject *set_threads(const struct set_threads_arguments *given) {
    set_num_threads(given->count, given->numbers_each);
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    METHOD(linear),
    METHOD(describe_experts),
    METHOD(gated_experts),
    METHOD(rms_norm),
    METHOD(attend),
    METHOD(apply_rotary),
    METHOD(describe_layer),
    METHOD(describe_rows),
    METHOD(describe_cache),
    METHOD(describe_between),
    METHOD(attention_layer),
    METHOD(between),
    METHOD(gate),
    METHOD(scatter),
    METHOD(combine),
    METHOD(draw),
    {"levels", levels, METH_NOARGS, "levels($module, /)\n--\n\n"},
    {"level", level, METH_NOARGS, "level($module, /)\n--\n\n"},
    {"set_level", set_level, METH_O, "set_level($module, name, /)\n--\n\n"},
    {"unused_unit", unused_unit, METH_NOARGS, "unused_unit($module, /)\n--\n\n"},
    {"threads", threads, METH_NOARGS, "threads($module, /)\n--\n\n"},
    METHOD(set_threads),
    {NULL, NULL, 0, NULL},
};

static struct kernels_interface interface = {&active, run_experts, make_stretches, scatter_pairs};

static int initialise(PyObject *module) {
    const struct level *usable[MAX_LEVELS];
    usable_levels(usable);
    active = usable[0];
    PyObject *capsule = PyCapsule_New(&interface, INTERFACE_NAME, NULL);
    const int failed = !capsule || PyModule_AddObjectRef(module, "interface", capsule) < 0;
    Py_XDECREF(capsule);
    return failed ? -1 : 0;
}

static PyModuleDef_Slot slots[] = {{Py_mod_exec, initialise}, {0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_native",
    .m_methods = methods,
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit__native(void) { return PyModuleDef_Init(&definition); }
