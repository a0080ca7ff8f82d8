cimport cython

ctypedef const unsigned char *bytes_t

@cython.locals(d=bytes_t, n=Py_ssize_t, j=Py_ssize_t, broke=bint)
cpdef Py_ssize_t string_end(bytes sql, Py_ssize_t i, int mode)

@cython.locals(end=Py_ssize_t, point="unsigned int", c=int)
cdef bint _is_plain_escape(bytes_t d, Py_ssize_t i, Py_ssize_t n)

@cython.locals(d=bytes_t, n=Py_ssize_t)
cpdef Py_ssize_t name_end(bytes sql, Py_ssize_t i)

@cython.locals(d=bytes_t, n=Py_ssize_t, depth=int)
cpdef Py_ssize_t comment_end(bytes sql, Py_ssize_t i)

cpdef Py_ssize_t oracle_end(bytes sql, Py_ssize_t i)

@cython.locals(d=bytes_t, n=Py_ssize_t, j=Py_ssize_t, low=int, base=int, numeric=bint)
cpdef Py_ssize_t number_end(bytes sql, Py_ssize_t i)

@cython.locals(d=bytes_t, n=Py_ssize_t, j=Py_ssize_t, c=int)
cdef Py_ssize_t _digits_end(bytes sql, Py_ssize_t i, int base)
