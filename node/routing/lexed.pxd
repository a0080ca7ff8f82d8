cdef class Lexed:
    cdef readonly bytes sql
    cdef readonly bytes shape
    cdef readonly int statements
    cdef readonly int flags
    cdef readonly bint broken
    cdef readonly list marks
    cdef readonly list comments
    cdef readonly list trace
    cdef list _cuts
    cdef Py_ssize_t _end, _first, _first_end
    cdef bint _block
