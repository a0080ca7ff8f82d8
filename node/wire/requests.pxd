cimport cython

cdef int _NOTHING, _CONTINUED, _TOO_LONG

cdef unsigned int _number(const unsigned char *p, Py_ssize_t at) noexcept

cdef class Requests:
    cdef public unsigned long long limit
    cdef public bint hold_copy
    cdef public bytes buffer
    cdef public Py_ssize_t at, start, end, rest, need, torn_bytes
    cdef public list torn
    cdef public unsigned long long length
    cdef public Py_ssize_t count, text_at, text_end, parse_end, bind_at, bind_end, name_at, name_end

    cpdef feed(self, bytes data)
    cpdef Py_ssize_t waiting_bytes(self)
    cpdef hold(self, Py_ssize_t size)
    @cython.locals(
        p="const unsigned char *", n=Py_ssize_t, at=Py_ssize_t, end=Py_ssize_t, letter=int, length="unsigned long long"
    )
    cpdef int next(self)
    @cython.locals(
        p="const unsigned char *", n=Py_ssize_t, at=Py_ssize_t, end=Py_ssize_t, letter=int, length="unsigned long long"
    )
    cpdef Py_ssize_t unit(self)
    @cython.locals(
        p="const unsigned char *", n=Py_ssize_t, end=Py_ssize_t, letter=int, length="unsigned long long", executed=bint
    )
    cpdef bint batch(self, Py_ssize_t at)
    cpdef give_back(self, bytes unit)
