/* Reads what Python passes, keyword arguments and arrays of indices among them, and lets other
 * threads run in long work.
 *
 * Addresses come as integers (`tensor.data_ptr()`), unchecked: the facade sees to shapes, dtypes
 * and lifetimes. What could lead outside of memory whatever the shapes, an index, is checked here.
 */

#ifndef MOESAIC_ARGUMENTS_H
#define MOESAIC_ARGUMENTS_H

#include <Python.h>

#include <stdint.h>

#include "kernels.h"

/* A call with more keyword arguments makes Python build a dictionary of them. */
#define MOST_ARGUMENTS 15

/* The keyword arguments of a function that Python may call. */
struct call {
    const char *name;
    const char *const *arguments; /* [count], their names in the order of their description */
    Py_ssize_t count;
    PyObject *usual; /* the names that last came in this order, or NULL */
};

/* The values in the order of the description: themselves where they came in it, else `sorted`,
 * which has room for them. A caller's names are the same tuple each time, so that mostly one look
 * tells. NULL with an error set for positional values, and names that are missing, unknown or
 * there twice. */
PyObject *const *in_order(struct call *call, PyObject *const *values, Py_ssize_t num_positional,
                          PyObject *names, PyObject **sorted);

/* The kinds of arguments: for each the type of what is read, and `read_` with its name, which
 * returns 0, or -1 with an error set. Other files add their own. */

typedef int64_t number_argument;
typedef char *address_argument;
typedef enum dtype dtype_argument; /* as level.py numbers them */
typedef int64_t shape_argument[3]; /* of a tensor, or its strides */
typedef float float_argument;
typedef int flag_argument;
typedef PyObject *object_argument; /* borrowed */

static inline int read_number(PyObject *value, int64_t *into) {
    *into = PyLong_AsLongLong(value);
    return *into == -1 && PyErr_Occurred() ? -1 : 0;
}

static inline int read_address(PyObject *value, char **into) {
    int64_t number;
    if (read_number(value, &number) < 0) return -1;
    *into = (char *)(intptr_t)number;
    return 0;
}

static inline int read_dtype(PyObject *value, enum dtype *into) {
    int64_t number;
    if (read_number(value, &number) < 0) return -1;
    *into = number ? BFLOAT16 : FLOAT32;
    return 0;
}

int read_shape(PyObject *tuple, int64_t (*into)[3]);

static inline int read_float(PyObject *value, float *into) {
    const double number = PyFloat_AsDouble(value);
    *into = (float)number;
    return number == -1.0 && PyErr_Occurred() ? -1 : 0;
}

static inline int read_flag(PyObject *value, int *into) {
    *into = PyObject_IsTrue(value);
    return *into < 0 ? -1 : 0;
}

static inline int read_object(PyObject *value, PyObject **into) {
    *into = value;
    return 0;
}

/* What is made of each argument of a description. */
#define AS_MEMBER(kind, name) kind##_argument name;
#define AS_NAME(kind, name) #name,
#define AS_PARAMETER(kind, name) ", " #name
#define AS_FAILED_READ(kind, name) || read_##kind(*values++, &given.name) < 0

/* Makes of ARGUMENTS, which describes each as X(kind, name), the struct `function`_arguments, and
 * call_`function`, which reads them into it for `function`, defined below. All else that knows the
 * names is made of the same: the signature that Python shows, with which a test compares the stub.
 */
#define CALL(function, ARGUMENTS)                                                                  \
    struct function##_arguments {                                                                  \
        ARGUMENTS(AS_MEMBER)                                                                       \
    };                                                                                             \
    static PyObject *function(const struct function##_arguments *given);                           \
    PyObject *call_##function(PyObject *Py_UNUSED(module), PyObject *const *values,                \
                              Py_ssize_t num_positional, PyObject *names) {                        \
        static const char *const arguments[] = {ARGUMENTS(AS_NAME)};                               \
        enum { COUNT = sizeof arguments / sizeof *arguments };                                     \
        _Static_assert(COUNT <= MOST_ARGUMENTS, "too many arguments");                             \
        static struct call call = {#function, arguments, COUNT, NULL};                             \
        PyObject *sorted[COUNT];                                                                   \
        struct function##_arguments given;                                                         \
        values = in_order(&call, values, num_positional, names, sorted);                           \
        if (!values ARGUMENTS(AS_FAILED_READ)) return NULL;                                        \
        return function(&given);                                                                   \
    }                                                                                              \
    const char signature_of_##function[] =                                                         \
        #function "($module, /, *" ARGUMENTS(AS_PARAMETER) ")\n--\n\n"

/* Declares it for the table of a module's methods, and its entry there. */
#define DECLARE_CALL(function)                                                                     \
    extern const char signature_of_##function[];                                                   \
    PyObject *call_##function(PyObject *module, PyObject *const *values,                           \
                              Py_ssize_t num_positional, PyObject *names)
#define METHOD(function)                                                                           \
    {#function, (PyCFunction)(void (*)(void))call_##function, METH_FASTCALL | METH_KEYWORDS,       \
     signature_of_##function}

/* An array that is wanted: `count` int64, each at least `lowest` and below `limit`; or room to
 * write as many. */
struct array {
    PyObject *from;
    int64_t count, lowest, limit;
    int is_room;
};

/* Borrows `count` arrays, until `release_arrays`. 0, or -1 with an error set and nothing borrowed.
 */
int read_arrays(const struct array *wanted, Py_buffer *buffers, int count);

void release_arrays(Py_buffer *buffers, int count);

/* Lets other threads run when there is much to do; NULL when not. */
PyThreadState *pause_for(int64_t multiplications);

void resume(PyThreadState *paused);

#endif
